"""From a source of rows to a published, immutable corpus.

Rows are read and parsed in the calling thread and written in a second one, so the two overlap, and memory
holds a few thousand rows whatever the size of the input. No timestamps and no absolute paths go into the
file: the same input gives the same logical content.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from datapruner.corpora.corpus import FORMAT_VERSION, Counts
from datapruner.corpora.writer import Chunk, CorpusWriter, building
from datapruner.errors import InputError, QuotaError, UsageError
from datapruner.input.readers import Batch, Record, Source, open_sources
from datapruner.input.readers.records import TRUNCATED
from datapruner.input.shapes import DEFAULT_LIMITS, Columns, Limits, Rejection, RowParser
from datapruner.system.panics import contained

Progress = Callable[[int, int, int | None], None]
OnSamples = Callable[[Sequence[str]], None]
"""Called with the ids of samples as they are read, some thousand at a time."""

_FLUSH_ROWS = 8192
_FLUSH_CHARS = 8 << 20
_EXCERPT = 200
_PACKAGES = ("datapruner", "duckdb", "orjson", "polars", "pyarrow")


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of the input: `rows == accepted + rejected`; `duplicates` are among the accepted.

    `shapes` and `rejects` count rows by shape and by reject code; `columns` names the columns that were
    read for each shape. `truncated_sources` are those that broke off, with where and why: what was whole
    before is among the rows, and the break itself a rejected one.
    """

    corpus_hash: str
    rows: int
    accepted: int
    rejected: int
    duplicates: int
    shapes: dict[str, int]
    columns: dict[str, list[str]]
    rejects: dict[str, int]
    truncated_sources: dict[str, str]

    def understood(self) -> str:
        """How the rows were read, in a line."""
        return understood(self.rows, self.rejected, self.shapes, self.columns)


def understood(
    rows: int, rejected: int, shapes: Mapping[str, int], columns: Mapping[str, Sequence[str]]
) -> str:
    """How rows were read, in a line: how many of each shape, and from which columns."""
    told = "; ".join(
        f"{count:,} {shape} ({', '.join(columns.get(shape, []))})" for shape, count in shapes.items()
    )
    return f"{rows:,} rows: {told}; {rejected:,} rejected"


@contained()
def ingest(
    source: Any,
    *,
    out: Path,
    mapping: Mapping[str, str] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    max_rows: int | None = None,
    progress: Progress | None = None,
    on_samples: OnSamples | None = None,
) -> IngestReport:
    """Read `source` (see `readers.open_sources`) and publish the corpus file `out`.

    `progress` is called with rows read, bytes read and bytes in total (None when unknown). Raises
    InputError when the source cannot be read or no row is accepted, UsageError when the mapping is wrong,
    QuotaError when there are more than `max_rows` rows; then nothing is published, and an earlier file at
    `out` stays.
    """
    parser = RowParser(mapping, limits)
    sources = open_sources(source, mapping)
    schema = _common_schema(sources)
    out = Path(out)
    with building(out, schema) as writer:
        run = _Run(parser, writer)
        for item in sources:
            for batch in item.batches(limits, typed=schema is not None):
                ids = run.add(item.name, batch, padded=item.schema is not None)
                if on_samples is not None:
                    on_samples(ids)
                if max_rows is not None and run.rows > max_rows:
                    raise QuotaError(
                        f"{item.name}: more than the {max_rows:,} rows that there is room for",
                        remedy="delete what is not needed, or have the project's row quota raised",
                    )
                if progress is not None:
                    progress(run.rows, *_bytes(sources))
        run.flush()
        run.check(sources)
        counts = Counts(run.rows, run.accepted, run.rows - run.accepted, writer.finish())
        report = IngestReport(
            corpus_hash=run.hash.hexdigest(),
            **asdict(counts),
            shapes=dict(sorted(run.shapes.items())),
            columns=run.columns(),
            rejects=dict(run.rejects.most_common()),
            truncated_sources=run.truncated,
        )
        writer.put_provenance(
            {
                "format_version": FORMAT_VERSION,
                "corpus_hash": report.corpus_hash,
                "sources": json.dumps([describe(item) for item in sources]),
                "mapping": json.dumps(dict(mapping) if mapping else None, sort_keys=True),
                "limits": json.dumps(asdict(limits)),
                "counts": json.dumps(asdict(counts)),
                "shapes": json.dumps(report.shapes),
                "columns": json.dumps(report.columns),
                "versions": json.dumps(versions()),
                "original_schema": None if schema is None else schema.serialize().to_pybytes(),
            }
        )
    return report


def _common_schema(sources: list[Source]) -> pa.Schema | None:
    """The schema that holds the rows of all sources; None when some have none or they clash."""
    schemas = [source.schema for source in sources if source.readable]
    if not schemas or any(schema is None for schema in schemas):
        return None
    try:
        return pa.unify_schemas(schemas)
    except pa.ArrowException:
        return None


def _bytes(sources: list[Source]) -> tuple[int, int | None]:
    totals = [source.bytes_total for source in sources]
    known = [total for total in totals if total is not None]
    return sum(source.bytes_done for source in sources), sum(known) if len(known) == len(totals) else None


