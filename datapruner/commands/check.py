"""`check`: whether a file of rows to train on is in the tokens of the model that will be trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from datapruner.commands import display
from datapruner.commands import options as given
from datapruner.commands.display import Output

if TYPE_CHECKING:
    from datapruner.outputs.checking import Findings

_ROWS = {
    "unreadable": ("no ids and labels", True),
    "outside": ("ids that the vocabulary has not", True),
    "altered": ("labels other than the ids in their places", True),
    "unweighable": ("weights of tokens that cannot be trained with", True),
    "untrained": ("no token to train on", False),
    "too_long": ("over {limit} tokens", False),
}
"""Of kinds of rows: what is said of them, and whether one fails the check."""


def check(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What export wrote: a file, or a folder of them.")
    ],
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="The model that will be trained on it.")
    ],
    max_length: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Count longer rows. Default: the model's limit.")
    ] = None,
    as_json: given.Json = False,
) -> None:
    """Check that rows to train on are in the tokens of the model that will be trained.

    It compares tokenizer, special tokens and chat template with what the file says of its own, and looks at
    every row's ids and labels. Exit code 1 when the file is not for this model. An example of a row is shown,
    its tokens that are trained on in green ([+so+] without colour).
    """
    from datapruner.home import home_folder
    from datapruner.outputs import checking

    found = checking.check(file, model, home_folder(), max_length=max_length)
    output = Output(as_json=as_json)
    output.document({"ok": found.ok, **asdict(found)})
    output.show(*_sections(found, colour=output.console.color_system is not None))
    if not found.ok:
        raise typer.Exit(1)


def _sections(found: Findings, *, colour: bool) -> Iterator[RenderableType]:
    yield display.pairs(
        {
            "File": found.file,
            "Model": found.model,
            "Rows": found.rows,
            "Tokens": f"{found.tokens:,}, {found.trained_tokens:,} of them trained on",
            "Longest": display.plural(found.longest, "token"),
        }
        | ({"Weights": f"of tokens, in {display.plural(found.weighted, 'row')}"} if found.weighted else {})
        | {
            "End token": f"the last to train on in {display.plural(found.ended, 'row')}",
            "As text and back": f"the same ids in {found.same:,} of {display.plural(found.tried, 'row')}"
            if found.tried
            else "no row tried",
        }
    )
    if found.warnings:
        yield display.warnings(found.warnings)
    if not found.described:
        yield Text("The file does not say whose tokens it holds, so only its ids were looked at.", "yellow")
    if found.differences:
        made = display.table("", "the file's", "the model's", title="Not the same")
        for each in found.differences:
            made.add_row(*(Text(display.clean(said)) for said in (each.what, each.file, each.model)))
        yield ""
        yield made
    wrong = [name for name in _ROWS if getattr(found, name)]
    if wrong:
        made = display.table("", "rows", "the first", "with", right=("rows", "the first"))
        for name in wrong:
            said, fails = _ROWS[name]
            state = Text("fail", "bold red") if fails else Text("warn", "yellow")
            said = said.format(limit=display.number(found.max_length))
            made.add_row(state, *map(display.number, (getattr(found, name), found.first[name], said)))
        yield ""
        yield made
    if found.reason is not None:
        yield Text(display.clean(found.reason), "yellow")
    if found.example:
        yield Text("\nExample", "bold")
        yield _example(found, colour=colour)
    verdict = Text("fine: its ids are this model's", "green")
    if not found.ok:
        verdict = Text("not for this model: it would train on something else", "bold red")
    elif not (found.described or found.tried):
        verdict = Text("no fault found, and nothing that shows that its ids are this model's", "yellow")
    yield ""
    yield verdict


def _example(found: Findings, *, colour: bool) -> Text:
    text = Text()
    for piece in found.example:
        shown = display.clean(piece.text)
        if colour:
            text.append(shown, style="green" if piece.trained else "dim")
        else:
            text.append(f"[+{shown}+]" if piece.trained else shown)
    return text
