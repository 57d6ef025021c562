"""`tokens` and `projects`: who may use a service, for what, and how much. For tokens with the scope admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from datapruner.commands import answers, display
from datapruner.commands import options as given
from datapruner.commands.display import Output

if TYPE_CHECKING:
    from datapruner.client import Quotas
    from datapruner.schemas.projects import ProjectAnswer, Scope

tokens_app = typer.Typer(no_args_is_help=True, help="The tokens of a service.")
projects_app = typer.Typer(no_args_is_help=True, help="The projects of a service.")

Name = Annotated[str, typer.Argument(metavar="PROJECT", help="Name or id.")]
Rows = Annotated[int | None, typer.Option("--rows", min=0, help="Most rows of all its datasets.")]
Bytes = Annotated[int | None, typer.Option("--bytes", min=0, help="Most bytes of all its files.")]
Jobs = Annotated[int | None, typer.Option("--jobs", min=1, help="Most jobs at the same time.")]


@tokens_app.command("list")
def list_tokens(limit: given.Limit = 20, url: given.Url = None, as_json: given.Json = False) -> None:
    """List the tokens of all projects, the newest first."""
    with given.client(url) as client:
        answers.listing(
            Output(as_json=as_json),
            "tokens",
            client.tokens.list(),
            limit,
            {
                "token": lambda token: token.id,
                "name": lambda token: token.name,
                "scopes": lambda token: token.scopes,
                "last used": lambda token: token.last_used_at,
                "ends": lambda token: "revoked" if token.revoked_at else token.expires_at,
            },
        )


@tokens_app.command("create")
def create_token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            metavar="read|write|sql|admin",
            show_default="read, write, sql",
            help="What it may do; repeatable.",
        ),
    ] = None,
    project: Annotated[str | None, typer.Option(help="Its project.", show_default="yours")] = None,
    days: Annotated[float | None, typer.Option(min=0.001, help="Days until it ends.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Most jobs of it at the same time.")] = None,
    url: given.Url = None,
    as_json: given.Json = False,
) -> None:
    """Make a token. It is shown this once."""
    output = Output(as_json=as_json)
    with given.client(url) as client:
        made = client.tokens.create(
            name,
            scopes=cast("list[Scope]", scope) or ["read", "write", "sql"],
            project=project,
            max_jobs=jobs,
            expires_in_days=days,
        )
    shown = {"Token": made.secret, "Id": made.id, "Scopes": made.scopes, "Ends": made.expires_at}
    answers.details(output, made, shown)
    output.note("the token is shown this once")


@tokens_app.command("revoke")
def revoke(
    token: Annotated[str, typer.Argument(metavar="TOKEN_ID", help="Id of the token, not the token.")],
    url: given.Url = None,
    as_json: given.Json = False,
) -> None:
    """End a token at once."""
    with given.client(url) as client:
        gone = client.tokens.revoke(token)
    answers.details(Output(as_json=as_json), gone, {"Id": gone.id, "Revoked": gone.revoked_at})


@projects_app.command("list")
def list_projects(limit: given.Limit = 20, url: given.Url = None, as_json: given.Json = False) -> None:
    """List the projects, the newest first."""
    with given.client(url) as client:
        answers.listing(
            Output(as_json=as_json),
            "projects",
            client.projects.list(),
            limit,
            {
                "project": lambda project: project.name,
                "rows": lambda project: _of(project.usage.rows, project.quota_rows),
                "bytes": lambda project: _of(project.usage.bytes, project.quota_bytes),
                "running jobs": lambda project: _of(project.usage.running_jobs, project.quota_jobs),
            },
        )


@projects_app.command("show")
def show_project(name: Name, url: given.Url = None, as_json: given.Json = False) -> None:
    """Show a project, its quotas and what it uses of them."""
    with given.client(url) as client:
        _show(Output(as_json=as_json), client.projects.get(name))


@projects_app.command("create")
def create_project(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A plain lower-case name.")],
    rows: Rows = None,
    size: Bytes = None,
    jobs: Jobs = None,
    url: given.Url = None,
    as_json: given.Json = False,
) -> None:
    """Make a project."""
    with given.client(url) as client:
        _show(Output(as_json=as_json), client.projects.create(name, **_quotas(rows, size, jobs)))


@projects_app.command("change")
def change_project(
    name: Name,
    rows: Rows = None,
    size: Bytes = None,
    jobs: Jobs = None,
    url: given.Url = None,
    as_json: given.Json = False,
) -> None:
    """Change the quotas of a project. Those that are left out stay."""
    with given.client(url) as client:
        _show(Output(as_json=as_json), client.projects.change(name, **_quotas(rows, size, jobs)))


def _quotas(rows: int | None, size: int | None, jobs: int | None) -> Quotas:
    quotas: Quotas = {}
    if rows is not None:
        quotas["quota_rows"] = rows
    if size is not None:
        quotas["quota_bytes"] = size
    if jobs is not None:
        quotas["quota_jobs"] = jobs
    return quotas


def _of(used: int, quota: int | None) -> str:
    return f"{used:,}" if quota is None else f"{used:,} of {quota:,}"


def _show(output: Output, project: ProjectAnswer) -> None:
    usage = project.usage
    size = display.size(usage.bytes)
    about: dict[str, object] = {
        "Project": project.name,
        "Id": project.id,
        "Rows": _of(usage.rows, project.quota_rows),
        "Bytes": size if project.quota_bytes is None else f"{size} of {display.size(project.quota_bytes)}",
        "Running jobs": _of(usage.running_jobs, project.quota_jobs),
    }
    answers.details(output, project, about)
