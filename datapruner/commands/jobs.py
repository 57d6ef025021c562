"""`jobs` and `schedules`: what a service does, and what it does again and again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from datapruner.commands import answers, display, settings
from datapruner.commands import options as given
from datapruner.commands.datasets import At, Hub, Store, source_of
from datapruner.commands.display import Output
from datapruner.errors import UsageError
from datapruner.rows.formats import AnyExportFormat

if TYPE_CHECKING:
    from datapruner.client import RunOptions, ScheduleOptions
    from datapruner.schemas.jobs import JobAnswer
    from datapruner.schemas.schedules import ScheduleAnswer

jobs_app = typer.Typer(no_args_is_help=True, help="The jobs of a service.")
schedules_app = typer.Typer(no_args_is_help=True, help="Jobs of a service that come back.")

Id = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job.")]
Schedule = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Name or id.")]


@jobs_app.command("list")
def list_jobs(
    state: Annotated[
        Literal["queued", "running", "succeeded", "failed", "cancelled"] | None,
        typer.Option(help="Only jobs in this state."),
    ] = None,
    limit: given.Limit = 20,
    url: given.Url = None,
    as_json: given.Json = False,
) -> None:
    """List the jobs, the newest first."""
    with given.client(url) as client:
        answers.listing(
            Output(as_json=as_json),
            "jobs",
            client.jobs.list(state=state),
            limit,
            {
                "job": lambda job: job.id,
                "kind": lambda job: job.kind,
                "state": lambda job: job.state,
                "stage": lambda job: job.progress and job.progress.stage,
                "asked for": lambda job: job.created_at,
                "finished": lambda job: job.finished_at,
            },
        )


@jobs_app.command("show")
def show_job(job: Id, url: given.Url = None, as_json: given.Json = False) -> None:
    """Show a job: how far it is, or what came of it."""
    with given.client(url) as client:
        _show_job(Output(as_json=as_json), client.jobs.get(job))


@jobs_app.command("wait")
def wait(job: Id, url: given.Url = None, as_json: given.Json = False, quiet: given.Quiet = False) -> None:
    """Watch a job until it has finished. Its error is the command's."""
    from datapruner.commands import remote

    output = Output(as_json=as_json, quiet=quiet)
    with given.client(url) as client, output.progress() as progress:
        done = remote.wait(client, client.jobs.get(job), progress, output)
    _show_job(output, done)


@jobs_app.command("cancel")
def cancel(job: Id, url: given.Url = None, as_json: given.Json = False) -> None:
    """End a job: at once while it waits, soon while it runs."""
    with given.client(url) as client:
        _show_job(Output(as_json=as_json), client.jobs.cancel(job))


def _show_job(output: Output, job: JobAnswer) -> None:
    about: dict[str, object] = {
        "Job": job.id,
        "Kind": job.kind,
        "State": f"{job.state}, to be cancelled"
        if job.cancel_requested and not job.finished_at
        else job.state,
        "Attempt": f"{job.attempt} of {job.max_attempts}",
    }
    if job.progress is not None and job.finished_at is None:
        of = "" if job.progress.total is None else f" of {job.progress.total:,}"
        about["Stage"] = f"{job.progress.stage}: {job.progress.done:,}{of} {job.progress.unit}"
    if job.error is not None:
        about["Error"] = job.error.detail
        about["Remedy"] = job.error.remedy
    if job.result is not None:
        about |= {"New rows": job.result.new_rows, "Measured": job.result.measured}
    about |= {name.capitalize(): path for name, path in job.links.items() if name not in ("self", "events")}
    answers.details(output, job, about)


@schedules_app.command("list")
def list_schedules(limit: given.Limit = 20, url: given.Url = None, as_json: given.Json = False) -> None:
    """List the schedules, the newest first."""
    with given.client(url) as client:
        answers.listing(
            Output(as_json=as_json),
            "schedules",
            client.schedules.list(),
            limit,
            {
                "schedule": lambda schedule: schedule.name,
                "dataset": lambda schedule: schedule.dataset,
                "cron": lambda schedule: schedule.cron,
                "next": _next_fire,
            },
        )


@schedules_app.command("show")
def show_schedule(schedule: Schedule, url: given.Url = None, as_json: given.Json = False) -> None:
    """Show a schedule and when it fires next."""
    with given.client(url) as client:
        _show_schedule(Output(as_json=as_json), client.schedules.get(schedule))


