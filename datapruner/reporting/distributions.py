"""How numbers are distributed, before and after, in bins that both share; and how often names occur.

Notable choices:
- a scale is logarithmic where no number is below zero and the greatest is over 20 times the median, which is
  not zero;
- edges of bins of whole numbers lie halfway between two, so that a bin is a range of numbers whatever side
  of it is open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from datapruner.reporting.tables import Tables
from datapruner.rows.sql_text import identifier
from datapruner.schemas.reports import Category, CategoryCount, Distribution, Scale, Summary

BINS = 40
_HEAVY = 20
"""How often the greatest number is more than the median on a logarithmic scale."""
_VALUES = 30
"""Most values of a column of names that are told apart."""
_KEPT = "n_kept_tokens"
_LENGTHS = {"n_turns": "turns of the conversation", "n_chars": "characters of the conversation"}


@dataclass(frozen=True, slots=True)
class Numbers:
    """A column of numbers: its name, what it means, whether it is whole; SQL for a number, for where it is,
    and for which of them are those before and after. Without `after` there are none."""

    name: str
    text: str
    whole: bool
    source: str
    value: str
    before: str = "true"
    after: str | None = None


def distributions(tables: Tables, thresholds: Mapping[str, float]) -> list[Distribution]:
    """Of every column of numbers that has any: of scores, and how long the corpus' conversations are."""
    after = "is_kept" if tables.selected else None
    columns = [
        Numbers(
            name, tables.texts.get(name, ""), name in tables.whole, "scores", identifier(name), after=after
        )
        for name in (*tables.whole, *tables.real)
        if name != _KEPT
    ]
    if tables.selected:  # of what was pruned it is zero
        columns.append(Numbers(_KEPT, tables.texts.get(_KEPT, ""), True, "scores", _KEPT, before="is_kept"))
    if tables.has_corpus:
        joined = "scores JOIN corpus.samples AS read USING (row)"
        columns += [
            Numbers(name, text, True, joined, f"read.{name}", after=after) for name, text in _LENGTHS.items()
        ]
    made = (distribution(tables, column, thresholds) for column in columns)
    return [each for each in made if each is not None]


def distribution(
    tables: Tables, column: Numbers, thresholds: Mapping[str, float] = {}, *, zeros: bool = False
) -> Distribution | None:
    """None where no number is finite, or where all are zero, which says nothing unless `zeros` are wanted."""
    whole = summary(tables, column, f"({column.before}) OR ({column.after or 'false'})")
    before = summary(tables, column, column.before)
    if whole is None or before is None or (not zeros and whole.minimum == whole.maximum == 0):
        return None
    value, least = f"({column.value})::DOUBLE", None
    scale = scale_of(whole.minimum, whole.median, whole.maximum)
    if scale == "log":
        [least] = tables.row(f"SELECT min({value}) FROM {column.source} WHERE {value} > 0")  # noqa: S608
    edges = edges_of(whole, least, scale, whole=column.whole)
    placed = f"isfinite({value}) AND {value} >= {edges[0]!r}"
    tops = f"'{edges[1:]}'::DOUBLE[]"  # as text: a number in SQL is a decimal fraction
    there, *bins = tables.row(f"""
        SELECT count({column.value}) FILTER ({column.before}),
               map_values(histogram({value}, {tops}) FILTER ({placed} AND ({column.before}))),
               map_values(histogram({value}, {tops}) FILTER ({placed} AND ({column.after or "false"})))
        FROM {column.source}
    """)  # noqa: S608
    count = len(edges) - 1
    counts, after = ((each or [0] * count)[:count] for each in bins)
    return Distribution(
        column=column.name,
        text=column.text,
        scale=scale,
        edges=edges,
        before=counts,
        after=None if column.after is None else after,
        unplaced=there - sum(counts),
        summary_before=before,
        summary_after=None if column.after is None else summary(tables, column, column.after),
        thresholds=of_column(column.name, thresholds),
    )


def summary(tables: Tables, column: Numbers, condition: str) -> Summary | None:
    """Of the finite numbers that a condition holds for; None where there are none."""
    value = f"({column.value})::DOUBLE"
    rows, mean, low, quartiles, high = tables.row(f"""
        SELECT count(*), avg({value}), min({value}), quantile_cont({value}, [0.25, 0.5, 0.75]), max({value})
        FROM {column.source} WHERE isfinite({value}) AND ({condition})
    """)  # noqa: S608
    if not rows:
        return None
    lower, median, upper = quartiles
    return Summary(
        rows=rows,
        mean=mean,
        minimum=low,
        lower_quartile=lower,
        median=median,
        upper_quartile=upper,
        maximum=high,
    )


def scale_of(low: float, median: float, high: float) -> Scale:
    return "log" if low >= 0 and 0 < _HEAVY * median < high else "linear"


def edges_of(
    numbers: Summary, least: float | None, scale: Scale, *, whole: bool = False, bins: int = BINS
) -> list[float]:
    """The ascending edges of at most `bins` bins that hold all these numbers. least: the smallest above zero,
    where a logarithmic scale begins."""
    low, high = numbers.minimum, numbers.maximum
    if scale == "log":
        assert least is not None, numbers
        low = least
    if low == high:
        room = max(0.5, abs(low) * 1e-9)
        return [low - room, high + room]
    edges = np.geomspace(low, high, bins + 1) if scale == "log" else np.linspace(low, high, bins + 1)
    if whole:
        edges = np.unique(np.concatenate([[low - 0.5], np.floor(edges[1:-1]) + 0.5, [high + 0.5]]))
    else:
        edges[0], edges[-1] = low, high  # exactly: neither function promises it
        edges = np.unique(edges)
    found: list[float] = edges.tolist()
    return found


def of_column(name: str, thresholds: Mapping[str, float]) -> dict[str, float]:
    """The thresholds that are on a column's scale: those that begin with its name, and are numbers."""
    return {
        cut: at
        for cut, at in thresholds.items()
        if np.isfinite(at) and (cut == name or cut.startswith(f"{name}_"))
    }


def categories(tables: Tables) -> list[Category]:
    """How often the values of columns of names occur, of those that have any."""
    made = (category(tables, name, tables.texts.get(name, "")) for name in tables.names)
    return [each for each in made if each is not None]


def category(
    tables: Tables, name: str, text: str, *, source: str = "scores", value: str | None = None
) -> Category | None:
    """Of one column, which `text` says the meaning of. source, value: SQL for where it is and for a name, of
    which 100 characters are told apart. None where no row has one."""
    value = f"left(({identifier(name) if value is None else value})::VARCHAR, 100)"
    distinct, rows = tables.row(
        f"SELECT count(DISTINCT {value}), count({value}) FROM {source}"  # noqa: S608
    )
    if not distinct:
        return None
    found = tables.rows(f"""
        SELECT {value} AS value, count(*) AS rows, count(*) FILTER (is_kept)
        FROM {source} WHERE {value} IS NOT NULL GROUP BY ALL ORDER BY rows DESC, value LIMIT {_VALUES}
    """)  # noqa: S608
    shown = [
        CategoryCount(value=value, rows=count, kept=kept if tables.selected else None)
        for value, count, kept in found
    ]
    return Category(
        column=name,
        text=text,
        values=shown,
        other_values=distinct - len(shown),
        other_rows=rows - sum(each.rows for each in shown),
    )
