"""A corpus with more rows: an earlier version and an addition become a new, immutable file.

The rows of the earlier version keep their numbers; those of the addition follow. Ids of samples are content
hashes, so a row that both have is recognised: it is marked as a duplicate, or left out on request.

Notable choices:
- the file of the earlier version is copied and added to, which costs a copy and not a second ingest;
- original columns are kept as they are while both have the same; otherwise both become JSON.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from datapruner.corpora.corpus import Corpus, Counts, Provenance
from datapruner.errors import WorkerError
from datapruner.rows.sql_text import literal
from datapruner.system.space import needed

_MEMORY = "512MB"
_BATCH = 8192

# Rows of the addition that are taken, with the numbers that they get.
_CHOOSE = """
CREATE TEMP TABLE chosen AS
SELECT row, $offset + row_number() OVER (ORDER BY row) - 1 AS new_row FROM (
    SELECT row FROM fresh.samples WHERE NOT $only_new
        OR (duplicate_of IS NULL AND sample_id NOT IN (SELECT sample_id FROM samples))
    UNION ALL
    SELECT row FROM fresh.rejects f WHERE NOT $only_new OR NOT EXISTS (
        SELECT 1 FROM rejects r WHERE r.code = f.code AND r.source = f.source
        AND r.field IS NOT DISTINCT FROM f.field AND r.excerpt IS NOT DISTINCT FROM f.excerpt))
"""
_TAKE = """
INSERT INTO {table} SELECT c.new_row, f.* EXCLUDE (row) FROM fresh.{table} f JOIN chosen c USING (row)
ORDER BY c.new_row
"""
_MARK_DUPLICATES = """
UPDATE samples SET duplicate_of = first_row
FROM (SELECT sample_id AS id, min(row) AS first_row FROM samples GROUP BY sample_id HAVING count(*) > 1)
WHERE sample_id = id AND row > first_row
"""
_IN_ORDER = """
SELECT row, sample_id, NULL AS code, NULL AS field FROM samples
UNION ALL SELECT row, NULL, code, field FROM rejects ORDER BY row
"""


@dataclass(frozen=True, slots=True)
class Appended:
    """`new_rows` of the addition were taken, rejected ones included; `known_rows` were there already."""

    new_rows: int
    known_rows: int


def append(base: Path, addition: Path, out: Path, *, only_new: bool) -> Appended:
    """Write the corpus `base` and the rows of `addition` after it to `out`, which must not exist.

    With `only_new`, samples that `base` has, repetitions inside `addition`, and rejected rows that were
    rejected before for the same reason are left out; when nothing is left, `out` is not written. Raises
    InputError when a file is no corpus, NoSpaceError for want of space, WorkerError when DuckDB or the disk
    fails otherwise.
    """
    with Corpus(base) as earlier, Corpus(addition) as later:
        first, second = earlier.provenance, later.provenance
        alike = _schema_bytes(first) == _schema_bytes(second)
    with needed("the corpus"):
        return _append(base, addition, out, first, second, alike=alike, only_new=only_new)


def _append(
    base: Path,
    addition: Path,
    out: Path,
    first: Provenance,
    second: Provenance,
    *,
    alike: bool,
    only_new: bool,
) -> Appended:
    try:
        shutil.copyfile(base, out)
        with duckdb.connect(str(out)) as connection:
            connection.execute(f"SET memory_limit = '{_MEMORY}'")
            connection.execute(f"SET temp_directory = {literal(out.with_suffix('.spill'))}")
            connection.execute("SET force_compression = 'zstd'")
            connection.execute(f"ATTACH {literal(addition)} AS fresh (READ_ONLY)")
            connection.execute("BEGIN")
            connection.execute(_CHOOSE, {"offset": first.counts.rows, "only_new": only_new})
            [(taken,)] = connection.execute("SELECT count(*) FROM chosen").fetchall()
            appended = Appended(int(taken), second.counts.rows - int(taken))
            if taken:
                _take(connection, base, addition, alike=alike)
                _put_provenance(connection, first, second, alike=alike)
                connection.execute("COMMIT")
        if not taken:
            out.unlink()
    except (duckdb.Error, OSError) as error:
        out.unlink(missing_ok=True)
        raise WorkerError(f"the corpus cannot be written: {error}") from error
    finally:
        shutil.rmtree(out.with_suffix(".spill"), ignore_errors=True)
        out.with_name(f"{out.name}.wal").unlink(missing_ok=True)
    return appended


def _take(connection: duckdb.DuckDBPyConnection, base: Path, addition: Path, *, alike: bool) -> None:
    for table in ("samples", "turns", "rejects", *(("originals",) if alike else ())):
        connection.execute(_TAKE.format(table=table))
    connection.execute("UPDATE samples SET duplicate_of = NULL WHERE duplicate_of IS NOT NULL").fetchall()
    connection.execute(_MARK_DUPLICATES).fetchall()
    if not alike:
        numbers = dict(connection.execute("SELECT row, new_row FROM chosen").fetchall())
        connection.execute("DROP TABLE originals")
        connection.execute("CREATE TABLE originals (row BIGINT, json VARCHAR)")
        _insert_json(connection, base, None)
        _insert_json(connection, addition, numbers)


def _insert_json(connection: duckdb.DuckDBPyConnection, path: Path, numbers: dict[int, int] | None) -> None:
    """Write a corpus's original rows as JSON: all of them, or those in `numbers` under their new ones."""
    with Corpus(path) as corpus:
        rows = corpus.sample_index()["row"].to_list()
        if numbers is not None:
            rows = [row for row in rows if row in numbers]
        texts = corpus.originals_to_keep(rows)
        for batch in _batches(iter(rows), _BATCH):
            chunk = pa.table(
                {
                    "row": pa.array([row if numbers is None else numbers[row] for row in batch], pa.int64()),
                    "json": [text.decode() for text in islice(texts, len(batch))],
                }
            )
            connection.register("chunk", chunk)
            connection.execute("INSERT INTO originals FROM chunk")
            connection.unregister("chunk")


