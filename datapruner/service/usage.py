"""What published files take in storage, by project and kind, and how much of it nothing refers to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select

from datapruner.catalog.database import Database
from datapruner.catalog.models import Project
from datapruner.service import retention
from datapruner.service.storage import Storage

KINDS = ("corpora", "signals", "influence", "tuned", "evaluations", "runs", "exports", "uploads")
LEAST_AGE = timedelta(days=1)
"""Of what is taken for unneeded: a younger file's row may be about to be committed."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Files of one kind of one project; `unneeded_bytes` of those that `retention.sweep` would delete."""

    project: str
    project_id: str
    kind: str
    files: int
    bytes: int
    unneeded_bytes: int


def by_project(db: Database, storage: Storage) -> list[Usage]:
    """What each project has, by its name and the kind of files; nothing where there are none."""
    with db.read() as session:
        projects = session.execute(select(Project.name, Project.id).order_by(Project.name)).all()
    unneeded: dict[str, int] = {}
    for each in retention.orphans(db, storage, LEAST_AGE, LEAST_AGE):
        folder = "/".join(each.key.split("/")[:3])
        unneeded[folder] = unneeded.get(folder, 0) + each.size
    found = []
    for name, project_id in projects:
        for kind in KINDS:
            folder = f"projects/{project_id}/{kind}"
            sizes = [each.size for each in storage.listing(folder)]
            if sizes:
                usage = Usage(name, project_id, kind, len(sizes), sum(sizes), unneeded.get(folder, 0))
                found.append(usage)
    return found
