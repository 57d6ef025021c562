"""Rows that are in a run twice or not at all: exact copies, and what was no sample."""

from __future__ import annotations

from datapruner.reporting.tables import Tables
from datapruner.schemas.reports import TEXT_CHARACTERS, Copies, Duplicates, RejectedRow, Rejects

_KINDS, _EXAMPLES = 30, 5
_MOST, _ROWS = 10, 20


def rejects(tables: Tables) -> list[Rejects] | None:
    """Why rows were refused, the commonest reason first; None where none was, or the corpus is gone."""
    if not tables.has_corpus:
        return None
    cut = f"left(reason, {TEXT_CHARACTERS})"
    kinds = tables.rows(f"""
        SELECT code, any_value(field), {cut} AS why, any_value(remedy), count(*) AS rows,
               min(row, {_EXAMPLES})
        FROM corpus.rejects GROUP BY code, field, why ORDER BY rows DESC, min(row) LIMIT {_KINDS}
    """)  # noqa: S608
    shown = [row for *_, first in kinds for row in first]
    found = tables.rows(
        f"SELECT row, left(source, {TEXT_CHARACTERS}), line, left(excerpt, {TEXT_CHARACTERS}) "  # noqa: S608
        "FROM corpus.rejects WHERE row IN (SELECT unnest(?::BIGINT[]))",
        [shown],
    )
    rows = {
        row: RejectedRow(row=row, source=source, line=line, excerpt=excerpt)
        for row, source, line, excerpt in found
    }
    return [
        Rejects(
            code=code,
            field=field,
            reason=why,
            remedy=remedy,
            rows=count,
            examples=[rows[row] for row in first],
        )
        for code, field, why, remedy, count, first in kinds
    ] or None


def duplicates(tables: Tables) -> Duplicates | None:
    """Exact copies, and the samples with the most; None where there are none, or the corpus is gone."""
    if not tables.has_corpus:
        return None
    copies, samples = tables.row(
        "SELECT count(duplicate_of), count(DISTINCT duplicate_of) FROM corpus.samples"
    )
    if not copies:
        return None
    found = tables.rows(f"""
        SELECT any_value(sample_id), duplicate_of, count(*) AS copies, min(row, {_ROWS})
        FROM corpus.samples WHERE duplicate_of IS NOT NULL
        GROUP BY duplicate_of ORDER BY copies DESC, duplicate_of LIMIT {_MOST}
    """)  # noqa: S608
    most = [
        Copies(sample_id=sample_id, row=row, copies=count, rows=rows) for sample_id, row, count, rows in found
    ]
    return Duplicates(rows=copies, samples=samples, most=most)