def _batches(items: Iterator[int], size: int) -> Iterator[list[int]]:
    while batch := list(islice(items, size)):
        yield batch


def _put_provenance(
    connection: duckdb.DuckDBPyConnection, first: Provenance, second: Provenance, *, alike: bool
) -> None:
    hashed = hashlib.blake2b(digest_size=16)
    rows = rejected = 0
    cursor = connection.execute(_IN_ORDER)
    while batch := cursor.fetchmany(_BATCH):
        for row, sample_id, code, field in batch:
            hashed.update(sample_id.encode() if sample_id is not None else orjson.dumps((row, code, field)))
            rows += 1
            rejected += sample_id is None
    [(duplicates,)] = connection.execute("SELECT count(duplicate_of) FROM samples").fetchall()
    shapes = Counter(dict(connection.execute("SELECT shape, count(*) FROM samples GROUP BY 1").fetchall()))
    values: dict[str, Any] = {
        "corpus_hash": hashed.hexdigest(),
        "sources": json.dumps(_united(first.sources, second.sources)),
        "counts": json.dumps(asdict(Counts(rows, rows - rejected, rejected, duplicates))),
        "shapes": json.dumps(dict(sorted(shapes.items()))),
        "columns": json.dumps(_merged(first.columns, second.columns)),
        "versions": json.dumps(first.versions | second.versions),
    }
    if not alike:
        values["original_schema"] = None
    assignments = ", ".join(f"{name} = ${name}" for name in values)
    connection.execute(f"UPDATE provenance SET {assignments}", values)  # noqa: S608


def _united(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each source once: one that is read every night is mostly what it was the night before."""
    return list({json.dumps(source, sort_keys=True): source for source in (*first, *second)}.values())


def _merged(first: dict[str, list[str]], second: dict[str, list[str]]) -> dict[str, list[str]]:
    return {
        shape: list(dict.fromkeys([*first.get(shape, []), *second.get(shape, [])]))
        for shape in sorted({*first, *second})
    }


def _schema_bytes(provenance: Provenance) -> bytes | None:
    return None if provenance.schema is None else provenance.schema.serialize().to_pybytes()
