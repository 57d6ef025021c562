"""The corpora of a home folder: rows are ingested there, and found again, by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb

from datapruner.corpora.ingest import ingest
from datapruner.progress import Progress
from datapruner.system.files import clear_unfinished, unfinished


def ingest_to(rows: Any, mapping: Mapping[str, str], home: Path, progress: Progress) -> Path:
    """Ingest `rows` into the home folder's corpora, named by content."""
    folder = home / "corpora"
    folder.mkdir(parents=True, exist_ok=True)
    progress.stage("ingesting", None, "bytes")
    clear_unfinished(folder)
    temporary = unfinished(folder / "corpus.duckdb")
    try:
        report = ingest(
            rows,
            out=temporary,
            mapping=mapping or None,
            progress=lambda count, done, total: progress.at(done, total, f"{count:,} rows"),
        )
        progress.note(report.understood())
        path = folder / f"{corpus_name(temporary)}.duckdb"
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def corpus_name(path: Path) -> str:
    """A name by all content of a corpus file: `corpus_hash`, and a hash of the original columns, which that
    leaves out; exports read them, so a corpus with other columns must not take this one's place."""
    with duckdb.connect(str(path), read_only=True) as connection:
        [(corpus_hash, rows, schema)] = connection.execute(
            "SELECT corpus_hash, (SELECT bit_xor(hash(o)) FROM originals o), original_schema FROM provenance"
        ).fetchall()
    originals = hashlib.sha256(f"{rows}".encode() + (schema or b"")).hexdigest()
    return f"{corpus_hash[:20]}-{originals[:12]}"
