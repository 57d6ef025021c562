"""`report`: everything that came of a run, as numbers or as a page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from datapruner.commands import display
from datapruner.commands import options as given
from datapruner.commands.display import Output

if TYPE_CHECKING:
    from datapruner.schemas.reports import RunReport

_REASONS = 5


def report(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="A run id or its start, latest, a subset .parquet or a .run.json."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.html", help="Write a page that needs nothing else.")
    ] = None,
    url: given.Url = None,
    as_json: given.Json = False,
) -> None:
    """Show what came of a run: counts, reasons, distributions, the plane, examples, verdicts, lineage.

    With --out as one HTML file with plots, which loads nothing; with --json all its numbers. With --url, a
    run's id or latest is of the service; a file is always of this machine.
    """
    if url is not None and not Path(run).is_file():
        from datapruner.commands import remote

        found = remote.report(url, run, out)
    else:
        from datapruner import library

        found = library.report(run, out)
    output = Output(as_json=as_json)
    output.document(found.model_dump(mode="json"))
    output.show(*_sections(found))
    if out is not None:
        output.show("", Text(f"{display.clean(str(out))}: the page, for any browser"))


def _sections(found: RunReport) -> Iterator[RenderableType]:
    about = {"Run": found.run, "Method": found.title, "Replay": found.replay}
    yield display.pairs({name: value for name, value in about.items() if value is not None})
    for warnings in (found.warnings, found.notes):
        if warnings:
            yield display.warnings(warnings)
    yield _funnel(found)
    if found.tokens is not None and found.tokens.kept is not None:
        kept, before = found.tokens.kept, found.tokens.before
        yield Text(f"Trained tokens: {kept:,} of {before:,} ({display.share(kept, before)})")
    for evaluation in found.evaluations or ():
        yield Text(display.clean(f"Evaluation {evaluation.id[:12]}: {evaluation.said}"))


def _funnel(found: RunReport) -> RenderableType:
    """Each step with the rows that it took away, and its commonest reasons."""
    from datapruner.schemas.reports import STEPS

    made = display.table("rows", "left", "", right=("rows", "left"))
    made.add_row("", f"{found.funnel.ingested:,}", "ingested", style="bold")
    for step in found.funnel.steps:
        made.add_row(f"-{step.removed:,}", f"{step.left:,}", STEPS[step.step])
        for each in step.reasons[:_REASONS]:
            made.add_row(
                Text(f"{each.rows:,}", style="dim"), "", Text(f"  {display.clean(each.reason)}", style="dim")
            )
        if rest := step.removed - sum(each.rows for each in step.reasons[:_REASONS]):
            made.add_row(Text(f"{rest:,}", style="dim"), "", Text("  other reasons", style="dim"))
    word = "kept" if found.counts.selected else "scored"
    made.add_row("", f"{found.counts.kept:,}", word, style="bold")
    return made
