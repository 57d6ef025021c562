"""`sql` and `runs`: questions about what was published."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal

import typer
from rich.text import Text

from datapruner.commands import answers, display
from datapruner.commands import options as given
from datapruner.commands.display import Output
from datapruner.errors import UsageError
from datapruner.rows.formats import ANSWERS, FORMATS, AnswerFormat, listed, suffixes

if TYPE_CHECKING:
    from datapruner.query.results import QueryResult

Shape = Literal["table", AnswerFormat]
_SHOWN_ROWS = 100
_SHOWN_ID = 12  # characters


def sql(
    query: Annotated[str, typer.Argument(metavar="SELECT", help="One SELECT statement, in DuckDB's SQL.")],
    run: Annotated[str, typer.Option(metavar="ID", help="A run's id, or the start of it.")] = "latest",
    format_: Annotated[
        Shape | None, typer.Option("--format", show_default="by the suffix of --out, or table")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help=f"Write the rows: {listed(ANSWERS)}.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="The most rows to fetch.")] = 10_000,
    seconds: Annotated[float, typer.Option(min=0.001, help="The longest that the query may take.")] = 10.0,
    memory: Annotated[int, typer.Option(min=64, metavar="MIB", help="The most memory it may take.")] = 1024,
    url: given.Url = None,
    as_json: given.Json = False,
) -> None:
    """Ask a run's tables: sample_scores, masks, token_scores, rewrites, and corpus.samples, .turns, .rejects.

    At a service (--url), each dataset is a schema with these tables, as in alpaca.sample_scores; the limits
    are its own.
    """
    chosen = _shape(format_, out, as_json)
    output = Output(as_json=as_json)
    if url is not None:
        from datapruner.commands import remote

        remote.only_here(run=run != "latest", seconds=seconds != 10.0, memory=memory != 1024)
        _answer(remote.sql(url, query, rows), {"url": url}, chosen, out, output)
        return
    from datapruner.query.nursery import begun

    with begun() as child:  # which takes as long to get ready as this process to find the run
        from datapruner.home import home_folder
        from datapruner.query.sandbox import Query, QueryLimits, ask
        from datapruner.runs import folders

        home = home_folder()
        folder = folders.latest(home) if run == "latest" else folders.find(run, home)
        document = folders.read_document(folder / "run.json")
        corpus = folders.corpus(document["lineage"], home)
        databases: dict[str, list[Path]] = {"": [folders.database(folder), folders.tokens(folder)]}
        databases |= {"corpus": [corpus]} if corpus.is_file() else {}
        limits = QueryLimits(rows=rows, seconds=seconds, memory_bytes=memory << 20)
        result = ask(child, Query.of(query, databases, {}, None, limits)).result()
    _answer(result, {"run": document["run"]}, chosen, out, output)


def _answer(
    result: QueryResult, origin: dict[str, str], chosen: Shape, out: Path | None, output: Output
) -> None:
    """Say or write what was found; `origin` is where."""
    if out is not None:
        assert chosen != "table", out
        _write(out, chosen, result)
        written = {"rows": {"path": str(out), "rows": result.table.num_rows}}
        about = {
            "columns": result.table.column_names,
            "truncated": result.truncated,
            "seconds": result.seconds,
        }
        output.document({**origin, **about, "written": written})
        output.note(f"{display.plural(result.table.num_rows, 'row')} written to {out}")
    elif chosen == "table":
        _show(output, result)
    else:
        sys.stdout.flush()
        _put(sys.stdout.buffer, chosen, result)
        sys.stdout.buffer.flush()
    if result.truncated:
        output.note(f"only the first {display.plural(result.table.num_rows, 'row')}: raise --rows for more")


def _shape(wanted: Shape | None, out: Path | None, as_json: bool) -> Shape:
    """What to write, to the file or else to standard output. Raises UsageError.

    With a file, --json is about what the command says beside it.
    """
    if as_json and out is None and wanted not in (None, "json"):
        raise UsageError(f"--json and --format {wanted} are both given", remedy="give one of them")
    by_suffix = suffixes(ANSWERS)
    if wanted is not None:
        chosen = wanted
    elif out is None:
        chosen = "json" if as_json else "table"
    elif out.suffix in by_suffix:
        chosen = by_suffix[out.suffix]
    else:
        raise UsageError(f"--out {out}: the suffix does not say how to write it", remedy="give --format")
    if chosen != "table" and out is None and not FORMATS[chosen].is_text:
        raise UsageError(f"{chosen} does not go to a terminal", remedy="give --out FILE")
    if chosen == "table" and out is not None:
        raise UsageError("a table does not go to a file", remedy=f"give --format {' or '.join(ANSWERS)}")
    return chosen


def _put(file: BinaryIO, kind: AnswerFormat, result: QueryResult) -> None:
    from datapruner.query import results

    try:
        results.write_to(file, result, kind)
    except results.UnwritableError as error:
        raise UsageError(
            f"the result cannot be written as {kind}: {error}", remedy="cast the column to VARCHAR"
        ) from error


def _show(output: Output, result: QueryResult) -> None:
    columns = [column.to_pylist() for column in result.table.columns]
    rows = [list(row) for row in zip(*columns, strict=True)]
    shown = rows if output.width is None else rows[:_SHOWN_ROWS]
    output.show(*display.rows_table(result.table.column_names, shown, output.width))
    rest = len(rows) - len(shown)
    if rest > 0:
        output.show(Text(f"{rest:,} more rows; --format csv has them all", style="dim"))


def _write(path: Path, kind: AnswerFormat, result: QueryResult) -> None:
    """Write the rows to `path`. Raises UsageError when that is not possible."""
    from datapruner.system.files import publishing

    in_place = os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode)  # such as /dev/stdout
    try:
        with path.open("wb") if in_place else publishing(path) as file:
            _put(file, kind, result)
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror or error}", remedy="choose another place"
        ) from error


def list_runs(
    limit: given.Limit = 20,
    url: given.Url = None,
    as_json: given.Json = False,
) -> None:
    """List the runs so far, the newest first."""
    if url is not None:
        from datapruner.commands import remote

        remote.list_runs(url, limit, Output(as_json=as_json))
        return
    from datapruner.home import home_folder
    from datapruner.runs import evaluations, published

    output = Output(as_json=as_json)
    home = home_folder()
    found = [(run, _moment(run.folder)) for run in islice(published.history(home), limit)]
    evaluated = {run.run_id: evaluations.latest(run.folder) for run, _ in found}
    output.document(
        {
            "runs": [
                {
                    "run": run.run_id,
                    "published": moment.isoformat(timespec="seconds"),
                    "source": run.config.source,
                    "methods": [choice.model_dump(mode="json") for choice in run.config.methods],
                    "keep": None
                    if run.config.keep is None
                    else run.config.keep.model_dump(exclude_none=True),
                    "ingested": run.report.ingested,
                    "rewrite": None if run.config.rewrite is None else run.config.rewrite.model_dump(),
                    "kept": run.report.kept if run.config.has_subset else None,
                    "database": str(run.database),
                    "verdict": None if (last := evaluated[run.run_id]) is None else last.verdict,
                }
                for run, moment in found
            ]
        }
    )
    if not found:
        output.show(Text(f"no run in {home} yet: start one with `datapruner prune`"))
        return
    told = any(evaluated.values())  # a column that would be empty is left out
    columns = ("run", "when", "source", "method", "rows", "kept", *(["verdict"] if told else []))
    made = display.table(*columns, right=("rows", "kept"))
    for run, moment in found:
        source = "(rows)" if run.config.source is None else Path(run.config.source).name or run.config.source
        kept = f"{run.report.kept:,}" if run.config.has_subset else "–"
        when = answers.when(moment)
        run_id = run.run_id if output.width is None else run.run_id[:_SHOWN_ID]
        cells: Sequence[str] = (run_id, when, source, run.config.title, f"{run.report.ingested:,}", kept)
        if told:
            last = evaluated[run.run_id]
            cells = (*cells, "–" if last is None else last.verdict or "no verdict")
        made.add_row(*map(display.clean, cells))
    output.show(made)


def _moment(folder: Path) -> datetime:
    return datetime.fromtimestamp((folder / "run.json").stat().st_mtime).astimezone()
