"""A recipe's filter: one boolean SQL expression, true for the samples that stay.

Notable choices:
- text from outside is parsed and run by DuckDB in the sandbox's processes (`datapruner.query`), never in this
  one; here it is judged by the syntax tree that comes back, so that it cannot be anything but an expression;
- an expression says the same of a sample whatever its company, and again tomorrow: no subqueries, windows or
  aggregates, no functions such as random() and now();
- a sample for which it is neither true nor false (null) does not stay, as in WHERE;
- it is checked before anything is measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from datapruner.errors import UsageError
from datapruner.query.results import QueryResult
from datapruner.query.sandbox import QueryLimits, run_sql

Ask = Callable[..., QueryResult]
"""`query.sandbox.run_sql`, or `run` of a pool of processes that are ready."""

FIELD = "filter"
_TABLE, _AT = "samples", "datapruner_at"
_SECONDS = 60.0
_REMEDY = "write one boolean expression over the columns, such as n_response_tokens > 20 AND ppl < 100"
_ALLOWED = frozenset(
    {"BETWEEN", "CASE", "CAST", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "OPERATOR"}
    | {"TYPE"}
)
_REFUSED = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "a star",
    "PARAMETER": "a parameter",
    "LAMBDA": "a lambda",
}
_PARSED = """
SELECT json_serialize_sql(?) AS tree, (SELECT list(DISTINCT function_name) FROM duckdb_functions()
WHERE stability <> 'CONSISTENT' OR function_type <> 'scalar') AS moody
"""


def check(expression: str, columns: Mapping[str, pa.DataType], *, ask: Ask = run_sql) -> None:
    """Find out before there are samples whether an expression can be their filter, given their columns.

    Raises UsageError saying what is wrong.
    """
    names = _read_columns(expression, ask)
    schema = pa.schema([(name, columns[name]) for name in _known(names, columns)])
    _run(expression, schema.empty_table(), ask)


def passing(expression: str, samples: pl.DataFrame, ask: Ask = run_sql) -> NDArray[np.bool_]:
    """Which of N samples, one line of `samples` each, the filter is true for, (N,). Raises UsageError."""
    table = samples.to_arrow()
    return _run(expression, table.select(_known(_read_columns(expression, ask), table.column_names)), ask)


def _read_columns(expression: str, ask: Ask) -> list[str]:
    """Names of the columns in an expression, in order. Raises UsageError when it is none."""
    # A comment at its end must not swallow the bracket.
    answer = ask(_PARSED, {}, parameters=[f"SELECT (\n{expression}\n)"])
    [found] = answer.table.to_pylist()
    tree = json.loads(found["tree"])
    if tree["error"]:
        raise _wrong(tree["error_message"])
    [statement, *more] = tree["statements"] or [None]
    select = _only_expression(statement, more)
    names: dict[str, None] = {}
    moody = frozenset(found["moody"])
    for node in _nodes(select):
        kind = node["class"]
        if kind not in _ALLOWED:
            raise _wrong(f"{_REFUSED.get(kind, kind.lower())} cannot be part of it")
        if kind == "COLUMN_REF":
            names[".".join(node["column_names"])] = None
        if kind == "FUNCTION" and node["function_name"] == "row":  # brackets around none, or several
            raise _wrong("it is not one expression")
        if kind == "FUNCTION" and node["function_name"].lower() in moody:
            raise _wrong(
                f"{node['function_name']}() cannot be part of it: it depends on more than the sample"
            )
    return list(names)


def _only_expression(statement: Any, more: Sequence[Any]) -> Any:
    """The one expression that the statement selects, from nothing and under no condition."""
    node = {} if statement is None else statement["node"]
    selected = node.get("select_list", [])
    bare = (
        node.get("type") == "SELECT_NODE"
        and not more
        and len(selected) == 1
        and node["from_table"]["type"] == "EMPTY"
        and not node["modifiers"]
        and not node["cte_map"]["map"]
        and not node["group_expressions"]
        and not any(node[part] for part in ("where_clause", "having", "sample", "qualify"))
    )
    if not bare:
        raise _wrong("it is more than one expression")
    return selected[0]


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every expression in a syntax tree."""
    waiting = [tree]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            if "class" in each:
                yield each
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _run(expression: str, table: pa.Table, ask: Ask) -> NDArray[np.bool_]:
    count = table.num_rows
    numbered = table.append_column(_AT, pa.array(np.arange(count)))
    sql = f'SELECT "{_AT}", (\n{expression}\n) AS passes FROM {_TABLE} ORDER BY "{_AT}"'  # noqa: S608
    limits = QueryLimits(
        rows=count + 1,
        bytes=(1 << 20) + 32 * count,
        seconds=_SECONDS,
        memory_bytes=(1 << 30) + 4 * numbered.nbytes,
    )
    try:
        found = ask(sql, {}, tables={_TABLE: numbered}, limits=limits)
    except UsageError as error:
        raise _wrong(error.message) from error
    if list(found.types[1:]) != ["BOOLEAN"]:
        raise _wrong(f"it gives {' and '.join(found.types[1:])}, not true or false")
    if found.table[_AT].to_pylist() != list(range(count)):
        raise _wrong("it does not give one answer per sample")
    answers = found.table["passes"].combine_chunks().fill_null(False)
    return np.asarray(answers.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _known(names: Iterable[str], columns: Iterable[str]) -> list[str]:
    """The columns that are meant, whatever their case. Raises UsageError for one that there is not."""
    known = {column.lower(): column for column in columns}
    for name in names:
        if name.lower() not in known:
            raise UsageError(
                f"the filter: there is no column {name!r}",
                remedy=f"it can read {', '.join(known.values())}",
                field=FIELD,
            )
    return [known[name.lower()] for name in names]


def _wrong(what: str) -> UsageError:
    return UsageError(f"the filter: {what}", remedy=_REMEDY, field=FIELD)
