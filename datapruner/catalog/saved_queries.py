"""Queries on SQL statements kept by name."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from datapruner.catalog.models import SavedQuery, new_id, utcnow
from datapruner.catalog.pages import newest
from datapruner.errors import NotFoundError


def listing(session: Session, project_id: str, *, limit: int, before: str | None = None) -> list[SavedQuery]:
    """The newest `limit` of a project, those older than the id `before` if it is given."""
    of_project = select(SavedQuery).where(SavedQuery.project_id == project_id)
    return list(session.scalars(newest(of_project, SavedQuery.id, limit, before)))


def save(session: Session, project_id: str, name: str, sql: str) -> SavedQuery:
    """Keep a statement under a name, in place of what had it before."""
    named = select(SavedQuery).where(SavedQuery.project_id == project_id, SavedQuery.name == name)
    found = session.scalar(named)
    if found is None:
        made = SavedQuery(id=new_id("sav"), project_id=project_id, name=name, sql=sql)
        try:
            with session.begin_nested():
                session.add(made)
        except IntegrityError:  # somebody else was faster with this name
            found = session.scalars(named).one()
        else:
            return made
    found.sql, found.changed_at = sql, utcnow()
    session.flush()
    return found


def remove(session: Session, project_id: str, name: str) -> None:
    """Raises NotFoundError."""
    wanted = SavedQuery.project_id == project_id, SavedQuery.name == name
    if session.scalar(delete(SavedQuery).where(*wanted).returning(SavedQuery.id)) is None:
        raise NotFoundError(f"no saved query {name!r}", remedy="GET /v1/sql/saved lists them")
