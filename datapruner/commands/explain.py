"""`explain`: one sample on the terminal, its tokens coloured by what became of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    from datapruner.explaining.explanation import Explanation, Piece, ShownToken

_STYLES = {"kept": "green", "pruned": "red strike", "scored": "", "untrained": "dim"}
_HARDEST = 5
_BEGINNING = 30  # characters shown of a step
_END = "⏎"  # stands for an end-of-turn token, which has no text of its own


def explain(
    target: Annotated[
        str,
        typer.Argument(metavar="SUBSET_OR_RUN", help="A subset .parquet, a .run.json, a run id, or latest."),
    ],
    sample: Annotated[
        str,
        typer.Argument(
            metavar="SAMPLE_ID", help="The start of a sample id, or row:12 for a row of the input."
        ),
    ],
    url: given.Url = None,
    as_json: given.Json = False,
) -> None:
    """Show a sample with its kept and pruned tokens, its scores, and why it was kept or pruned.

    Kept tokens are green, pruned ones red and struck through ([-so-] without colour), text that is not
    trained on is dim. Of rewritten reasoning it shows what was cut, and each step's fate. With --url, a run's
    id or latest is of the service; a file is always of this machine.
    """
    if url is not None and not Path(target).is_file():
        from datapruner.commands import remote

        explanation = remote.explain(url, target, sample)
    else:
        from datapruner.explaining.explain import explain as find
        from datapruner.home import home_folder

        explanation = find(target, sample, home_folder())
    output = Output(as_json=as_json)
    if as_json:
        output.document(asdict(explanation))
    else:
        colour = output.console.color_system is not None
        output.show(*_lines(explanation, colour=colour, whole=output.width is None))


def _lines(found: Explanation, *, colour: bool, whole: bool) -> Iterator[RenderableType]:
    status = Text(found.status, style={"kept": "bold green", "pruned": "bold red"}.get(found.status, "bold"))
    about: dict[str, object] = {
        "Sample": found.sample_id,
        "Row": found.row,
        "Run": found.run,
        "Status": status,
    }
    about |= {"Reason": found.reason, "Quadrant": found.quadrant}
    if found.copies:
        rows = ", ".join(f"{row:,}" for row in found.copies[:10])
        more = f" and {len(found.copies) - 10:,} more" if len(found.copies) > 10 else ""
        about["Copies"] = f"the same again in row {rows}{more}"
    about |= {name.capitalize(): value for name, value in found.source.items()}
    yield display.pairs({name: value for name, value in about.items() if value is not None})
    for note in found.notes:
        yield Text(f"note: {display.clean(note)}", style="yellow")
    if found.prompt is not None:
        yield Text("\nprompt, as the model reads it", style="bold")
        yield Text(display.clean(found.prompt), style="dim")
    for turn in found.turns:
        yield Text(f"\n{turn.role or 'as the model sees it'}", style="bold")
        yield text_of(turn.pieces, colour=colour)
        if turn.tool_calls is not None:
            yield Text(f"tool calls: {display.clean(turn.tool_calls)}", style="dim")
        if turn.untrained is not None:
            yield Text(f"not trained on: the row says {display.clean(turn.untrained)}", style="yellow")
    if found.scores:
        yield ""
        yield _scores(found)
    if found.steps:
        yield ""
        yield _steps(found, None if whole else _BEGINNING)
    if hardest := found.hardest(_HARDEST):
        yield ""
        yield _hardest(hardest)


def text_of(pieces: tuple[Piece, ...], *, colour: bool) -> Text:
    """Pieces one after another; without colour, pruned ones in [-...-]."""
    text = Text()
    for piece in pieces:
        shown = display.clean(piece.text) or _END
        if colour:
            text.append(shown, style=_STYLES[piece.state])
        else:
            text.append(f"[-{shown}-]" if piece.state == "pruned" else shown)
    return text


def _scores(found: Explanation) -> RenderableType:
    """Each score beside the thresholds that it was held against, which begin with its name."""
    made = display.table("score", "value", "thresholds", right=("value",))
    for name, value in found.scores.items():
        cuts = {cut: at for cut, at in found.thresholds.items() if cut == name or cut.startswith(f"{name}_")}
        shown = ", ".join(f"{cut} {display.number(at)}" for cut, at in cuts.items())
        made.add_row(name, display.number(value), Text(shown, style="dim"))
    return made


def _steps(found: Explanation, length: int | None) -> RenderableType:
    """The steps of a rewritten row's reasoning, each by its first `length` characters."""
    made = display.table(
        "step", "surprisal", "kept", "why", "begins", title="Steps", right=("step", "surprisal")
    )
    for number, step in enumerate(found.steps, start=1):
        words = " ".join(step.text.split())
        begins = words if length is None or len(words) <= length else f"{words[:length]}…"
        made.add_row(
            *map(display.number, (number, step.surprisal, step.kept, step.why)), Text(display.clean(begins))
        )
    return made


def _hardest(tokens: Iterable[ShownToken]) -> RenderableType:
    """The response tokens that surprised the proxy model most."""
    found = list(tokens)
    weighted = any(token.weight is not None for token in found)
    columns = ("token", "turn", "position", "nll", "entropy", "kept", *(("weight",) if weighted else ()))
    right = ("turn", "position", "nll", "entropy", "weight")
    made = display.table(*columns, title="Least expected tokens", right=right)
    for token in found:
        values = (token.turn, token.position, token.nll, token.entropy, token.keep)
        made.add_row(
            Text(repr(token.text) if token.text else f"{_END} end of turn" if token.is_end else "(no text)"),
            *map(display.number, (*values, token.weight) if weighted else values),
        )
    return made
