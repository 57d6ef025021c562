"""`datasets` and `exports`: what a service has, and how it gets there and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datapruner.commands import answers
from datapruner.commands import options as given
from datapruner.commands.display import Output
from datapruner.errors import UsageError
from datapruner.rows.formats import AnyExportFormat, TooLong

if TYPE_CHECKING:
    from datapruner.schemas.datasets import DatasetAnswer, VersionAnswer
    from datapruner.schemas.exports import ExportAnswer

datasets_app = typer.Typer(no_args_is_help=True, help="The datasets of a service.")
exports_app = typer.Typer(no_args_is_help=True, help="The subsets of a service, as files.")

Name = Annotated[str, typer.Argument(metavar="DATASET", help="Name or id.")]
File = Annotated[str | None, typer.Argument(metavar="[FILE]", help="File to send, or - for standard input.")]
Hub = Annotated[str | None, typer.Option(metavar="ORG/NAME", help="Or: read this dataset on the Hub.")]
At = Annotated[
    str | None,
    typer.Option("--path", metavar="PATH", help="Or: read this file, folder or glob, at the service."),
]
Store = Annotated[str | None, typer.Option(metavar="URL", help="Or: read this object or prefix of a store.")]
Number = Annotated[int | None, typer.Option("--version", min=1, show_default="the latest")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")]
Cascade = Annotated[bool, typer.Option("--cascade", help="Delete what depends on it too.")]


@datasets_app.command("list")
def list_datasets(
    unnamed: Annotated[
        bool, typer.Option("--unnamed", help="Those too that nobody named, as of prune with a file.")
    ] = False,
    limit: given.Limit = 20,
    url: given.Url = None,
    as_json: given.Json = False,
) -> None:
    """List the datasets, the newest first."""
    with given.client(url) as client:
        answers.listing(
            Output(as_json=as_json),
            "datasets",
            client.datasets.list(unnamed=unnamed),
            limit,
            {
                "name": lambda dataset: dataset.name,
                "version": lambda dataset: dataset.latest and dataset.latest.number,
                "rows": lambda dataset: dataset.latest and dataset.latest.rows,
                "rejected": lambda dataset: dataset.latest and dataset.latest.rejected,
                "made": lambda dataset: dataset.created_at,
            },
        )


@datasets_app.command("show")
def show(name: Name, url: given.Url = None, as_json: given.Json = False) -> None:
    """Show a dataset and its latest version."""
    with given.client(url) as client:
        _show_dataset(Output(as_json=as_json), client.datasets.get(name))


@datasets_app.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A plain lower-case name.")],
    file: File = None,
    hub: Hub = None,
    path: At = None,
    store: Store = None,
    map_: given.Mapped = None,
    url: given.Url = None,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Make a dataset of a file, or of something that the service reads itself."""
    from datapruner.commands import remote

    output, source = Output(as_json=as_json, quiet=quiet), source_of(hub, path, store)
    mapping = given.assignments(map_, "--map")
    with given.client(url) as client, remote.sending(file) as data, output.progress() as progress:
        job = client.datasets.start_create(name, data, source=source, mapping=mapping)
        remote.wait(client, job, progress, output)
        made = client.datasets.get(name)
    _show_dataset(output, made)


