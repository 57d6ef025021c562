"""`storage`: what the home folder holds, and what of it nothing needs any more."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from datapruner.commands import answers, display
from datapruner.commands import options as given
from datapruner.commands.display import Output
from datapruner.errors import UsageError

if TYPE_CHECKING:
    from datapruner.runs.holdings import Holding, Unneeded

storage_app = typer.Typer(invoke_without_command=True)
_SHOWN = 20
_UNNEEDED = "no run needs"
_UNITS = {"d": timedelta(days=1), "h": timedelta(hours=1)}
_AGE = re.compile(r"(?P<count>\d{1,5})(?P<unit>[dh])")


@storage_app.callback()
def storage(context: typer.Context, as_json: given.Json = False) -> None:
    """Show what the home folder holds, which runs need it, and what none does. `clean` takes that away."""
    if context.invoked_subcommand is not None:
        return
    from datapruner import settings
    from datapruner.runs.holdings import holdings

    home, output = settings.home(), Output(as_json=as_json)
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
    as_json: given.Json = False,
) -> None:
    """Delete what no run needs: corpora, signals and embeddings of samples that no corpus has, leftovers.

    Runs, models and a teacher's answers stay. Nothing goes while another process uses the home folder.
    """
    from datapruner import settings
    from datapruner.runs import holdings

    home, output = settings.home(), Output(as_json=as_json)
    age = _age(older_than)
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
