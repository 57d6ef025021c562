"""SQL statements that a project keeps by name."""

from __future__ import annotations

from datapruner.catalog import saved_queries
from datapruner.catalog.models import SavedQuery
from datapruner.schemas.datasets import Deleted
from datapruner.schemas.sql import NewSavedQuery, SavedQueryAnswer
from datapruner.service.instance import Service
from datapruner.service.tokens import Caller


def listing(
    service: Service, caller: Caller, *, limit: int, before: str | None = None
) -> list[SavedQueryAnswer]:
    """The newest `limit`, those older than the id `before` if it is given."""
    with service.db.read() as session:
        found = saved_queries.listing(session, caller.project_id, limit=limit, before=before)
        return [_answer(query) for query in found]


def save(service: Service, caller: Caller, name: str, wanted: NewSavedQuery) -> SavedQueryAnswer:
    """Keep a statement under a name, in place of what had it before. It need not be right."""
    with service.db.write() as session:
        return _answer(saved_queries.save(session, caller.project_id, name, wanted.sql))


def delete(service: Service, caller: Caller, name: str) -> Deleted:
    """Raises NotFoundError."""
    with service.db.write() as session:
        saved_queries.remove(session, caller.project_id, name)
    return Deleted.of({}, done=True)


def _answer(query: SavedQuery) -> SavedQueryAnswer:
    return SavedQueryAnswer(id=query.id, name=query.name, sql=query.sql, changed_at=query.changed_at)
