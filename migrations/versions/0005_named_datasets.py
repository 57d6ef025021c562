"""Datasets that somebody named, by an index: listings leave the others out, which may be many more."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_MADE_UP = "^(prune|set)_[0-9a-f]{22}$"
_INDEX = "ix_datasets_project_id_named_id"


def upgrade() -> None:
    op.add_column("datasets", sa.Column("named", sa.Boolean(), nullable=True))
    datasets = sa.table("datasets", sa.column("name", sa.String()), sa.column("named", sa.Boolean()))
    op.execute(datasets.update().values(named=~datasets.c.name.regexp_match(_MADE_UP)))
    with op.batch_alter_table("datasets") as table:
        table.alter_column("named", existing_type=sa.Boolean(), nullable=False)
    op.create_index(_INDEX, "datasets", ["project_id", "named", "id"])


def downgrade() -> None:
    op.drop_index(_INDEX, "datasets")
    with op.batch_alter_table("datasets") as table:
        table.drop_column("named")
