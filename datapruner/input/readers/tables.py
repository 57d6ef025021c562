"""Arrow-typed input: Parquet, Arrow files and streams, tables in memory, `datasets` and the Hub.

Notable choices:
* Only columns that a shape may read become Python objects; the others travel as Arrow from the file to
  the corpus.
* When a folder mixes these with JSON, rows are rendered as JSON (`json_form`), so that all rows of the
  corpus are kept in one form.
* Every batch is checked before anything reads its values: text that is not UTF-8, and offsets that point
  outside of it, would end the process in the libraries that trust them.
* Nothing here can run code from a dataset: no pickle, and `load_dataset` never trusts remote code.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from datapruner.errors import InputError, UsageError
from datapruner.input.readers import soundness
from datapruner.input.readers.csvtext import check_unique
from datapruner.input.readers.records import BATCH_ROWS, Batch, NothingWholeError, Record, Source, truncated
from datapruner.input.shapes import Limits, Rejection
from datapruner.rows import json_form
from datapruner.rows.originals import check_schema

_PARQUET = b"PAR1"
#: Bytes before the first message of an Arrow file.
_ARROW_HEAD = 8


class TableSource(Source):
    """A schema and a way to stream its record batches.

    `needed` are the columns whose values the parser may look at; None means all.
    """

    def __init__(
        self,
        name: str,
        schema: pa.Schema,
        stream: Callable[[], Iterator[pa.RecordBatch]],
        needed: Collection[str],
        path: Path | None = None,
        rows: int | None = None,
    ) -> None:
        check_unique(schema.names, name)
        check_schema(schema, name)
        self.name, self.schema, self.stream, self.needed = name, schema, stream, needed
        self.path, self.rows = path, rows
        self.holder: object = None  # keeps the temporary file of unpacked content alive
        self.broken: str | None = None  # why there would be more after the last batch

    def batches(self, limits: Limits, *, typed: bool) -> Iterator[Batch]:
        position = 0
        total = self.bytes_total
        stream = self.stream()
        while True:
            try:
                chunk = next(stream, None)
            except (pa.ArrowException, OSError) as error:
                reason = self.broken or f"the file breaks here: {_first_line(error)}"
                yield Batch([Record.faulty(position + 1, truncated(reason))])
                return
            if chunk is None:
                if self.broken is not None:
                    yield Batch([Record.faulty(position + 1, truncated(self.broken))])
                return
            for start in range(0, chunk.num_rows, BATCH_ROWS):
                piece = chunk.slice(start, BATCH_ROWS)
                yield self._read(piece, position, typed=typed)
                position += piece.num_rows
            if total is not None and self.rows:
                self.bytes_done = total * position // self.rows

    def _read(self, piece: pa.RecordBatch, position: int, *, typed: bool) -> Batch:
        faults: dict[int, Rejection] = {}
        try:
            piece.validate(full=True)
            rows = self._rows(piece)
        except (pa.ArrowException, ValueError, OverflowError):
            faults = self._faults(piece)
            piece = piece.take(pa.array([n for n in range(piece.num_rows) if n not in faults], pa.int64()))
            rows = self._rows(piece)
        texts = [None] * len(rows) if typed else list(json_form.lines(piece, self.name, json_form.IN_CORPUS))
        sound = zip(rows, texts, strict=True)
        records = [
            Record.faulty(position + number + 1, faults[number])
            if number in faults
            else Record(position + number + 1, *next(sound))
            for number in range(len(rows) + len(faults))
        ]
        return Batch(records, piece if typed else None)

    def _rows(self, piece: pa.RecordBatch) -> list[dict[str, Any]]:
        names = piece.schema.names
        blank = [None] * piece.num_rows
        columns = [
            column.to_pylist() if name in self.needed else blank
            for name, column in zip(names, piece.columns, strict=True)
        ]
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]

    def _faults(self, piece: pa.RecordBatch) -> dict[int, Rejection]:
        """Why rows of a batch cannot be read, by their number in it."""
        try:
            soundness.check_layout(piece)
        except pa.ArrowException as error:
            return dict.fromkeys(range(piece.num_rows), _fault(None, error))
        found = {}
        for number in range(piece.num_rows):
            row = piece.take(pa.array([number]))
            name = None
            try:
                for name, column in zip(row.schema.names, row.columns, strict=True):
                    column.validate(full=True)
                    if name in self.needed:
                        column.to_pylist()
            except (pa.ArrowException, ValueError, OverflowError) as error:
                found[number] = _fault(name, error)
        return found


def _fault(column: str | None, error: Exception) -> Rejection:
    if "utf8" in str(error).lower() or isinstance(error, UnicodeDecodeError):
        reason = f"'{column}' holds bytes that are not UTF-8"
        return Rejection("invalid_unicode", column, reason, "write the file with valid UTF-8 strings")
    what = "the rows around it" if column is None else f"the value of '{column}'"
    reason = f"{what} cannot be read: {_first_line(error)}"
    return Rejection("broken_value", column, reason, "write the file again, or drop the column")


def parquet_source(path: Path, name: str, needed: Collection[str]) -> TableSource:
    with path.open("rb") as raw:
        raw.seek(max(0, path.stat().st_size - len(_PARQUET)))
        if raw.read() != _PARQUET:
            raise NothingWholeError(
                name, "the Parquet file is truncated: its end, which says where rows are, is missing"
            )
    file = _open(lambda: pq.ParquetFile(path), name, "Parquet")
    rows, schema = file.metadata.num_rows, file.schema_arrow
    file.close()

    def stream() -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(path) as opened:
            yield from opened.iter_batches(batch_size=BATCH_ROWS)

    return TableSource(name, schema, stream, needed, path, rows)


def arrow_file_source(path: Path, name: str, needed: Collection[str]) -> TableSource:
    try:
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as file:
            schema = file.schema
    except (pa.ArrowException, OSError):
        return _cut_arrow_file(path, name, needed)

    def stream() -> Iterator[pa.RecordBatch]:
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as opened:
            for index in range(opened.num_record_batches):
                yield opened.get_batch(index)

    return TableSource(name, schema, stream, needed, path)


def _cut_arrow_file(path: Path, name: str, needed: Collection[str]) -> TableSource:
    """An Arrow file whose end, the list of its batches, is missing. What comes before is a stream."""

    def content() -> pa.NativeFile:
        file = pa.OSFile(str(path))
        file.seek(_ARROW_HEAD)
        return file

    reason = "the Arrow file is truncated: the list of its batches at its end is missing"
    try:
        source = arrow_stream_source(content, name, needed, path)
    except InputError as error:
        raise NothingWholeError(name, reason) from error
    source.broken = reason
    return source


def arrow_stream_source(
    opener: Callable[[], Any], name: str, needed: Collection[str], path: Path | None
) -> TableSource:
    """`opener` gives a fresh file-like object over the (decompressed) stream."""
    with _open(lambda: pa.ipc.open_stream(opener()), name, "Arrow") as file:
        schema = file.schema

    def stream() -> Iterator[pa.RecordBatch]:
        with pa.ipc.open_stream(opener()) as opened:
            yield from opened

    return TableSource(name, schema, stream, needed, path)


def arrow_pipe_source(path: Path, name: str, needed: Collection[str]) -> TableSource:
    """The stream format in a file that was unpacked."""
    return arrow_stream_source(lambda: pa.memory_map(str(path)), name, needed, path)


def table_source(table: Any, name: str, needed: Collection[str]) -> TableSource:
    """A pyarrow table or reader, a polars frame, or a `datasets` dataset held in memory."""
    if isinstance(table, pl.LazyFrame):
        table = table.collect(engine="streaming")
    if isinstance(table, pl.DataFrame):
        table = table.to_arrow()
    if isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    if isinstance(table, pa.Table):
        return TableSource(name, table.schema, lambda: iter(table.to_batches()), needed, rows=table.num_rows)
    if isinstance(table, pa.RecordBatchReader):
        return TableSource(name, table.schema, lambda: iter(table), needed)
    return dataset_source(table, name, needed)


def dataset_source(dataset: Any, name: str, needed: Collection[str]) -> TableSource:
    """A `datasets.Dataset` or `IterableDataset`."""
    formatted = dataset.with_format("arrow")

    def stream() -> Iterator[pa.RecordBatch]:
        for table in formatted.iter(batch_size=BATCH_ROWS):
            yield from table.combine_chunks().to_batches()

    if dataset.features is not None:
        schema = dataset.features.arrow_schema
    else:
        first = next(stream(), None)
        if first is None:
            raise InputError(f"{name}: the dataset has no rows")
        schema = first.schema
    return TableSource(name, schema.remove_metadata(), stream, needed)


def hub_source(name: str, config: str | None, split: str | None, needed: Collection[str]) -> TableSource:
    """A dataset by Hub name or local dataset folder, streamed. `split` None means train, or the only one."""
    import datasets  # takes a second to import

    try:
        if Path(name, "dataset_dict.json").is_file() or Path(name, "state.json").is_file():
            dataset = datasets.load_from_disk(name)
        else:
            dataset = datasets.load_dataset(name, config, streaming=True)
    except Exception as error:  # datasets and huggingface_hub raise errors of many families
        raise InputError(
            f"{name}: the dataset cannot be opened: {_first_line(error)}",
            remedy="check the name, its configuration and the network, or give a local path",
        ) from error
    shown = Path(name).name if Path(name).exists() else name
    if not isinstance(dataset, dict):
        return dataset_source(dataset, shown, needed)
    splits = list(dataset)
    wanted = split or (splits[0] if len(splits) == 1 else "train")
    if wanted not in splits:
        raise UsageError(f"{name} has no split '{wanted}'", remedy=f"its splits are {', '.join(splits)}")
    return dataset_source(dataset[wanted], f"{shown}[{wanted}]", needed)


def _open(opener: Callable[[], Any], name: str, kind: str) -> Any:
    try:
        return opener()
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{name}: not a readable {kind} file: {_first_line(error)}", remedy="get the file again"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
