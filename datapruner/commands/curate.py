"""`gate`, `dedup` and `contamination`: what is dropped before anything is measured, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text

from datapruner.commands import display, settings
from datapruner.commands import options as given
from datapruner.commands.display import Output
from datapruner.errors import NothingSurvivedError, UsageError
from datapruner.rows.formats import FILES, listed

if TYPE_CHECKING:
    from datapruner.curation.verdicts import Verdicts

_EXAMPLES = 8

Kept = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help=f"Write the kept rows unchanged: {listed(FILES)}."),
]
Table = Annotated[
    Path | None,
    typer.Option("--verdicts", metavar="FILE", help=f"Write what became of each row: {listed(FILES)}."),
]


def gate(
    context: typer.Context,
    source: given.Source,
    map_: given.Mapped = None,
    out: Kept = None,
    verdicts: Table = None,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Drop rows whose text shows an obvious defect: refusals, loops, cut ends, wrong languages.

    What is not plain stays. Needs no model; a recipe's stage `gate` asks one, too, about gibberish and ends.
    """
    mapping = given.assignments(map_, "--map")
    given.check_targets(out=out, verdicts=verdicts)
    from datapruner.curation import gate as judging

    output = Output(as_json=as_json, quiet=quiet)
    with output.progress() as progress:
        result = judging.gate(source, mapping=mapping, progress=progress, **settings.given(context))
    finish(output, result, out, verdicts)


def dedup(
    context: typer.Context,
    source: given.Source,
    map_: given.Mapped = None,
    out: Kept = None,
    verdicts: Table = None,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Drop exact and near duplicates; the first of each kind stays.

    Words are compared, punctuation included, letter case not. Needs no model.
    """
    mapping = given.assignments(map_, "--map")
    given.check_targets(out=out, verdicts=verdicts)
    from datapruner.curation import duplicates

    output = Output(as_json=as_json, quiet=quiet)
    with output.progress() as progress:
        result = duplicates.deduplicate(source, mapping=mapping, progress=progress, **settings.given(context))
    finish(output, result, out, verdicts)


def contamination(
    source: given.Source,
    against: Annotated[
        list[str],
        typer.Option(
            "--against", "-a", metavar="[NAME=]SET", help="Evaluation set: file or Hub name; repeatable."
        ),
    ],
    convention: Annotated[
        Literal["13-gram", "8-gram"],
        typer.Option(help="13-gram: one shared n-gram (GPT-3); 8-gram: 70 % of a text's n-grams (PaLM)."),
    ] = "13-gram",
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN", help="Compare this column of the sets; repeatable; default: all text."
        ),
    ] = None,
    map_: given.Mapped = None,
    out: Kept = None,
    verdicts: Table = None,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Drop rows that hold text of evaluation sets, and show which. Needs no model."""
    mapping = given.assignments(map_, "--map")
    sets = _named(against)
    given.check_targets(out=out, verdicts=verdicts)
    from datapruner.curation import contamination as finding

    output = Output(as_json=as_json, quiet=quiet)
    with output.progress() as progress:
        result = finding.decontaminate(
            source, sets, convention=convention, columns=column or (), mapping=mapping, progress=progress
        )
    finish(output, result, out, verdicts)


def _named(against: Sequence[str]) -> dict[str, str]:
    """Evaluation sets by name, by default that of the file. Raises UsageError."""
    sets: dict[str, str] = {}
    for item in against:
        name, equals, where = item.partition("=")
        if not equals or Path(item).exists():
            name, where = Path(item).name.partition(".")[0], item
        if not (name and where):
            raise UsageError(f"--against {item!r} is not NAME=SET")
        if name in sets:
            raise UsageError(f"two evaluation sets are called {name}", remedy="write --against NAME=SET")
        sets[name] = where
    return sets


def finish(output: Output, result: Verdicts, out: Path | None, verdicts: Path | None) -> None:
    """Write the files and say what became of the rows. Raises NothingSurvivedError."""
    written: dict[str, tuple[Path, int]] = {}
    if verdicts is not None:
        written["verdicts"] = (verdicts, result.export_table(verdicts))
    nothing: NothingSurvivedError | None = None
    try:
        if out is not None:
            written["kept rows"] = (out, result.export(out))
    except NothingSurvivedError as error:
        nothing = error  # said after the report, which tells why
    dropped = result.table.filter(status="dropped")
    if nothing is None:
        output.document(_document(result, written))
    counts = result.counts
    made = display.table("rows", "", "share", right=("", "share"))
    for name, count in counts.items():
        indent = "" if name == "ingested" else "  "
        made.add_row(f"{indent}{name}", f"{count:,}", display.share(count, counts["ingested"]))
    output.show(made, "")
    output.show(display.pairs(result.notes), "")
    if len(dropped):
        examples = display.table("row", "why", title="Dropped rows", right=("row",))
        shown = dropped.unique("reason", keep="first", maintain_order=True).head(_EXAMPLES)
        for row, reason in shown.select("row", "reason").iter_rows():
            examples.add_row(f"{row:,}", display.clean(reason))
        if len(dropped) > len(shown):
            examples.add_row("", Text(f"{len(dropped) - len(shown):,} more", style="dim"))
        output.show(examples, "")
    for what, (path, rows) in written.items():
        output.show(Text(f"{display.clean(str(path))}: {what}, {display.plural(rows, 'row')}"))
    if nothing is not None:
        raise nothing


def _document(result: Verdicts, written: dict[str, tuple[Path, int]]) -> dict[str, Any]:
    return {
        "step": result.step,
        "settings": result.settings,
        "counts": result.counts,
        "notes": result.notes,
        "dropped": result.table.filter(status="dropped").drop("status").to_dicts(),
        "written": {what: {"path": str(path), "rows": rows} for what, (path, rows) in written.items()},
    }
