"""What is said of an export for a trainer: its limit of length, and what became of the rows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("exports") as table:
        table.add_column(sa.Column("max_length", sa.BigInteger()))
        table.add_column(sa.Column("too_long", sa.String()))
        table.add_column(sa.Column("counts", sa.JSON(none_as_null=True)))


def downgrade() -> None:
    with op.batch_alter_table("exports") as table:
        for name in ("counts", "too_long", "max_length"):
            table.drop_column(name)