def versions() -> dict[str, str]:
    """Of the packages that decide what is read of a source."""
    return {name: version(name) for name in _PACKAGES}


def describe(source: Source) -> dict[str, Any]:
    """A source by its name and, where it is a file, by what is in it now. Raises OSError."""
    if source.path is None:
        return {"name": source.name}
    with source.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": source.name, "size": source.path.stat().st_size, "sha256": digest}


class _Run:
    """One pass over the input: parses records, counts, hashes, and hands chunks to the writer."""

    def __init__(self, parser: RowParser, writer: CorpusWriter) -> None:
        self.parser, self.writer = parser, writer
        self.rows = self.accepted = 0
        self.shapes: Counter[str] = Counter()
        self.rejects: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.truncated: dict[str, str] = {}
        self.layouts: dict[tuple[str, Columns], None] = {}
        self.hash = hashlib.blake2b(digest_size=16)
        self.chunk = Chunk()

    def add(self, source: str, batch: Batch, *, padded: bool) -> list[str]:
        """Parse the records of a batch, and return the ids of its samples.

        `batch.table`, where there is one, has a row per sound record. `padded`: of a typed source.
        """
        parse, take = self.parser.parse, self.chunk.add
        taken: list[int] = []
        marks: list[str] = []
        ids: list[str] = []
        sound = 0
        last: Columns | None = None
        for record in batch.records:
            fault = record.fault
            result = parse(record.row, padded=padded) if fault is None else fault
            if isinstance(result, Rejection):
                marks.append(self._reject(source, record, result))
            else:
                take(self.rows, source, record.position, record.text, result)
                taken.append(sound)
                marks.append(result.sample_id)
                ids.append(result.sample_id)
                if result.columns is not last:
                    last = result.columns
                    self.layouts[result.shape, last] = None
            sound += fault is None
            self.rows += 1
        self.accepted += len(taken)
        self.hash.update("".join(marks).encode())
        if taken and batch.table is not None:
            table = batch.table if len(taken) == sound else batch.table.take(pa.array(taken, pa.int64()))
            self.chunk.tables.append(self._aligned(table))
            self.chunk.chars += table.nbytes  # of columns that are no part of a sample too
        gathered = max(len(self.chunk.rows), len(self.chunk.rejects))
        if gathered >= _FLUSH_ROWS or self.chunk.chars >= _FLUSH_CHARS:
            self.flush()
        return ids

    def flush(self) -> None:
        self.shapes.update(self.chunk.shapes)
        self.writer.put(self.chunk)
        self.chunk = Chunk()

    def _aligned(self, table: pa.RecordBatch) -> pa.RecordBatch:
        """The batch under the schema of all sources, with nulls for columns that its file lacks."""
        schema = self.writer.schema
        assert schema is not None, table.schema
        columns = [
            table.column(item.name).cast(item.type)
            if item.name in table.schema.names
            else pa.nulls(table.num_rows, item.type)
            for item in schema
        ]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def _reject(self, source: str, record: Record, fault: Rejection) -> str:
        """Account for a rejected row; its mark in the corpus hash."""
        place = (self.rows, source, record.position)
        excerpt = record.excerpt or _excerpt(record)
        self.chunk.rejects.append(
            (*place, fault.field, fault.code, fault.reason, fault.remedy, excerpt),
        )
        self.rejects[fault.code] += 1
        if fault.code == TRUNCATED:
            self.truncated[source] = f"line {record.position}: {fault.reason}"
        self.examples.setdefault(fault.code, f"{source}, line {record.position}: {fault.reason}")
        return orjson.dumps((self.rows, fault.code, fault.field)).decode()

    def check(self, sources: list[Source]) -> None:
        """Refuse a corpus that has no sample, or whose mapping names a column that is nowhere."""
        named = ", ".join(source.name for source in sources[:3]) + (", …" if len(sources) > 3 else "")
        if self.rows == 0:
            raise InputError(f"{named}: there are no rows", remedy="give data with at least one row")
        if missing := ", ".join(f"'{name}'" for name in sorted(self.parser.unseen_columns)):
            remedy = "check the spelling of the columns"
            raise UsageError(f"the mapping names {missing}, which no row has", remedy=remedy)
        if self.accepted == 0:
            reasons = "; ".join(
                f"{count:,} × {code} ({self.examples[code]})" for code, count in self.rejects.most_common(3)
            )
            raise InputError(
                f"{named}: none of the {self.rows:,} rows is a usable sample: {reasons}",
                remedy="correct the data, or name its columns with a mapping",
            )

    def columns(self) -> dict[str, list[str]]:
        """The columns that were read, by shape."""
        columns: dict[str, dict[str, None]] = {}
        for shape, layout in self.layouts:
            columns.setdefault(shape, {}).update(dict.fromkeys(layout.used))
        return {shape: list(names) for shape, names in sorted(columns.items())}


def _excerpt(record: Record) -> str | None:
    if record.text is not None:
        return record.text[:_EXCERPT].decode(errors="replace")
    if record.row is None:
        return None
    try:
        return orjson.dumps(record.row, default=str).decode()[:_EXCERPT]
    except orjson.JSONEncodeError:
        return ascii(record.row)[:_EXCERPT]
