"""Looking into a run: its samples over any two columns of numbers, and the rows in a part that was outlined.

Every sample is there once, by its first row. Up to `MOST_POINTS` are told one by one; more are counted in
cells by DuckDB, so that what travels and what is held does not grow with the corpus.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datapruner.errors import ConflictError, UsageError
from datapruner.reporting.distributions import of_column, scale_of
from datapruner.reporting.tables import Tables, opened
from datapruner.rows.sql_text import identifier
from datapruner.runs.published import Run
from datapruner.schemas.planes import (
    MOST_POINTS,
    Cells,
    FoundRow,
    FoundRows,
    Look,
    Outline,
    PlaneAxis,
    PlaneColumns,
    PlaneView,
    Points,
)

ACROSS, UP = 160, 120
"""Cells along x and along y."""
_NAMES = 9
"""Most names that have a colour of their own; the others share one."""
_OTHERS = "others"
_EXCERPT = 240
_PREFERRED = (("entropy", "ppl"), ("n_prompt_tokens", "n_response_tokens"))
_FATES = "SELECT row, status, reason FROM scores WHERE row IN (SELECT unnest($rows))"
_BEGINS = """
SELECT row, left(arg_min(content, turn) FILTER (role NOT IN ('system', 'assistant')), $most),
       left(arg_min(content, turn) FILTER (role = 'assistant'), $most)
