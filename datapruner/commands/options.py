"""Arguments and options that several commands share, and how their values are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from datapruner.errors import UsageError

if TYPE_CHECKING:
    from datapruner.client import Client

Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="File, folder, Hub name, or - for standard input.")
]
Keep = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE|COUNT",
        help="Share of the measured samples, rounded up (0.25, 25%), or a count of them (500). "
        "All: 100%; one: count=1.",
    ),
]
Option = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="NAME=VALUE", help="An option of the method; repeatable."),
]
Mapped = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="ROLE=COLUMN", help="Column for a role, as in prompt=q; repeatable."),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of whatever is drawn.")]
Model = Annotated[str, typer.Option(help="Proxy model: alias, folder, .gguf file or Hub name.")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(help="Precision of the proxy model; auto: float32 on CPU, bfloat16 on GPU."),
]
MaxLength = Annotated[
    int | None, typer.Option(min=2, show_default="the model's", help="Longest sample, in tokens.")
]
Overflow = Annotated[Literal["truncate", "error"], typer.Option(help="What becomes of a longer one.")]
TrainOn = Annotated[Literal["all", "last"], typer.Option(help="Which assistant turns are trained on.")]
Reference = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="A second model with the same tokens, for methods that compare."),
]
Embedder = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        show_default="all-minilm-l6-v2",
        help="Sentence-embedding model, for methods set to read its vectors.",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="DATA", help="Rows to select towards, as SOURCE; with --url, a file or a dataset there."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, or GPUs such as cuda:0,cuda:1.")]
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
Limit = Annotated[int, typer.Option(min=1, help="How many, the newest first.")]
SubsetFile = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FILE", help="Write the subset with scores and masks: .parquet, .csv or .jsonl."
    ),
]
PlainFile = Annotated[
    Path | None,
    typer.Option("--plain", metavar="FILE", help="Write the kept rows unchanged: .parquet, .csv or .jsonl."),
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


def check_keep(method: str, keep: str | None, keep_tokens: int | None, preset: str | None) -> None:
    """Say what is wrong with how much to keep before anything is read. Raises UsageError."""
    from datapruner.request.config import find
    from datapruner.request.keep import parse_keep

    presets = find(method).presets
    unknown = (
        preset is not None and preset not in presets
    )  # which is refused later, with those that are known
    if keep is not None or keep_tokens is not None:
        parse_keep(keep, tokens=keep_tokens)
    elif not unknown and "keep" not in presets.get(preset or "", {}):
        known = f", or --preset ({', '.join(presets)})" if presets else ""
        raise UsageError(
            "how much to keep is missing", remedy=f"give --keep 0.25, 25% or 500, --keep-tokens N{known}"
        )


def method_options(method: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Option values of a method, from text to the types that they have. Raises UsageError.

    What the method does not know, or cannot be read, stays text for the method's own check to refuse.
    """
    from datapruner.request.config import find

    options = find(method).options
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
