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
CREATE OR REPLACE TEMP TABLE measured AS
SELECT row, status, {value}::DOUBLE AS value FROM samples
WHERE isfinite({value}::DOUBLE) AND status IN ('kept', 'pruned', 'scored')
"""
_ABOUT = """
SELECT row, sample_id, status, reason FROM scores WHERE row IN (SELECT unnest(?::BIGINT[]))
"""
Found = list[tuple[int, float]]
"""Rows, and their numbers in a column."""


def examples(
    tables: Tables, own: Sequence[str], known: Mapping[str, Distribution], thresholds: Mapping[str, float]
) -> list[ExampleGroup] | None:
    """By each column that the run ranks by, and has numbers in; None where there is none.

    own: those columns. known: the columns that have numbers.
    """
    columns = [name for name in own if name in known][:_COLUMNS]
    columns = columns or [name for name in _ELSE if name in known][:1]
    found = [group for name in columns for group in _of_column(tables, name, thresholds)]
    samples = _samples(tables, [row for _, lines in found for row, _ in lines])
    return [
        ExampleGroup(**about, examples=[Example(**samples[row], value=value) for row, value in lines])
        for about, lines in found
    ] or None


def _of_column(
    tables: Tables, name: str, thresholds: Mapping[str, float]
) -> Iterator[tuple[dict[str, Any], Found]]:
    """What a group is, and its samples."""
    tables.connection.execute(_MEASURED.format(value=identifier(name)))
    counts = tables.rows("SELECT status, count(*) FROM measured GROUP BY status ORDER BY status")

    def first(order: str, *parameters: Any, where: str = "true") -> Found:
        query = f"SELECT row, value FROM measured WHERE {where} ORDER BY {order}, row LIMIT {EXAMPLES}"  # noqa: S608
        return tables.rows(query, parameters)

    typical = [each for status, count in counts for each in _middle(tables, status, count)]
    yield {"column": name, "kind": "typical"}, typical
    yield {"column": name, "kind": "highest"}, first("value DESC")
    yield {"column": name, "kind": "lowest"}, first("value")
    for cut, at in of_column(name, thresholds).items():
        about = {"column": name, "kind": "borderline", "threshold": cut, "at": at}
        near = (first("abs(value - ?)", status, at, where="status = ?") for status, _ in counts)
        yield about, [each for of_status in near for each in of_status]


def _middle(tables: Tables, status: str, count: int) -> Found:
    """Of the `count` samples of a status, those whose place in their order is nearest to the middle one."""
    near = range(max(0, count // 2 - EXAMPLES), min(count, count // 2 + EXAMPLES))
    places = sorted(near, key=lambda place: (abs(2 * place - count + 1), place))[:EXAMPLES]
    query = "SELECT row, value FROM measured WHERE status = ? ORDER BY value, row LIMIT ? OFFSET ?"
    found = tables.rows(query, [status, len(places), min(places)])
    return [found[place - min(places)] for place in places]


def _samples(tables: Tables, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
    """What is said of each of these rows."""
    wanted = sorted(set(rows))
    texts = _texts(tables, wanted)
    return {
        row: {
            "row": row,
            "sample_id": sample_id,
            "status": status,
            "reason": None if reason is None else reason[:TEXT_CHARACTERS],
            **texts.get(row, {}),
        }
        for row, sample_id, status, reason in tables.rows(_ABOUT, [wanted])
    }


def _texts(tables: Tables, wanted: list[int]) -> dict[int, dict[str, Any]]:
    """By row, its number of turns and the first of them; nothing without a corpus."""
    if not tables.has_corpus:
        return {}
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