FROM corpus.turns WHERE row IN (SELECT unnest($rows)) GROUP BY row
"""
_CORPUS = {
    "n_turns": "turns of the conversation",
    "n_chars": "characters of the conversation",
    "shape": "how the row was laid out",
}


def columns(run: Run, corpus_file: Path) -> PlaneColumns:
    """What can be drawn of a run. Raises ConflictError when fewer than two columns of numbers have any."""
    with opened(run, corpus_file) as (tables, _):
        return _drawable(tables, run)


def _drawable(tables: Tables, run: Run) -> PlaneColumns:
    numbers, names = _columns(tables)
    measured = [name for name in numbers if name not in _CORPUS]
    any_finite = ", ".join(f"bool_or(isfinite(({_sql(name)})::DOUBLE))" for name in measured)
    there = dict(zip(measured, tables.row(f"SELECT {any_finite} FROM samples"), strict=True))  # noqa: S608
    some = [name for name in numbers if there.get(name, True)]
    if len(some) < 2:
        raise ConflictError(f"run {run.run_id} measured nothing that could be drawn", remedy="score it")
    first = next((pair for pair in _PREFERRED if set(pair) <= set(some)), (some[0], some[1]))
    return PlaneColumns(numbers={name: numbers[name] for name in some}, names=names, x=first[0], y=first[1])


def view(run: Run, corpus_file: Path, asked: Look) -> PlaneView:
    """The samples in a part of a plane. Raises UsageError for columns that there are not."""
    with opened(run, corpus_file) as (tables, _):
        plane = _Plane.of(tables, run, asked)
        told: dict[str, Any] = {"points": None, "cells": None, "names": None}
        cells, count = _cells(tables, plane, asked)
        if count <= MOST_POINTS:
            told["points"], told["names"] = _points(tables, plane, asked.colour)
        else:
            told["cells"] = cells
        return PlaneView(x=plane.x, y=plane.y, colour=asked.colour, samples=count, **told)


def rows(run: Run, corpus_file: Path, asked: Outline) -> FoundRows:
    """Rows in a part of a plane, in row order. Raises UsageError for columns that there are not."""
    with opened(run, corpus_file) as (tables, _):
        plane = _Plane.of(tables, run, asked)
        inside = f"{plane.inside} AND {_within(asked.corners, plane)}"
        samples, kept = tables.row(
            f"SELECT count(*), count(*) FILTER (is_kept) FROM {plane.source} WHERE {inside}"  # noqa: S608
        )
        after = -1 if asked.after is None else asked.after
        found = tables.rows(
            f"SELECT samples.row, {plane.value_x}, {plane.value_y} FROM {plane.source} "  # noqa: S608
            f"WHERE {inside} AND samples.row > {after} ORDER BY samples.row LIMIT {asked.limit + 1}"
        )
        more = len(found) > asked.limit
        found = found[: asked.limit]
        told = fates(tables, [row for row, *_ in found])
        shown = [FoundRow(row=row, x=x, y=y, **told[row]) for row, x, y in found]
        return FoundRows(samples=samples, kept=kept, rows=shown, next=shown[-1].row if more else None)


def fates(tables: Tables, numbers: list[int]) -> dict[int, dict[str, Any]]:
    """What became of these rows, and how the first prompt and the first response of each begin.

    Asked of few rows at the end: texts of all rows in question have no place in memory.
    """
    known = tables.connection.execute(_FATES, {"rows": numbers}).fetchall()
    begins = {}
    if tables.has_corpus:
        found = tables.connection.execute(_BEGINS, {"rows": numbers, "most": _EXCERPT}).fetchall()
        begins = {row: (prompt, response) for row, prompt, response in found}
    names = ("status", "reason", "prompt", "response")
    return {
        row: dict(zip(names, (status, reason, *begins.get(row, (None, None))), strict=True))
        for row, status, reason in known
    }


@dataclass(frozen=True, slots=True)
class _Plane:
    """SQL for a part of a plane. at_x, at_y: where a sample is drawn; value_x, value_y: its numbers."""

    x: PlaneAxis
    y: PlaneAxis
    source: str
    value_x: str
    value_y: str
    at_x: str
    at_y: str
    inside: str

    @classmethod
    def of(cls, tables: Tables, run: Run, asked: Look) -> _Plane:
        numbers, _ = _columns(tables)
        begin = _drawable(tables, run) if asked.x is None or asked.y is None else asked
        sides = asked.x or begin.x or "", asked.y or begin.y or ""
        x, y = (_axis(tables, run, numbers, name, field) for name, field in zip(sides, "xy", strict=True))
        axes = x, y
        values = [f"({_sql(axis.column)})::DOUBLE" for axis in axes]
        places = [
            f"log10(nullif(greatest({value}, 0), 0))" if axis.scale == "log" else value
            for axis, value in zip(axes, values, strict=True)
        ]
        conditions = [
            f"isfinite({value})" + (f" AND {value} > 0" if axis.scale == "log" else "")
            for axis, value in zip(axes, values, strict=True)
        ]
        for place, low, high in (
            (places[0], asked.x0, asked.x1),
            (places[1], asked.y0, asked.y1),
        ):
            conditions += [] if low is None else [f"{place} >= {low!r}::DOUBLE"]
            conditions += [] if high is None else [f"{place} <= {high!r}::DOUBLE"]
        inside = " AND ".join(conditions)
        source = _source(x.column, y.column, asked.colour)
        return cls(x, y, source, values[0], values[1], places[0], places[1], inside)


def _source(*names: str) -> str:
    """Where these columns are: the corpus is read only where one is of it."""
    joined = " LEFT JOIN corpus.samples AS corpus_samples USING (row)"
    return f"samples{joined if not _CORPUS.keys().isdisjoint(names) else ''}"


def _columns(tables: Tables) -> tuple[dict[str, str], dict[str, str]]:
    """Columns of numbers and of names, with what they mean."""
    numbers = {name: tables.texts.get(name, "") for name in (*tables.real, *tables.whole)}
    names = {"status": "what became of the row"}
    names |= {name: tables.texts.get(name, "") for name in tables.names}
    if tables.has_corpus:
        numbers |= {name: _CORPUS[name] for name in ("n_turns", "n_chars")}
        names["shape"] = _CORPUS["shape"]
    return numbers, names


def _sql(name: str) -> str:
    return f"{'corpus_samples' if name in _CORPUS else 'samples'}.{identifier(name)}"


def _axis(tables: Tables, run: Run, numbers: Mapping[str, str], name: str, field: str) -> PlaneAxis:
    if name not in numbers:
        raise UsageError(
            f"run {run.run_id} has no column of numbers {name!r}",
            remedy=f"there are {', '.join(numbers)}",
            field=field,
        )
    value = f"({_sql(name)})::DOUBLE"
    low, median, high, above_zero = tables.row(
        f"SELECT min({value}), median({value}), max({value}), min({value}) FILTER ({value} > 0) "  # noqa: S608
        f"FROM {_source(name)} WHERE isfinite({value})"
    )
    if low is None:
        raise UsageError(f"the column {name} has no number", remedy="choose another", field=field)
    scale = scale_of(low, median, high)
    return PlaneAxis(
        column=name,
        text=numbers[name],
        scale=scale,
        low=above_zero if scale == "log" else low,
        high=high,
        cuts={cut: at for cut, at in of_column(name, run.report.thresholds).items() if math.isfinite(at)},
    )


def _points(tables: Tables, plane: _Plane, colour: str) -> tuple[Points, list[str] | None]:
    numbers, names = _columns(tables)
    if colour not in numbers and colour not in names:
        raise UsageError(
            f"there is no column {colour!r} to colour by",
            remedy=f"there are {', '.join((*names, *numbers))}",
            field="colour",
        )
    order: list[str] | None = None
    shade = f"({_sql(colour)})::DOUBLE"
    if colour in names:
        common = tables.rows(
            f"SELECT {_sql(colour)}::VARCHAR AS name FROM {plane.source} "  # noqa: S608
            f"WHERE {plane.inside} AND name IS NOT NULL "
            f"GROUP BY name ORDER BY count(*) DESC, name LIMIT {_NAMES + 1}"
        )
        order = [name for (name,) in common]
        if len(order) > _NAMES:
            order = [*order[: _NAMES - 1], _OTHERS]
        shade = f"{_sql(colour)}::VARCHAR"
    found = tables.connection.execute(
        f"SELECT samples.row, {plane.value_x} AS x, {plane.value_y} AS y, {shade} AS colour "  # noqa: S608
        f"FROM {plane.source} WHERE {plane.inside} ORDER BY samples.row"
    ).fetchnumpy()
    if order is None:
        shades = [None if value is None or math.isnan(value) else value for value in _plain(found["colour"])]
    else:
        index = {name: number for number, name in enumerate(order)}
        shades = [
            None if name is None else index.get(name, len(order) - 1) for name in _plain(found["colour"])
        ]
    return (
        Points(
            row=found["row"].tolist(),
            x=_short(found["x"]),
            y=_short(found["y"]),
            colour=shades,
        ),
        order,
    )


def _plain(column: Any) -> list[Any]:
    """Python's values of a column, None where there is none."""
    return list(np.ma.filled(column.astype(object), None)) if np.ma.isMaskedArray(column) else column.tolist()