@schedules_app.command("create", cls=settings.of_pruning())
def create_schedule(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Name or id.")],
    cron: Annotated[str, typer.Argument(metavar="CRON", help="Such as '0 2 * * *': each night at two.")],
    method: given.Method = None,
    option: given.Option = None,
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="RECIPE.yaml", help="Or all of it in a file, as for `datapruner run`."),
    ] = None,
    timezone: Annotated[str, typer.Option(metavar="ZONE", help="Such as Europe/Berlin.")] = "UTC",
    name: Annotated[str | None, typer.Option(help="Of the schedule.", show_default="the dataset's")] = None,
    export: Annotated[
        AnyExportFormat | None,
        typer.Option(help="What to export of each run.", show_default="parquet, where it prunes"),
    ] = None,
    hub: Hub = None,
    path: At = None,
    store: Store = None,
    overlap: Annotated[
        Literal["skip", "queue"], typer.Option(help="What to do while the fire before still works.")
    ] = "skip",
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="Told when a job of it ends.")] = None,
    url: given.Url = None,
    as_json: given.Json = False,
) -> None:
    """Prune a dataset again and again, after reading its new rows."""
    from datapruner.request.settings import beside, check_prunes, config_for

    run: RunOptions
    if recipe is None:
        asked = given.pruning(context, method, option)
        check_prunes(config_for(None, asked, target=asked.get("target")))
        run = cast("RunOptions", beside(asked))
    else:
        from datapruner.runs import recipes

        if method is not None or option or settings.given(context):
            raise UsageError(
                "a recipe says all of the run", remedy="leave out the other settings", field="recipe"
            )
        written = recipes.read(recipe)
        run = {"recipe": recipes.as_request(written.config, written.evaluate)}
    output = Output(as_json=as_json)
    from datapruner.commands import remote, sets

    options: ScheduleOptions = {
        "timezone": timezone,
        "name": name,
        "source": source_of(hub, path, store),
        "overlap": overlap,
        "webhook": webhook,
    }
    if export is not None:
        options["export"] = export
    with given.client(url) as client:
        with output.progress() as progress:
            run = sets.brought(client, run, lambda job: remote.wait(client, job, progress, output))
        made = client.schedules.create(dataset, cron, run, **options)
    _show_schedule(output, made, {"Webhook secret": made.webhook_secret})
    if made.webhook_secret is not None:
        output.note("the webhook secret is shown this once")


@schedules_app.command("pause")
def pause(schedule: Schedule, url: given.Url = None, as_json: given.Json = False) -> None:
    """Let a schedule fire no more until it is resumed."""
    with given.client(url) as client:
        _show_schedule(Output(as_json=as_json), client.schedules.change(schedule, paused=True))


@schedules_app.command("resume")
def resume(schedule: Schedule, url: given.Url = None, as_json: given.Json = False) -> None:
    """Let a paused schedule fire again."""
    with given.client(url) as client:
        _show_schedule(Output(as_json=as_json), client.schedules.change(schedule, paused=False))


@schedules_app.command("fire")
def fire(schedule: Schedule, url: given.Url = None, as_json: given.Json = False) -> None:
    """Run a schedule now."""
    with given.client(url) as client:
        _show_job(Output(as_json=as_json), client.schedules.fire(schedule))


@schedules_app.command("fires")
def fires(
    schedule: Schedule, limit: given.Limit = 20, url: given.Url = None, as_json: given.Json = False
) -> None:
    """List when a schedule fired, and what came of it."""
    with given.client(url) as client:
        zone = client.schedules.get(schedule).timezone
        answers.listing(
            Output(as_json=as_json),
            "fires",
            client.schedules.fires(schedule),
            limit,
            {
                "at": lambda fire: answers.when(fire.fire_at, zone),
                "outcome": lambda fire: fire.outcome,
                "job": lambda fire: fire.job_id,
                "state": lambda fire: fire.state,
            },
        )


@schedules_app.command("delete")
def delete_schedule(schedule: Schedule, url: given.Url = None, as_json: given.Json = False) -> None:
    """Delete a schedule. What it made stays."""
    with given.client(url) as client:
        answers.deleted(Output(as_json=as_json), f"schedule {schedule}", client.schedules.delete(schedule))


def _next_fire(schedule: ScheduleAnswer) -> str | None:
    """When it fires next, on the clock that its cron is read by."""
    if schedule.paused or schedule.next_fire_at is None:
        return "paused" if schedule.paused else None
    return answers.when(schedule.next_fire_at, schedule.timezone)


def _show_schedule(output: Output, schedule: ScheduleAnswer, more: dict[str, Any] | None = None) -> None:
    next_fires = [answers.when(moment, schedule.timezone) for moment in schedule.next_fires]
    about: dict[str, object] = {
        "Schedule": schedule.name,
        "Dataset": schedule.dataset,
        "Cron": f"{schedule.cron} ({schedule.timezone})",
        "Next": next_fires or _next_fire(schedule),
        "Method": "+".join(display.clean(choice["name"]) for choice in schedule.run["methods"]),
        "Export": schedule.export_format,
        "Held out": schedule.evaluation and list(schedule.evaluation["held_out"]),
        "Webhook": schedule.webhook_url,
    }
    answers.details(output, schedule, about | (more or {}))
