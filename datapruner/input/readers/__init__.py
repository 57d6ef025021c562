"""From whatever holds the rows to streams of records: files, folders, datasets, tables, rows, stdin.

`open_sources` is the one entrance. Formats are told by content (magic bytes, first character), not by
name; the name only decides between CSV and text that is neither. Memory is bounded by a chunk and the
row limit for text; compressed Parquet and Arrow files need random access and are unpacked to a temporary
file first.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Literal

import orjson
import polars as pl
import pyarrow as pa

from datapruner.errors import InputError, UsageError
from datapruner.input.readers import tables
from datapruner.input.readers.csvtext import read_csv, read_header
from datapruner.input.readers.jsontext import read_array, read_lines
from datapruner.input.readers.pyrows import read_row
from datapruner.input.readers.records import (
    BATCH_ROWS,
    TRUNCATED,
    BadFile,
    Batch,
    NothingWholeError,
    Record,
    Source,
)
from datapruner.input.readers.streams import BrokenStreamError, decompress
from datapruner.input.shapes import KNOWN_COLUMNS, Limits, Rejection

__all__ = ["BadFile", "Batch", "Dataset", "Files", "Record", "Source", "open_sources"]

DATA_SUFFIXES = {".json", ".jsonl", ".ndjson", ".csv", ".parquet", ".arrow", ".feather"}
PACKED_SUFFIXES = {".gz", ".zst", ".zstd"}
#: JSON files that describe a dataset and hold none of its rows.
_METADATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "croissant.json"}
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

OnRead = Callable[[int], None]
Kind = Literal["lines", "array", "csv", "parquet", "arrow-file", "arrow-stream"]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset on the Hub or in a local folder that `datasets` understands, to be streamed."""

    name: str
    config: str | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Files:
    """Files with the names that messages and provenance call them by, whatever their paths are.

    A file that unpacks to more than `unpacked_limit` bytes is refused, as soon as that is seen.
    """

    files: Sequence[tuple[Path, str]]
    unpacked_limit: int


def open_sources(source: Any, mapping: Mapping[str, str] | None = None) -> list[Source]:
    """What there is to read, in order.

    `source` is a path to a file or folder, "-" for standard input, a Hub name `org/name`, a `Dataset`,
    `Files`, a `datasets` dataset, a polars or pyarrow table, or an iterable of rows. Raises InputError when
    it holds no data or a single file cannot be read; in a folder such a file becomes a `BadFile`.
    """
    needed = KNOWN_COLUMNS if not mapping else frozenset(mapping.values())
    if isinstance(source, Dataset):
        return [tables.hub_source(source.name, source.config, source.split, needed)]
    if isinstance(source, Files):
        if len(source.files) == 1:
            return [open_file(*source.files[0], needed, source.unpacked_limit)]
        return _open_files(source.files, needed, source.unpacked_limit)
    if isinstance(source, str | Path):
        return _open_path(source, needed)
    if isinstance(source, pa.Table | pa.RecordBatch | pa.RecordBatchReader | pl.DataFrame | pl.LazyFrame):
        return [tables.table_source(source, "table", needed)]
    datasets = sys.modules.get("datasets")
    if datasets is not None:
        if isinstance(source, datasets.Dataset | datasets.IterableDataset):
            return [tables.dataset_source(source, "dataset", needed)]
        if isinstance(source, datasets.DatasetDict | datasets.IterableDatasetDict):
            raise UsageError(
                "a dataset with several splits was given", remedy=f"choose one of {', '.join(source)}"
            )
    if isinstance(source, Iterable) and not isinstance(source, Mapping | bytes):
        return [Rows(source)]
    raise UsageError(
        f"cannot read rows from a {type(source).__name__}", remedy="give a path, a table or rows"
    )


def _open_path(source: str | Path, needed: Collection[str]) -> list[Source]:
    if source == "-":
        return [_open_stdin(sys.stdin.buffer, needed)]
    path = Path(source)
    if path.is_dir():
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            return [tables.hub_source(str(path), None, None, needed)]
        return _open_folder(path, needed)
    if path.exists():
        return [open_file(path, path.name, needed)]
    if isinstance(source, str) and _HUB_NAME.fullmatch(source) and not _suffix(path):
        return [tables.hub_source(source, None, None, needed)]
    raise InputError(f"{path}: no such file or folder", remedy="give a path, or a Hub name such as org/name")


