"""The `rewrites` table of a run: one line for each row that came to be rewritten.

Spans are characters of the reasoning as found, which begins at
`reasoning_start` of turn `reasoning_turn`; both are null where no reasoning was found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa

from datapruner.rewriting.outcomes import Rewritten
from datapruner.rows.sql_text import literal
from datapruner.system.space import needed

_SPAN = pa.struct([("start", pa.int32()), ("end", pa.int32())])
_STEP = pa.struct(
    [
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("surprisal", pa.float64()),
        ("kept", pa.bool_()),
        ("why", pa.string()),
    ]
)
COLUMNS: Mapping[str, tuple[pa.DataType, str]] = {
    "row": (pa.int64(), "0-based index in the input"),
    "sample_id": (pa.string(), "hash of the conversation as read"),
    "status": (pa.string(), "rewritten, original, dropped or error"),
    "reason": (pa.string(), "why"),
    "level": (pa.string(), "difficulty as the teacher judged it: easy, medium or hard"),
    "budget": (pa.int64(), "tokens that the reasoning may have; null for methods without a budget"),
    "tokens_before": (pa.int64(), "tokens of the reasoning"),
    "tokens_after": (pa.int64(), "tokens of what is left of it"),
    "dangling_references": (pa.int32(), "references to what was removed; null unless rewritten"),
    "dangling_colons": (pa.int32(), "colons that announce what was removed"),
    "broken_blocks": (pa.int32(), "marks of code fences and mathematics that lost their counterpart"),
    "reasoning_turn": (pa.int32(), "turn that holds the reasoning, from 0"),
    "reasoning_start": (pa.int32(), "character of that turn at which the reasoning begins"),
    "steps": (
        pa.list_(_STEP),
        "its steps: characters, score in nats (asap: surprisal of the first token), kept, why",
    ),
    "removed": (pa.list_(_SPAN), "characters of the reasoning that were cut out"),
    "text": (pa.string(), "the response to train on; null unless rewritten or original"),
}
SCHEMA = pa.schema([(name, kind) for name, (kind, _) in COLUMNS.items()])


def line(
    row: int, sample_id: str, outcome: Rewritten, place: tuple[int, int] | None = None
) -> dict[str, Any]:
    """One row's line of the table. place: turn of the reasoning, and where it begins there."""
    turn, start = place or (None, None)
    flaws = outcome.flaws
    return {
        "row": row,
        "sample_id": sample_id,
        "status": outcome.status,
        "reason": outcome.reason,
        "level": outcome.level,
        "budget": outcome.budget,
        "tokens_before": outcome.tokens_before,
        "tokens_after": outcome.tokens_after,
        "dangling_references": None if flaws is None else flaws.references,
        "dangling_colons": None if flaws is None else flaws.colons,
        "broken_blocks": None if flaws is None else flaws.blocks,
        "reasoning_turn": turn,
        "reasoning_start": start,
        "steps": [
            {"start": s.start, "end": s.end, "surprisal": s.surprisal, "kept": s.kept, "why": s.why}
            for s in outcome.steps
        ],
        "removed": [{"start": start, "end": end} for start, end in outcome.removed],
        "text": outcome.text,
    }


def write(path: Path, lines: Iterator[list[dict[str, Any]]], copies: pl.DataFrame | None = None) -> None:
    """Build the DuckDB file of a run at `path`, which must not have this table.

    lines: batches, one line for each sample. copies: row and duplicate_of of rows that get the line of the
    sample that they copy, if that has one. Raises NoSpaceError.
    """
    with needed("the rewritten rows"), duckdb.connect(str(path)) as connection:
        connection.execute("SET threads = 2")
        connection.register("incoming", SCHEMA.empty_table())
        connection.execute("CREATE TABLE rewrites AS FROM incoming")
        for name, (_, description) in COLUMNS.items():
            connection.execute(f"COMMENT ON COLUMN rewrites.{name} IS {literal(description)}")
        for batch in lines:
            connection.register("incoming", pa.Table.from_pylist(batch, schema=SCHEMA))
            connection.execute("INSERT INTO rewrites FROM incoming")
        if copies is not None:
            connection.register("incoming", copies.select("row", "duplicate_of").to_arrow())
            connection.execute(
                "INSERT INTO rewrites SELECT c.row, r.* EXCLUDE row FROM incoming c "
                "JOIN rewrites r ON r.row = c.duplicate_of"
            )


def read(path: Path, query: str, parameters: Sequence[Any] = ()) -> pa.Table:
    """The answer to an SQL query of a run's file."""
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.sql(query, params=list(parameters)).to_arrow_table()
