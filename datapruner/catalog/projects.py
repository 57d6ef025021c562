"""Queries on projects, their quotas and use, and the tokens bound to them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from datapruner.catalog.models import (
    Dataset,
    Export,
    Job,
    Project,
    Run,
    Token,
    Upload,
    Version,
    new_id,
    utcnow,
)
from datapruner.catalog.pages import newest
from datapruner.errors import ConflictError, NotFoundError, QuotaError
from datapruner.schemas.projects import ProjectUsage


def create_project(
    session: Session,
    name: str,
    *,
    quota_rows: int | None = None,
    quota_bytes: int | None = None,
    quota_jobs: int | None = None,
) -> Project:
    """Raises ConflictError when the name is taken."""
    project = Project(
        id=new_id("prj"), name=name, quota_rows=quota_rows, quota_bytes=quota_bytes, quota_jobs=quota_jobs
    )
    try:
        with session.begin_nested():
            session.add(project)
    except IntegrityError as error:
        raise ConflictError(
            f"there is a project {name!r} already", field="name", remedy="choose another name"
        ) from error
    return project


def find_project(session: Session, name_or_id: str) -> Project:
    """Raises NotFoundError."""
    wanted = (Project.id == name_or_id) | (Project.name == name_or_id)
    found = session.scalars(select(Project).where(wanted)).all()
    if not found:
        raise NotFoundError(f"no project {name_or_id!r}", remedy="see GET /v1/projects")
    return min(found, key=lambda one: one.id != name_or_id)  # one may be called by another's id


def list_projects(session: Session, *, limit: int, before: str | None = None) -> list[Project]:
    """The newest `limit` projects, those older than the id `before` if it is given."""
    return list(session.scalars(newest(select(Project), Project.id, limit, before)))


def change_project(session: Session, project: Project, quotas: dict[str, int | None]) -> None:
    """Set the quotas named; the others stay."""
    for name, value in quotas.items():
        setattr(project, name, value)
    session.flush()


def usage(session: Session, project_id: str) -> ProjectUsage:
    """What a project has and does now, in the units of its quotas."""
    rows, size = session.execute(
        select(func.coalesce(func.sum(Version.rows), 0), func.coalesce(func.sum(Version.bytes), 0))
        .join(Dataset, Dataset.id == Version.dataset_id)
        .where(Dataset.project_id == project_id)
    ).one()
    for table in (Upload, Run, Export):
        size += session.scalar(select(func.sum(table.bytes)).where(table.project_id == project_id)) or 0
    running = select(func.count()).where(Job.project_id == project_id, Job.state == "running")
    return ProjectUsage(rows=int(rows), bytes=int(size), running_jobs=session.scalars(running).one())


def check_quota(session: Session, project_id: str, *, rows: int = 0, bytes: int = 0) -> None:  # noqa: A002
    """Raise QuotaError when the project may not have so many more rows or bytes."""
    project = session.get_one(Project, project_id)
    if project.quota_rows is None and project.quota_bytes is None:
        return
    used = usage(session, project_id)
    for name, limit, now, more in (
        ("rows", project.quota_rows, used.rows, rows),
        ("bytes", project.quota_bytes, used.bytes, bytes),
    ):
        if limit is not None and now + more > limit:
            raise QuotaError(
                f"project {project.name} may have {limit:,} {name}; it has {now:,} and {more:,} would come",
                remedy="delete datasets, runs or exports, or ask an admin for a larger quota",
            )


def create_token(
    session: Session,
    project_id: str,
    name: str,
    digest: str,
    scopes: list[str],
    *,
    max_jobs: int | None = None,
    expires_at: datetime | None = None,
) -> Token:
    """`digest` is of the secret, which is not kept. `expires_at` in UTC, without a zone."""
    token = Token(
        id=new_id("tok"),
        project_id=project_id,
        name=name,
        digest=digest,
        scopes=scopes,
        max_jobs=max_jobs,
        expires_at=expires_at,
    )
    session.add(token)
    session.flush()
    return token


def list_tokens(session: Session, *, limit: int, before: str | None = None) -> list[Token]:
    """The newest `limit` tokens of all projects, those older than the id `before` if it is given."""
    return list(session.scalars(newest(select(Token), Token.id, limit, before)))


def revoke_token(session: Session, token_id: str) -> Token:
    """End a token; ending it again changes nothing. Raises NotFoundError."""
    token = session.get(Token, token_id)
    if token is None:
        raise NotFoundError(f"no token {token_id!r}", remedy="see GET /v1/tokens")
    token.revoked_at = token.revoked_at or utcnow()
    return token
