"""Indexes by which a page of a listing costs the same however much there is to list."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NEW = (
    ("datasets", ("project_id", "id")),
    ("deliveries", ("schedule_id", "id")),
    ("exports", ("project_id", "id")),
    ("exports", ("run_id", "id")),
    ("fires", ("schedule_id", "id")),
    ("jobs", ("project_id", "id")),
    ("jobs", ("project_id", "kind", "id")),
    ("jobs", ("project_id", "state", "id")),
    ("jobs", ("schedule_id", "state")),
    ("runs", ("dataset_id", "id")),
    ("runs", ("project_id", "id")),
    ("schedules", ("project_id", "id")),
)
_OLD = (
    ("deliveries", "schedule_id"),
    ("exports", "project_id"),
    ("exports", "run_id"),
    ("jobs", "project_id"),
    ("jobs", "schedule_id"),
    ("runs", "dataset_id"),
    ("runs", "project_id"),
    ("schedules", "project_id"),
)
"""Their columns come first in new ones."""


def upgrade() -> None:
    for table, columns in _NEW:
        op.create_index(f"ix_{table}_{'_'.join(columns)}", table, columns)
    for table, column in _OLD:
        op.drop_index(op.f(f"ix_{table}_{column}"), table)


def downgrade() -> None:
    for table, column in _OLD:
        op.create_index(op.f(f"ix_{table}_{column}"), table, [column])
    for table, columns in _NEW:
        op.drop_index(f"ix_{table}_{'_'.join(columns)}", table)
