"""Samples to look at: the most typical, the most extreme, and those that nearly fared otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datapruner.reporting.distributions import of_column
from datapruner.reporting.tables import Tables
from datapruner.rows.sql_text import identifier
from datapruner.schemas.reports import TEXT_CHARACTERS, Distribution, Example, ExampleGroup, ExampleTurn

EXAMPLES = 3
"""Of each kind, of each status where statuses are told apart."""
_COLUMNS = 3
"""Most columns that examples are looked for by."""
_TURNS = 4
_ELSE = ("ppl", "n_response_tokens")
"""What samples are told apart by where the method ranks by nothing."""

_MEASURED = """
SELECT row, sample_id, status, reason, {value}::DOUBLE AS value
FROM scores SEMI JOIN firsts USING (row)
WHERE isfinite({value}::DOUBLE) AND status IN ('kept', 'pruned', 'scored')
"""
_ENDS = "SELECT * FROM ({measured}) ORDER BY value {order}, row LIMIT {count}"
_TYPICAL = """
SELECT * EXCLUDE place FROM (
    SELECT *, abs(2 * row_number() OVER (PARTITION BY status ORDER BY value, row)
                  - 1 - count(*) OVER (PARTITION BY status)) AS place
    FROM ({measured})
) QUALIFY row_number() OVER (PARTITION BY status ORDER BY place, value, row) <= {count}
ORDER BY status, place, value, row
"""
_BORDERLINE = """
SELECT * FROM ({measured})
QUALIFY row_number() OVER (PARTITION BY status ORDER BY abs(value - ?::DOUBLE), row) <= {count}
ORDER BY status, abs(value - ?::DOUBLE), row
"""


def examples(
    tables: Tables, own: Sequence[str], known: Mapping[str, Distribution], thresholds: Mapping[str, float]
) -> list[ExampleGroup] | None:
    """By each column that the run ranks by, and has numbers in; None where there is none.

    own: those columns. known: the columns that have numbers.
    """
    columns = [name for name in own if name in known][:_COLUMNS]
    columns = columns or [name for name in _ELSE if name in known][:1]
    found = [group for name in columns for group in _of_column(tables, name, thresholds)]
    texts = _texts(tables, [line[0] for _, lines in found for line in lines])
    return [
        ExampleGroup(**about, examples=[_example(line, texts) for line in lines]) for about, lines in found
    ] or None


def _of_column(
    tables: Tables, name: str, thresholds: Mapping[str, float]
) -> Iterator[tuple[dict[str, Any], list[tuple[Any, ...]]]]:
    """What a group is, and its samples."""
    measured = _MEASURED.format(value=identifier(name))

    def ask(query: str, *parameters: float, **given: Any) -> list[tuple[Any, ...]]:
        return tables.rows(query.format(measured=measured, count=EXAMPLES, **given), parameters)

    yield {"column": name, "kind": "typical"}, ask(_TYPICAL)
    yield {"column": name, "kind": "highest"}, ask(_ENDS, order="DESC")
    yield {"column": name, "kind": "lowest"}, ask(_ENDS, order="ASC")
    for cut, at in of_column(name, thresholds).items():
        about = {"column": name, "kind": "borderline", "threshold": cut, "at": at}
        yield about, ask(_BORDERLINE, at, at)


def _texts(tables: Tables, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
    """By row, its number of turns and the first of them; nothing without a corpus."""
    if not tables.has_corpus:
        return {}
    wanted = sorted(set(rows))
    found: dict[int, dict[str, Any]] = {
        row: {"n_turns": n_turns, "turns": []}
        for row, n_turns in tables.rows(
            "SELECT row, n_turns FROM corpus.samples WHERE row IN (SELECT unnest(?::BIGINT[]))", [wanted]
        )
    }
    turns = tables.rows(
        f"SELECT row, role, left(content, {TEXT_CHARACTERS}), length(content) FROM corpus.turns "  # noqa: S608
        f"WHERE turn < {_TURNS} AND row IN (SELECT unnest(?::BIGINT[])) ORDER BY row, turn",
        [wanted],
    )
    for row, role, text, characters in turns:
        found[row]["turns"].append(ExampleTurn(role=role, text=text, characters=characters))
    return found


def _example(line: Sequence[Any], texts: Mapping[int, Mapping[str, Any]]) -> Example:
    row, sample_id, status, reason, value = line
    return Example(
        row=row,
        sample_id=sample_id,
        status=status,
        reason=None if reason is None else reason[:TEXT_CHARACTERS],
        value=value,
        **texts.get(row, {}),
    )
