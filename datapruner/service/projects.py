"""Projects, their quotas and what they have, for admins."""

from __future__ import annotations

from sqlalchemy.orm import Session

from datapruner.catalog import projects
from datapruner.catalog.models import Project
from datapruner.schemas.projects import NewProject, ProjectAnswer, Quotas
from datapruner.service.instance import Service


def create(service: Service, wanted: NewProject) -> ProjectAnswer:
    """Raises ConflictError when the name is taken."""
    with service.db.write() as session:
        return _answer(session, projects.create_project(session, **wanted.model_dump()))


def listing(service: Service, *, limit: int, before: str | None = None) -> list[ProjectAnswer]:
    """The newest `limit` projects, those older than the id `before` if it is given."""
    with service.db.read() as session:
        found = projects.list_projects(session, limit=limit, before=before)
        return [_answer(session, project) for project in found]


def show(service: Service, project: str) -> ProjectAnswer:
    """A project, by name or id. Raises NotFoundError."""
    with service.db.read() as session:
        return _answer(session, projects.find_project(session, project))


def change(service: Service, project: str, wanted: Quotas) -> ProjectAnswer:
    """Set the quotas that are given; the others stay. Raises NotFoundError."""
    with service.db.write() as session:
        found = projects.find_project(session, project)
        projects.change_project(session, found, wanted.model_dump(exclude_unset=True))
        return _answer(session, found)


def _answer(session: Session, project: Project) -> ProjectAnswer:
    columns = {name: getattr(project, name) for name in ProjectAnswer.model_fields if name != "usage"}
    return ProjectAnswer(**columns, usage=projects.usage(session, project.id))
