"""Arguments and options that several commands share, and how their values are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from datapruner.commands import settings
from datapruner.errors import UsageError
from datapruner.rows.formats import FILES, listed

if TYPE_CHECKING:
    from datapruner.client import Client

Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="File, folder, Hub name, or - for standard input.")
]
Method = Annotated[
    str | None, typer.Option("--method", "-m", show_default="qtuning", help="See: datapruner methods.")
]
Option = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="NAME=VALUE", help="An option of the method; repeatable."),
]
Mapped = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="ROLE=COLUMN", help="Column for a role, as in prompt=q; repeatable."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, or GPUs such as cuda:0,cuda:1.")]
Engine = Annotated[
    Literal["local", "ray"] | None,
    typer.Option(
        help="What measures: processes of this machine, or actors of a Ray cluster.", show_default="local"
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="auto|HOST:PORT",
        help="The Ray cluster to measure on.",
        show_default="one on this machine, for as long as it takes",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        envvar="DATAPRUNER_URL",
        help="Do it at this service. Its token: DATAPRUNER_TOKEN.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Ask no teacher: print how many questions, tokens and money it takes."),
]
LogTo = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TRACKER",
        help="Log it there: mlflow, wandb, trackio or openlineage, by their own settings; repeatable.",
    ),
]
Limit = Annotated[int, typer.Option(min=1, help="How many, the newest first.")]
SubsetFile = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help=f"Write the subset with scores and masks: {listed(FILES)}."),
]
PlainFile = Annotated[
    Path | None,
    typer.Option("--plain", metavar="FILE", help=f"Write the kept rows unchanged: {listed(FILES)}."),
]


def client(url: str | None) -> Client:
    """A client of the service at `url`, by default this machine's. Raises UsageError."""
    from datapruner.client import Client

    return Client(url)


def assignments(given: Sequence[str] | None, option: str) -> dict[str, str]:
    """`["a=1", "b=2"]` as a mapping. Raises UsageError."""
    found: dict[str, str] = {}
    for item in given or ():
        name, equals, value = item.partition("=")
        if not (name and equals):
            raise UsageError(f"{option} {item!r} is not NAME=VALUE")
        if name in found:
            raise UsageError(f"{option} {name} is given twice")
        found[name] = value
    return found


def pruning(context: typer.Context, method: str | None, option: Sequence[str] | None) -> dict[str, Any]:
    """What a run that prunes was given, the settings of measuring beside the others. Raises UsageError."""
    from datapruner.request.config import DEFAULT_METHOD

    chosen = DEFAULT_METHOD if method is None else method
    options = method_options(chosen, assignments(option, "--option"))
    return {**settings.given(context), "method": chosen, "options": options}


def method_options(method: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Option values of a method, from text to the types that they have.

    What the method does not know, or cannot be read, stays text for the method's own check to refuse; so does
    all of it when there is no such method.
    """
    from datapruner.request.config import find

    try:
        options = find(method).options
    except UsageError:
        return dict(given)
    kinds = get_type_hints(options)
    known = {each.name for each in fields(options)}
    return {name: _value(text, kinds[name]) if name in known else text for name, text in given.items()}


def _value(text: str, kind: Any) -> Any:
    if get_origin(kind) is Literal:
        return next((choice for choice in get_args(kind) if str(choice) == text), text)
    if kind is str:
        return text
    if kind is bool:
        return {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}.get(
            text.lower(), text
        )
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def check_targets(**files: Path | None) -> None:
    """Find out before the work starts that files, by their options, cannot be written. Raises UsageError."""
    from datapruner.rows import row_files

    named: dict[Path, str] = {}
    for option, path in files.items():
        if path is None:
            continue
        row_files.check_target(path)
        if path in named:
            raise UsageError(f"--{named[path]} and --{option} name the same file", remedy="name two")
        named[path] = option
