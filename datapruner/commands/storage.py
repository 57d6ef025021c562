"""`storage`: what the home folder holds, and what of it nothing needs any more."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from datapruner.commands import answers, display
from datapruner.commands import options as given
from datapruner.commands import service as commands_of_service
from datapruner.commands.display import Output
from datapruner.errors import UsageError

if TYPE_CHECKING:
    from datapruner.catalog.database import Database
    from datapruner.runs.holdings import Holding, Unneeded
    from datapruner.service.storage import Storage

Service = Annotated[
    bool,
    typer.Option("--service", help="The files of a service, as the settings of this machine name it."),
]
storage_app = typer.Typer(invoke_without_command=True)
_SHOWN = 20
_UNNEEDED = "no run needs"
_UNITS = {"d": timedelta(days=1), "h": timedelta(hours=1)}
_AGE = re.compile(r"(?P<count>\d{1,5})(?P<unit>[dh])")


@storage_app.callback()
def storage(context: typer.Context, service: Service = False, as_json: given.Json = False) -> None:
    """Show what the home folder holds, which runs need it, and what none does. `clean` takes that away."""
    if context.invoked_subcommand is not None:
        return
    if service:
        _show_service(Output(as_json=as_json))
        return
    from datapruner.home import home_folder
    from datapruner.runs.holdings import holdings

    home, output = home_folder(), Output(as_json=as_json)
    found = holdings(home)
    output.document(
        {
            "home": str(home),
            "bytes": sum(each.bytes for each in found),
            "unneeded_bytes": sum(each.unneeded_bytes for each in found),
            "holdings": [
                {
                    "kind": each.kind,
                    "name": each.name,
                    "about": each.about,
                    "bytes": each.bytes,
                    "unneeded_bytes": each.unneeded_bytes,
                    "used": each.used.isoformat(timespec="seconds"),
                    "runs": list(each.runs),
                }
                for each in found
            ],
        }
    )
    if not found:
        output.show(Text(f"nothing is in {display.clean(str(home))} yet"))
        return
    output.show(_kinds(found), "", _largest(found))
    if any(each.unneeded for each in found):
        output.show("", Text("to take away what no run needs: datapruner storage clean", style="dim"))


@storage_app.command()
def clean(
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Only what nobody wrote to for so long: 30d, or 12h.")
    ] = "30d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and leave it.")] = False,
    service: Service = False,
    as_json: given.Json = False,
) -> None:
    """Delete what no run needs: corpora, signals and embeddings of samples that no corpus has, leftovers.

    Runs, models and a teacher's answers stay. Nothing goes while another process uses the home folder. At a
    service, which needs not be stopped for it, only what is a day old goes.
    """
    from datapruner.home import home_folder
    from datapruner.runs import holdings

    home, output = home_folder(), Output(as_json=as_json)
    age = _age(older_than)
    if service:
        _clean_service(age, output, dry_run=dry_run)
        return
    gone = holdings.clean(home, older_than=age, dry_run=dry_run) if home.is_dir() else []
    size = sum(each.bytes for each in gone)
    output.document(
        {
            "home": str(home),
            "dry_run": dry_run,
            "bytes": size,
            "deleted": [{"path": str(each.path), "bytes": each.bytes} for each in gone],
        }
    )
    if gone:
        output.show(_files(gone))
        output.show(f"{display.size(size)} {'would be' if dry_run else 'were'} freed")
    else:
        output.show(f"nothing that no run needs is older than {older_than}")


def _age(text: str) -> timedelta:
    found = _AGE.fullmatch(text)
    if found is None:
        raise UsageError(f"--older-than {text!r} is no age", remedy="give days or hours, as in 30d or 12h")
    return int(found["count"]) * _UNITS[found["unit"]]


def _kinds(found: Sequence[Holding]) -> Table:
    made = display.table("kind", "count", "size", _UNNEEDED, right=("count", "size", _UNNEEDED))
    for kind in dict.fromkeys(each.kind for each in found):
        of_kind = [each for each in found if each.kind == kind]
        made.add_row(kind, f"{len(of_kind):,}", *_sizes(of_kind))
    made.add_row("total", f"{len(found):,}", *_sizes(found), style="bold")
    return made


def _sizes(some: Sequence[Holding]) -> tuple[str, str]:
    unneeded = sum(each.unneeded_bytes for each in some)
    return display.size(sum(each.bytes for each in some)), display.size(unneeded) if unneeded else "–"


def _largest(found: Sequence[Holding]) -> Table:
    """The largest things, but the runs, which `datapruner runs` lists."""
    some = sorted((each for each in found if each.kind != "runs"), key=lambda each: -each.bytes)[:_SHOWN]
    made = display.table(
        "name", "what it is", "size", "no run needs", "last used", "runs", right=("size", "runs")
    )
    for each in some:
        runs = f"{len(each.runs):,}" if each.runs else "–"
        used = answers.when(each.used.astimezone())
        made.add_row(display.clean(each.name), display.clean(each.about), *_sizes([each]), used, runs)
    return made


def _files(gone: Sequence[Unneeded]) -> Table:
    made = display.table("file or folder", "size", "last written", right=("size",))
    for each in gone[:_SHOWN]:
        path = display.clean(str(each.path))
        made.add_row(path, display.size(each.bytes), answers.when(each.written.astimezone()))
    if len(gone) > _SHOWN:
        made.add_row(f"and {len(gone) - _SHOWN:,} more", "", "")
    return made


# At a service


def _show_service(output: Output) -> None:
    from datapruner.service import usage

    with _files_of_service() as (db, files):
        found = usage.by_project(db, files)
    total, unneeded = (sum(getattr(each, name) for each in found) for name in ("bytes", "unneeded_bytes"))
    output.document(
        {"bytes": total, "unneeded_bytes": unneeded, "holdings": [asdict(each) for each in found]}
    )
    columns = ("project", "kind", "files", "size", _UNNEEDED)
    made = display.table(*columns, right=("files", "size", _UNNEEDED))
    for each in found:
        size, rest = display.size(each.bytes), display.size(each.unneeded_bytes)
        made.add_row(each.project, each.kind, f"{each.files:,}", size, rest if each.unneeded_bytes else "–")
    made.add_row("total", "", "", display.size(total), display.size(unneeded), style="bold")
    output.show(made)


def _clean_service(age: timedelta, output: Output, *, dry_run: bool) -> None:
    from datapruner.service import retention, usage

    least = max(age, usage.LEAST_AGE)
    with _files_of_service() as (db, files):
        gone = retention.orphans(db, files, least, least)
        if not dry_run:
            retention.sweep(db, files, least, least)
    size = sum(each.size for each in gone)
    deleted = [{"path": each.key, "bytes": each.size} for each in gone]
    output.document({"dry_run": dry_run, "bytes": size, "deleted": deleted})
    output.show(
        f"{display.plural(len(gone), 'file')} with {display.size(size)} {'would go' if dry_run else 'went'}"
    )


@contextmanager
def _files_of_service() -> Iterator[tuple[Database, Storage]]:
    from datapruner.catalog import migrations
    from datapruner.service.storage import open_storage
    from datapruner.settings import load

    settings = load()
    with commands_of_service.database() as db:
        migrations.ensure_current(db)
        yield db, open_storage(settings.files, settings.home / "cache", settings.cache_bytes)
