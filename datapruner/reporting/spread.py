"""How the rows of a run are spread over any of their columns, before and after, so that a bias is seen.

Columns are those of the run's scores, those of the corpus, and those of the rows as they came; a key inside
of another by both names with a dot between them. `originals.` before a name means the last, where a score has
the same.

Notable choices:
- numbers are drawn by size, names by how often they occur, lists by how many elements they have, and texts of
  which most are different by how long they are;
- what was asked for is read once, into a table of its own, in the memory that a report has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from datapruner.corpora.corpus import Corpus
from datapruner.errors import UsageError
from datapruner.reporting.distributions import Numbers, category, distribution
from datapruner.reporting.tables import Tables, opened
from datapruner.rows.originals import column_names, unique_names
from datapruner.rows.sql_text import identifier, literal
from datapruner.runs.published import Run
from datapruner.schemas.spreads import Spread, SpreadColumns

_OWN = {
    "n_turns": "turns of the conversation",
    "n_chars": "characters of the conversation",
    "shape": "how the row was laid out",
    "source": "what the row was read from",
}
"""Columns of the corpus."""
_ORIGINALS = "originals."
_MOST_NAMES, _MOST_DEPTH, _FIRST_ROWS = 300, 8, 200
_SIGNED = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_WHOLE = (*_SIGNED, *(f"U{name}" for name in _SIGNED))
_REAL = ("FLOAT", "DOUBLE", "DECIMAL")
_JSON_NUMBERS = frozenset({"BIGINT", "UBIGINT", "HUGEINT", "DOUBLE"})
_TOLD_APART = 1000
"""Different texts up to which they are names, however few rows there are of each."""
_LIST = "elements of the list"
_COLUMN = "CREATE TEMP TABLE chosen AS SELECT is_kept, {value} AS value FROM {source}"
_TEXTS = """
CREATE TEMP TABLE chosen AS
SELECT is_kept, left(text, 100) AS value, length(text) AS size
FROM (SELECT is_kept, ({value})::VARCHAR AS text FROM {source})
"""
_JSON = """
CREATE TEMP TABLE chosen AS
SELECT is_kept, kind, left(text, 100) AS value, TRY_CAST(text AS DOUBLE) AS number,
       CASE kind WHEN 'ARRAY' THEN json_array_length(found) ELSE length(text) END AS size
FROM (
    SELECT is_kept, found, json_type(found) AS kind, found ->> '$' AS text
    FROM (SELECT is_kept, {value} AS found FROM {source})
)
"""


@dataclass(frozen=True, slots=True)
class _Place:
    """What a column means; SQL for where it is, and for its value."""

    text: str
    source: str
    value: str


def columns(run: Run, corpus_file: Path) -> SpreadColumns:
    """Names of columns to choose from: of the rows as they came, those that the first rows have."""
    with opened(run, corpus_file) as (tables, _):
        named = {name: tables.texts.get(name, "") for name in (*tables.whole, *tables.real, *tables.names)}
        if tables.has_corpus:
            named |= _OWN
            for name in _of_rows(tables, corpus_file):
                named[f"{_ORIGINALS}{name}" if name in named else name] = "of the rows as they came"
        return SpreadColumns(columns=dict(list(named.items())[:_MOST_NAMES]))


def spread(run: Run, corpus_file: Path, column: str) -> Spread:
    """How rows are spread over a column. Raises UsageError for one that no row has, or that has no values
    which could be told apart."""
    with opened(run, corpus_file) as (tables, _):
        place = _placed(tables, corpus_file, column)
        text, whole, value = _chosen(tables, place, column)
        missing, missing_kept = tables.row(
            f"SELECT count(*), count(*) FILTER (is_kept) FROM chosen WHERE {value} IS NULL"  # noqa: S608
        )
        found: dict[str, Any] = {"numbers": None, "names": None}
        after = "is_kept" if tables.selected else None
        if whole is None:
            found["names"] = category(tables, column, text, source="chosen", value=value)
        else:
            numbers = Numbers(column, text, whole, "chosen", value, after=after)
            found["numbers"] = distribution(tables, numbers, run.report.thresholds, zeros=True)
        if not any(found.values()):
            raise UsageError(f"no row has a value in {column!r}", remedy="choose another", field="column")
        return Spread(
            column=column,
            text=text,
            missing=missing,
            missing_kept=missing_kept if tables.selected else None,
            **found,
        )


def _placed(tables: Tables, corpus_file: Path, column: str) -> _Place:
    if column in (*tables.whole, *tables.real, *tables.names, "status"):
        return _Place(tables.texts.get(column, ""), "scores", f"scores.{identifier(column)}")
    if not tables.has_corpus:
        raise UsageError(
            f"the scores have no column {column!r}, and the rows are gone",
            remedy="ingest them",
            field="column",
        )
    if column in _OWN:
        return _Place(
            _OWN[column], "scores JOIN corpus.samples AS own USING (row)", f"own.{identifier(column)}"
        )
    source = "scores JOIN corpus.originals AS own USING (row)"
    path = column.removeprefix(_ORIGINALS).split(".")
    with Corpus(corpus_file) as corpus:
        schema = corpus.provenance.schema
    if schema is None:
        return _Place("", source, _in_json(path))
    value = _in_columns(schema, path)
    if value is None:
        raise UsageError(
            f"there is no column {column!r}",
            remedy=f"rows have {', '.join(schema.names)}; a key inside of one: column.key",
            field="column",
        )
    return _Place("", source, value)


def _in_json(path: Sequence[str]) -> str:
    """The value at a path of keys, or at the key that is called as all of it is."""
    pointers = {"/".join(["", *map(_escaped, keys)]) for keys in (path, [".".join(path)])}
    values = [f"json_extract(own.json::JSON, {literal(pointer)})" for pointer in sorted(pointers)]
    return f"nullif(coalesce({', '.join(values)}), 'null'::JSON)"


def _escaped(key: str) -> str:
    """A key in a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def _in_columns(schema: pa.Schema, path: Sequence[str]) -> str | None:
    """The same of typed columns, None where there is none; their names may have dots."""
    names = dict(zip(schema.names, column_names(schema), strict=True))
    for size in range(len(path), 0, -1):
        name = ".".join(path[:size])
        if name in names:
            return _in_struct(schema.field(name).type, path[size:], f"own.{identifier(names[name])}")
    return None


