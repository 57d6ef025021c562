"""Rows of a run by a score, with how their texts begin."""

from __future__ import annotations

from pathlib import Path

from datapruner.errors import UsageError
from datapruner.reporting.looking import fates
from datapruner.reporting.tables import opened
from datapruner.rows.sql_text import identifier
from datapruner.runs.published import Run
from datapruner.schemas.ranking import RankedRow, RankedRows, Ranking

_LENGTHS = ("n_response_tokens", "n_kept_tokens")


def ranked(run: Run, corpus_file: Path, asked: Ranking) -> RankedRows:
    """Rows of a run; those with equal values in row order. Raises UsageError for a column that there is not,
    InputError when the run's file is gone."""
    with opened(run, corpus_file) as (tables, _):
        numbers = [*tables.real, *tables.whole]
        by = asked.by or next((name for name in run.report.scores if name in numbers), _LENGTHS[0])
        if by not in numbers:
            raise UsageError(
                f"no column of numbers is called {by!r}", remedy=f"known: {', '.join(numbers)}", field="by"
            )
        column = identifier(by)
        wanted = [f"isfinite(({column})::DOUBLE)"]
        given: dict[str, str] = {}
        if asked.status is not None:
            wanted.append("status = $status")
            given["status"] = asked.status
        if asked.reason is not None:
            wanted.append("contains(lower(reason), lower($reason))")
            given["reason"] = asked.reason
        where = " AND ".join(wanted)
        columns = [name for name in dict.fromkeys([by, *run.report.scores, *_LENGTHS]) if name in numbers]
        shown = ", ".join(map(identifier, columns))
        order = f"{column} {'DESC' if asked.highest else 'ASC'}, row"
        count = f"SELECT count(*) FROM scores WHERE {where}"  # noqa: S608
        [(total,)] = tables.connection.execute(count, given).fetchall()
        found = tables.connection.execute(
            f"SELECT row, sample_id, {shown} FROM scores WHERE {where} "  # noqa: S608
            f"ORDER BY {order} LIMIT {asked.limit} OFFSET {asked.offset}",
            given,
        ).fetchall()
        told = fates(tables, [row for row, *_ in found])
        rows = [
            RankedRow(row=row, sample_id=sample, scores=dict(zip(columns, values, strict=True)), **told[row])
            for row, sample, *values in found
        ]
        return RankedRows(by=by, meaning=tables.texts.get(by, ""), total=total, rows=rows)