def _short(column: Any) -> list[float]:
    """To six digits: what is drawn needs no more, and it is most of what travels."""
    return [float(f"{value:.6g}") for value in np.ma.getdata(column).tolist()]


def _cells(tables: Tables, plane: _Plane, asked: Look) -> tuple[Cells, int]:
    """And how many samples they hold."""
    edges = [_span(plane.x, asked.x0, asked.x1), _span(plane.y, asked.y0, asked.y1)]
    at = [
        f"least({count - 1}, floor(({place} - {low!r}::DOUBLE) / {(high - low) / count!r}::DOUBLE))::INTEGER"
        for place, count, (low, high) in zip((plane.at_x, plane.at_y), (ACROSS, UP), edges, strict=True)
    ]
    found = tables.rows(
        f"SELECT {at[0]} AS i, {at[1]} AS j, count(*), count(*) FILTER (is_kept) "  # noqa: S608
        f"FROM {plane.source} WHERE {plane.inside} GROUP BY i, j"
    )
    samples, kept = np.zeros((UP, ACROSS), np.int64), np.zeros((UP, ACROSS), np.int64)
    for i, j, count, of_these in found:
        samples[j, i], kept[j, i] = count, of_these
    cells = Cells(samples=samples.tolist(), kept=kept.tolist() if tables.selected else None)
    return cells, int(samples.sum())


def _span(axis: PlaneAxis, low: float | None, high: float | None) -> tuple[float, float]:
    """From where to where the cells of an axis lie, in the units that are drawn."""
    ends = (axis.low, axis.high) if axis.scale == "linear" else (math.log10(axis.low), math.log10(axis.high))
    low, high = ends[0] if low is None else low, ends[1] if high is None else high
    return (low, high) if high > low else (low, low + 1)


def _within(corners: Sequence[tuple[float, float]], plane: _Plane) -> str:
    """SQL for being inside a closed line, by how often a ray to the right crosses it."""
    if not corners:
        return "true"
    xs, ys = zip(*corners, strict=True)
    x, y = plane.at_x, plane.at_y
    around = f"{x} BETWEEN {min(xs)!r} AND {max(xs)!r} AND {y} BETWEEN {min(ys)!r} AND {max(ys)!r}"
    crossings = [
        f"({y} >= {low!r}::DOUBLE AND {y} < {high!r}::DOUBLE AND {x} < "
        f"{x0!r}::DOUBLE + ({y} - {y0!r}::DOUBLE) * {(x1 - x0) / (y1 - y0)!r}::DOUBLE)::INTEGER"
        for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True)
        if y0 != y1
        for low, high in [sorted((y0, y1))]
    ]
    return f"{around} AND ({' + '.join(crossings) or '0'}) % 2 = 1"