def _in_struct(kind: pa.DataType, path: Sequence[str], value: str) -> str | None:
    if not path:
        return value
    if not pa.types.is_struct(kind):
        return None
    fields = [kind.field(at).name for at in range(kind.num_fields)]
    stored = dict(zip(fields, unique_names(fields), strict=True))
    for size in range(len(path), 0, -1):
        name = ".".join(path[:size])
        if name in stored:
            inner = kind.field(fields.index(name)).type
            return _in_struct(inner, path[size:], f"{value}.{identifier(stored[name])}")
    return None


def _chosen(tables: Tables, place: _Place, column: str) -> tuple[str, bool | None, str]:
    """Make the table `chosen` with what was asked for of each row.

    What that means, whether it is a whole number or None where it is a name, and the table's column with it.
    Raises UsageError for objects.
    """
    [(_, kind, *_)] = tables.rows(f"DESCRIBE SELECT {place.value} AS value FROM {place.source}")  # noqa: S608
    if kind.startswith("STRUCT") and not kind.endswith("]"):
        raise _holds_objects(column)
    if kind.endswith("]"):
        tables.connection.execute(_COLUMN.format(value=f"len({place.value})", source=place.source))
        return _LIST, True, "value"
    if kind.startswith((*_WHOLE, *_REAL)):
        tables.connection.execute(_COLUMN.format(value=f"({place.value})::DOUBLE", source=place.source))
        return place.text, kind.startswith(_WHOLE), "value"
    made = _JSON if kind == "JSON" else _TEXTS
    tables.connection.execute(made.format(value=place.value, source=place.source))
    if kind == "JSON":
        kinds = {each for (each,) in tables.rows("SELECT DISTINCT kind FROM chosen WHERE kind IS NOT NULL")}
        if kinds == {"OBJECT"}:
            raise _holds_objects(column)
        if kinds == {"ARRAY"}:
            return _LIST, True, "size"
        if kinds and kinds <= _JSON_NUMBERS:
            return place.text, "DOUBLE" not in kinds, "number"
    rows, distinct = tables.row("SELECT count(value), approx_count_distinct(value) FROM chosen")
    if distinct > max(_TOLD_APART, rows / 2):
        return f"{place.text + ': ' if place.text else ''}characters of the text", True, "size"
    return place.text, None, "value"


def _holds_objects(column: str) -> UsageError:
    remedy = f"choose a key of them: {column}.key"
    return UsageError(f"{column!r} holds objects", remedy=remedy, field="column")


def _of_rows(tables: Tables, corpus_file: Path) -> Iterator[str]:
    """Names of the columns of rows as they came, those inside of others too."""
    with Corpus(corpus_file) as corpus:
        schema = corpus.provenance.schema
    if schema is not None:
        yield from _leaves({field.name: _shape(field.type) for field in schema})
        return
    [found] = tables.row(
        "SELECT json_group_structure(json::JSON) FROM "  # noqa: S608 (a number)
        f"(SELECT json FROM corpus.originals ORDER BY row LIMIT {_FIRST_ROWS})"
    )
    shape = json.loads(found or "{}")
    yield from _leaves(shape if isinstance(shape, dict) else {})


def _shape(kind: pa.DataType) -> Any:
    if not pa.types.is_struct(kind):
        return str(kind)
    return {kind.field(at).name: _shape(kind.field(at).type) for at in range(kind.num_fields)}


def _leaves(shape: Mapping[str, Any], under: str = "", depth: int = 0) -> Iterator[str]:
    for name, inside in shape.items():
        path = f"{under}{name}"
        if isinstance(inside, dict):
            if depth < _MOST_DEPTH:
                yield from _leaves(inside, f"{path}.", depth + 1)
        else:
            yield path