def _open_folder(folder: Path, needed: Collection[str]) -> list[Source]:
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if _suffix(path) and path.is_file() and not _describes(path) and not _hidden(path, folder)
    ]
    if not files:
        wanted = ", ".join(sorted(DATA_SUFFIXES))
        raise InputError(
            f"{folder}: the folder has no data files", remedy=f"looked for {wanted}, plain or .gz/.zst"
        )
    return _open_files([(path, path.relative_to(folder).as_posix()) for path in files], needed)


def _open_files(
    files: Sequence[tuple[Path, str]], needed: Collection[str], limit: int | None = None
) -> list[Source]:
    """Each file as a source; one that cannot be read becomes a `BadFile`."""
    sources: list[Source] = []
    for path, name in files:
        try:
            sources.append(open_file(path, name, needed, limit))
        except InputError as error:
            reason = str(error).removesuffix(f" ({error.remedy})")
            code = TRUNCATED if isinstance(error, NothingWholeError) else "unreadable_file"
            fault = Rejection(code, None, reason, error.remedy or "repair or remove the file")
            sources.append(BadFile(name, path, fault))
    return sources


def _describes(path: Path) -> bool:
    """Whether a file is about rows and has none, such as the run file beside an export."""
    return path.name in _METADATA or path.name.endswith(".run.json")


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _suffix(path: Path) -> str | None:
    """The data suffix under a possible .gz or .zst; None for other files."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED_SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in DATA_SUFFIXES else None


class TextSource(Source):
    """JSON lines, a JSON array or CSV, from a file or from standard input."""

    def __init__(
        self,
        name: str,
        kind: Kind,
        head: bytes,
        chunks: Callable[[OnRead], Iterator[bytes]],
        path: Path | None = None,
    ) -> None:
        self.name, self.kind, self.chunks, self.path = name, kind, chunks, path
        if kind == "csv":
            self.schema = pa.schema([(column, pa.string()) for column in read_header(head, name)])

    def _count(self, size: int) -> None:
        self.bytes_done += size

    def batches(self, limits: Limits, *, typed: bool) -> Iterator[Batch]:
        chunks = self.chunks(self._count)
        if self.kind == "lines":
            return read_lines(chunks, limits)
        if self.kind == "array":
            return read_array(chunks, limits)
        batches = read_csv(chunks, limits)
        return batches if typed else map(_with_text, batches)


def _with_text(batch: Batch) -> Batch:
    return Batch([r if r.fault else r._replace(text=orjson.dumps(r.row)) for r in batch.records])


class Rows(Source):
    """Rows from Python. Kept as the JSON that they serialise to (`pyrows`)."""

    name = "rows"

    def __init__(self, rows: Iterable[Any]) -> None:
        self.rows = rows

    def batches(self, limits: Limits, *, typed: bool) -> Iterator[Batch]:
        records: list[Record] = []
        size = 0
        for position, row in enumerate(self.rows, 1):
            records.append(read_row(position, row, limits))
            size += len(records[-1].text or "")
            if len(records) >= BATCH_ROWS or size >= 1 << 20:
                yield Batch(records)
                records, size = [], 0
        yield Batch(records)


def open_file(path: Path, name: str, needed: Collection[str], limit: int | None = None) -> Source:
    """One file, its format told by content. Raises InputError naming the file, also while it is read when it
    unpacks to more than `limit` bytes."""

    def chunks(on_read: OnRead = lambda _: None) -> Iterator[bytes]:
        unpacked = 0
        with path.open("rb") as raw:
            for chunk in decompress(raw, on_read):
                unpacked += len(chunk)
                if limit is not None and unpacked > limit:
                    raise InputError(
                        f"{name}: unpacks to more than {limit:,} bytes", remedy="split it, or raise the limit"
                    )
                yield chunk

    try:
        head = next(chunks(), b"")
    except BrokenStreamError as error:
        raise NothingWholeError(name, str(error)) from error
    except OSError as error:
        raise InputError(
            f"{name}: cannot be read: {error.strerror}", remedy="check its permissions"
        ) from error
    kind = sniff(head, name, _suffix(Path(name)))
    if kind == "arrow-stream":
        return tables.arrow_stream_source(lambda: _ChunkFile(chunks()), name, needed, path)
    if kind in ("parquet", "arrow-file"):
        return _table_file(path, name, kind, needed, None if _is_plain(path, head) else chunks())
    return TextSource(name, kind, head, chunks, path)


def _open_stdin(raw: BinaryIO, needed: Collection[str]) -> Source:
    rest = decompress(raw)
    try:
        head = next(rest, b"")
    except BrokenStreamError as error:
        raise NothingWholeError("standard input", str(error)) from error
    kind = sniff(head, "standard input", None)

    def chunks(on_read: OnRead) -> Iterator[bytes]:
        for chunk in chain([head], rest):
            on_read(len(chunk))
            yield chunk

    if kind in ("lines", "array", "csv"):
        return TextSource("stdin", kind, head, chunks)
    return _table_file(None, "stdin", kind, needed, chain([head], rest))


def _table_file(
    path: Path | None, name: str, kind: Kind, needed: Collection[str], unpack: Iterator[bytes] | None
) -> Source:
    """A file that needs random access; `unpack` holds its content when it must be unpacked first."""
    holder = broken = None
    if unpack is not None:
        holder = tempfile.NamedTemporaryFile(prefix="datapruner-", suffix=f".{kind}")  # noqa: SIM115
        try:
            for chunk in unpack:
                holder.write(chunk)
        except BrokenStreamError as error:
            if kind == "parquet":
                raise NothingWholeError(name, str(error)) from error
            broken = str(error)
        holder.flush()
    location = Path(holder.name) if holder is not None else path
    assert location is not None, name
    open_as = {
        "parquet": tables.parquet_source,
        "arrow-file": tables.arrow_file_source,
        "arrow-stream": tables.arrow_pipe_source,
    }[kind]
    source = open_as(location, name, needed)
    source.path, source.holder = path, holder
    source.broken = broken or source.broken
    return source


def _is_plain(path: Path, head: bytes) -> bool:
    with path.open("rb") as raw:
        return raw.read(8) == head[:8]


class _ChunkFile:
    """Chunks as the file-like object that pyarrow reads a stream from."""

    closed = False

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks, self.rest = chunks, b""

    def read(self, size: int = -1) -> bytes:
        parts = [self.rest]
        got = len(self.rest)
        while size < 0 or got < size:
            try:
                chunk = next(self.chunks, None)
            except BrokenStreamError as error:
                raise OSError(str(error)) from error
            if chunk is None:
                break
            parts.append(chunk)
            got += len(chunk)
        data = b"".join(parts)
        size = len(data) if size < 0 else size
        self.rest = data[size:]
        return data[:size]

    def close(self) -> None:
        self.closed = True


def sniff(head: bytes, name: str, suffix: str | None) -> Kind:
    """The format by the first chunk of content. Raises InputError for what is no data at all."""
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"ARROW1"):
        return "arrow-file"
    if head.startswith(b"\xff\xff\xff\xff"):
        return "arrow-stream"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{name}: the text is UTF-16", remedy="convert the file to UTF-8")
    if suffix in (".parquet", ".arrow", ".feather"):
        raise InputError(f"{name}: the content is not {suffix[1:]} data", remedy="check what wrote the file")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise InputError(f"{name}: the file is empty", remedy="give a file with at least one row")
    if suffix == ".csv":
        return "csv"
    if text.startswith(b"["):
        return "array"
    if text.startswith(b"{"):
        return "lines"
    if re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", text[:4096]):
        raise InputError(
            f"{name}: a binary file, neither JSON, CSV, Parquet nor Arrow",
            remedy="convert it, or remove it from the input",
        )
    if suffix is not None:
        return "lines"
    if b"," in text.splitlines()[0]:
        return "csv"
    raise InputError(f"{name}: cannot tell the format", remedy="give JSON, JSON lines, CSV, Parquet or Arrow")