@datasets_app.command("append")
def append(
    name: Name,
    file: File = None,
    hub: Hub = None,
    path: At = None,
    store: Store = None,
    only_new: Annotated[
        bool, typer.Option("--only-new", help="Leave out rows that the dataset has.")
    ] = False,
    url: given.Url = None,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Add rows as a new version; without any, the dataset's own source is read again."""
    from datapruner.commands import remote

    output, source = Output(as_json=as_json, quiet=quiet), source_of(hub, path, store)
    with given.client(url) as client, remote.sending(file) as data, output.progress() as progress:
        job = client.datasets.start_append(name, data, source=source, only_new=only_new)
        done = remote.wait(client, job, progress, output)
        version = client.datasets.version(name, int(remote.came(done, "version")))
    answers.details(output, version, _about(version))


@datasets_app.command("rejects")
def rejects(
    name: Name,
    version: Number = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, in row order.")] = 20,
    url: given.Url = None,
    as_json: given.Json = False,
) -> None:
    """List the rows that are no samples, and why."""
    with given.client(url) as client:
        if version is None:
            latest = client.datasets.get(name).latest
            if latest is None:
                raise UsageError(f"dataset {name} has no version yet", remedy="see `datapruner jobs list`")
            version = latest.number
        answers.listing(
            Output(as_json=as_json),
            "rejects",
            client.datasets.rejects(name, version),
            limit,
            {
                "row": lambda reject: reject.row,
                "line": lambda reject: f"{reject.source}:{reject.line}",
                "reason": lambda reject: reject.reason,
                "remedy": lambda reject: reject.remedy,
            },
        )


@datasets_app.command("delete")
def delete(
    name: Name,
    cascade: Cascade = False,
    dry_run: DryRun = False,
    url: given.Url = None,
    as_json: given.Json = False,
) -> None:
    """Delete a dataset with all its versions."""
    with given.client(url) as client:
        gone = client.datasets.delete(name, cascade=cascade, dry_run=dry_run)
    answers.deleted(Output(as_json=as_json), f"dataset {name}", gone)


def source_of(hub: str | None, path: str | None, store: str | None) -> dict[str, Any] | None:
    """What the service is to read. Raises UsageError when that is more than one thing."""
    sources = {"hub": hub and {"name": hub}, "path": path and {"path": path}, "url": store and {"url": store}}
    found = [{"kind": kind, **where} for kind, where in sources.items() if where]
    if len(found) > 1:
        raise UsageError("more than one of --hub, --path and --store is given", remedy="give one of them")
    return found[0] if found else None


def _show_dataset(output: Output, dataset: DatasetAnswer) -> None:
    about: dict[str, object] = {"Dataset": dataset.name, "Id": dataset.id}
    answers.details(output, dataset, about | ({} if dataset.latest is None else _about(dataset.latest)))


def _about(version: VersionAnswer) -> dict[str, object]:
    truncated = version.report.get("truncated_sources", {})
    about = {"Truncated": "\n".join(f"{name}, {where}" for name, where in truncated.items())}
    return (about if truncated else {}) | {
        "Version": version.number,
        "Rows": version.rows,
        "Accepted": version.accepted,
        "Rejected": version.rejected,
        "Duplicates": version.duplicates,
        "New rows": version.new_rows,
        "Made": version.created_at,
    }


@exports_app.command("list")
def list_exports(
    run: Annotated[str | None, typer.Option(metavar="ID", help="Only those of this run.")] = None,
    limit: given.Limit = 20,
    url: given.Url = None,
    as_json: given.Json = False,
) -> None:
    """List the exports, the newest first."""
    with given.client(url) as client:
        answers.listing(
            Output(as_json=as_json),
            "exports",
            client.exports.list(run=run),
            limit,
            {
                "export": lambda export: export.id,
                "run": lambda export: export.run_id,
                "format": lambda export: export.format,
                "state": lambda export: export.state,
                "rows": lambda export: export.rows,
                "bytes": lambda export: export.bytes,
            },
        )


@exports_app.command("create")
def create_export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id of a run that pruned.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the subset.")],
    format_: Annotated[AnyExportFormat, typer.Option("--format")] = "parquet",
    max_length: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Tokens that a row for a trainer may have.")
    ] = None,
    too_long: Annotated[
        TooLong, typer.Option(help="What becomes of longer rows: their end goes, or all.")
    ] = "cut",
    url: given.Url = None,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Write the subset of a run, and fetch it; a folder, which some trainers take, as a tar archive."""
    from datapruner.commands import remote
    from datapruner.commands.export import fetched
    from datapruner.outputs.trainers.registry import file_of

    suffix, _ = file_of(format_)
    if out.suffix != suffix:
        raise UsageError(f"{out} is no name for {format_}", remedy=f"call it …{suffix}")
    output = Output(as_json=as_json, quiet=quiet)
    with given.client(url) as client, output.progress() as progress:
        started = client.exports.start_create(run, format_, max_length=max_length, too_long=too_long)
        job = remote.wait(client, started, progress, output)
        export = client.exports.get(remote.came(job, "export_id"))
        remote.fetch(client, export.id, out, progress)
        model = client.runs.get(export.run_id).config["measuring"]["model"]
    answers.details(output, export, _written(export, out))
    if export.counts is not None:
        output.show("", *fetched(export, model, out))


@exports_app.command("fetch")
def fetch_export(
    export: Annotated[str, typer.Argument(metavar="EXPORT", help="Id of an export.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write it.")],
    url: given.Url = None,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Fetch an export, or the rest of it when that was interrupted before, and its card beside it."""
    from datapruner.commands import remote

    output = Output(as_json=as_json, quiet=quiet)
    with given.client(url) as client, output.progress() as progress:
        remote.fetch(client, export, out, progress)
        about = client.exports.get(export)
    answers.details(output, about, _written(about, out))


def _written(export: ExportAnswer, out: Path) -> dict[str, Any]:
    """What is said of an export that was fetched to `out`."""
    from datapruner.reporting import card  # few commands fetch, and its libraries take time

    about = card.place(out) / card.README
    return {"Export": export.id, "Rows": export.rows, "Written": out, "Card": about}
