"""Projects and their quotas, for admins."""

from __future__ import annotations

from fastapi import APIRouter, Response, status

from api.dependencies import ServiceDep, admin
from api.paging import IdPage, page
from datapruner.schemas.common import Page
from datapruner.schemas.projects import NewProject, ProjectAnswer, Quotas
from datapruner.service import projects

router = APIRouter(prefix="/projects", tags=["projects"], dependencies=[admin])


@router.post(
    "", operation_id="create_project", status_code=status.HTTP_201_CREATED, summary="Create a project"
)
def create_project(body: NewProject, service: ServiceDep, response: Response) -> ProjectAnswer:
    project = projects.create(service, body)
    response.headers["Location"] = f"/v1/projects/{project.id}"
    return project


@router.get("", operation_id="list_projects", summary="List the projects")
def list_projects(service: ServiceDep, paging: IdPage) -> Page[ProjectAnswer]:
    """With what each has and does now, the newest first."""
    found = projects.listing(service, limit=paging.limit + 1, before=paging.after)
    return page(found, paging.limit, lambda project: project.id)


@router.get("/{project}", operation_id="get_project", summary="Show a project, its quotas and its use")
def get_project(project: str, service: ServiceDep) -> ProjectAnswer:
    return projects.show(service, project)


@router.patch("/{project}", operation_id="change_project", summary="Change the quotas of a project")
def change_project(project: str, body: Quotas, service: ServiceDep) -> ProjectAnswer:
    """Quotas that are left out stay; null lifts one. What is there already is never deleted."""
    return projects.change(service, project, body)
