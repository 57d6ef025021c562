"""Rows in the forms that they are written from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa

from datapruner.rows import json_form
from datapruner.rows.json_text import members

_BATCH = 2048


@dataclass(frozen=True, slots=True)
class Rows:
    """The same rows in several forms, each made when it is asked for.

    tables: columns, a few thousand rows at a time, all with one schema. lines: an object of JSON for each
    row, with as many of the columns as the row has. names: the columns in order. about: what is said of the
    rows beside them, where a format has a place for it. known: `columns`, where they need not be looked for
    in the lines.
    """

    tables: Callable[[], Iterator[pa.Table]]
    lines: Callable[[], Iterator[bytes]]
    names: Callable[[], Sequence[str]]
    about: Mapping[str, Any] = field(default_factory=dict)
    known: Callable[[], Iterator[Sequence[pa.Array]]] | None = None

    @classmethod
    def of(cls, table: pa.Table, name: str, about: Mapping[str, Any] | None = None) -> Rows:
        """The rows of a table; `name` is what errors call it."""

        def batches() -> Iterator[pa.RecordBatch]:
            return iter(table.to_batches(max_chunksize=_BATCH))

        return cls(
            tables=lambda: iter([table]),
            lines=lambda: (line for batch in batches() for line in json_form.lines(batch, name)),
            names=lambda: table.column_names,
            about=about or {},
            known=lambda: (piece for batch in batches() for piece in json_form.columns(batch, name)),
        )

    def columns(self) -> Iterator[Sequence[pa.Array]]:
        """The JSON of the values by column, for some rows at a time: null for what a row has not."""
        if self.known is not None:
            yield from self.known()
            return
        names = self.names()
        all_lines = self.lines()
        while lines := list(islice(all_lines, _BATCH)):
            found = list(map(members, lines))
            yield [pa.array([row.get(name, "null") for row in found], pa.large_string()) for name in names]
