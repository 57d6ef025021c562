"""`methods`, `models` and `doctor`: what there is to prune with, and whether it works here."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from rich.text import Text

from datapruner.commands import display
from datapruner.commands import options as given
from datapruner.commands.display import Output
from datapruner.errors import ModelError
from scorers.methods.findings import measured

if TYPE_CHECKING:
    from scorers.method import Method

models_app = typer.Typer(invoke_without_command=True)
_STATES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One method, with its options and columns.")
    ] = None,
    as_json: given.Json = False,
) -> None:
    """List the pruning methods, or the options, presets, columns and measured findings of one."""
    from datapruner.request.config import find
    from scorers.methods import registry

    output = Output(as_json=as_json)
    if name is not None:
        method = find(name)
        output.document(_about(method))
        _show_method(output, method)
        return
    known = registry.methods().values()
    output.document({"methods": [_about(method) for method in known]})
    made = display.table("name", "what it is", "paper", "presets")
    for method in known:
        made.add_row(
            *map(display.clean, (method.name, method.title, method.paper, ", ".join(method.presets)))
        )
    output.show(
        made, Text("options of one, and what it was found to keep: datapruner methods NAME", style="dim")
    )


def _about(method: Method[Any]) -> dict[str, Any]:
    kinds = get_type_hints(method.options)
    return {
        "name": method.name,
        "title": method.title,
        "paper": method.paper,
        "options": [
            {
                "name": each.name,
                "help": each.metadata["option"].help,
                "allowed": each.metadata["option"].allowed(kinds[each.name]),
                "default": each.default,
            }
            for each in fields(method.options)
        ],
        "presets": {name: dict(preset) for name, preset in method.presets.items()},
        "columns": [asdict(column) for column in method.columns],
        "findings": [asdict(each) for each in measured().of(method.name)],
        "measured_with": list(measured().sizes),
    }


def _show_method(output: Output, method: Method[Any]) -> None:
    about = _about(method)
    output.show(Text(f"{method.name}: {method.title}", style="bold"), Text(method.paper, style="dim"))
    if about["options"]:
        made = display.table("option", "default", "allowed", "what it does", title="Options (-o NAME=VALUE)")
        for each in about["options"]:
            made.add_row(each["name"], _written(each["default"]), each["allowed"], each["help"])
        output.show(made)
    else:
        output.show("no options")
    if about["presets"]:
        made = display.table("preset", "settings", title="Presets (--preset NAME)")
        for name, preset in about["presets"].items():
            made.add_row(name, ", ".join(f"{key} {_written(value)}" for key, value in preset.items()))
        output.show(made)
    made = display.table("column", "of", "what it is", title="Columns and thresholds")
    for column in method.columns:
        made.add_row(*map(display.clean, (column.name, column.of, column.text)))
    output.show(made)
    _show_findings(output, method.name)


def _show_findings(output: Output, name: str) -> None:
    """What was measured of the method: nothing of one of another package."""
    for each in measured().of(name):
        title = f"Measured with {display.clean(each.words)}" if each.words else "Measured with its defaults"
        made = display.table("what", "found", title=title)
        for one in each.kept:
            made.add_row(
                f"{one.kind}, of {one.corpus}",
                f"{one.share:.0%} kept ({one.kept:,} of {one.rows:,}; 50% by chance)",
            )
        if each.tokens is not None:
            made.add_row("response tokens in the kept half", f"{each.tokens:.0%}")
        if each.length is not None:
            words = f"{each.length.correlation:+.2f} (above 0: long ones are kept)"
            made.add_row(f"rank correlation of {each.length.column} with length", words)
        for change in each.changes:
            words = f"{change.verdict}: {change.text} nats a token, below 0 is better"
            made.add_row(f"against random rows, {change.setting}", words)
        for why in each.left_out:
            made.add_row("not measured", display.clean(why))
        output.show(made)
    if measured().of(name):
        output.show(Text("\n".join(("measured with", *measured().sizes)), style="dim"))


def _written(value: object) -> str:
    """As it is given on the command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@models_app.callback()
def models(context: typer.Context, as_json: given.Json = False) -> None:
    """List the proxy models that have a name of their own, or fetch one: datapruner models pull NAME."""
    if context.invoked_subcommand is not None:
        return
    from datapruner.home import home_folder
    from scorers.models.sources import ALIASES

    home = home_folder()
    folders = {alias: home / "models" / alias for alias in ALIASES}
    output = Output(as_json=as_json)
    output.document(
        {
            "models": [
                {
                    "name": alias,
                    "source": ALIASES[alias].source,
                    "path": str(folder) if folder.is_dir() else None,
                }
                for alias, folder in folders.items()
            ]
        }
    )
    made = display.table("name", "comes from", "here")
    for alias, folder in folders.items():
        made.add_row(alias, ALIASES[alias].source, "yes" if folder.is_dir() else "no")
    others = "--model also takes a folder, a .gguf file, or org/name[@revision] on the Hugging Face Hub"
    output.show(made, Text(others, style="dim"))


@models_app.command()
def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that `datapruner models` lists.")],
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Fetch a proxy model, check its hash and convert it. Nothing to do when it is there."""
    from datapruner.home import home_folder
    from scorers.models.sources import ModelSourceError
    from scorers.models.sources import pull as fetch

    output = Output(as_json=as_json, quiet=quiet)
    with output.progress() as progress:
        try:
            folder = fetch(name, home_folder(), lambda step: progress.stage(step, None, ""))
        except ModelSourceError as error:
            raise ModelError(str(error)) from error
    output.document({"name": name, "path": str(folder)})
    output.show(Text(f"{name} is in {display.clean(str(folder))}"))


def doctor(as_json: given.Json = False) -> None:
    """Check that this machine can do the work. Exit code 1 when something must be put right first."""
    from datapruner.commands.doctor import checks
    from datapruner.home import home_folder

    output = Output(as_json=as_json)
    with output.progress() as progress:
        found = []
        progress.stage("checking", None, "checks")
        for check in checks(home_folder()):
            found.append(check)
            progress.at(len(found), note=check.name)
    failed = [check for check in found if check.state == "fail"]
    output.document({"ok": not failed, "checks": [asdict(check) for check in found]})
    made = display.table("", "check", "found")
    for check in found:
        text = Text(display.clean(check.found))
        if check.remedy is not None:
            text.append(f"\n{display.clean(check.remedy)}", style="italic")
        made.add_row(Text(check.state, style=_STATES[check.state]), check.name, text)
    output.show(made)
    if failed:
        raise typer.Exit(1)
