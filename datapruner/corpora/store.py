"""The corpora of a home folder: rows are ingested there, and found again, by their content.

Notable choice: files that were ingested before, under the same names, with the same mapping and by the same
packages, are not parsed again. Whether they are the same is decided by a hash of all their bytes, never by
size or time. A small file beside the corpora, `{hash}.source`, names the corpus, and the corpus itself says
whether it is still that one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb

from datapruner.corpora.corpus import Corpus
from datapruner.corpora.ingest import OnSamples, describe, ingest, understood, versions
from datapruner.errors import InputError
from datapruner.input.readers import open_sources
from datapruner.input.shapes import DEFAULT_LIMITS
from datapruner.progress import Progress
from datapruner.system import homes
from datapruner.system.files import clear_unfinished, publishing, unfinished


def ingest_to(
    rows: Any,
    mapping: Mapping[str, str],
    home: Path,
    progress: Progress,
    on_samples: OnSamples | None = None,
) -> Path:
    """Ingest `rows` into the home folder's corpora, named by content, unless they are there; only where they
    are not is `on_samples` called."""
    folder = home / "corpora"
    folder.mkdir(parents=True, exist_ok=True)
    homes.use(home)
    progress.stage("ingesting", None, "bytes")
    clear_unfinished(folder)
    sources = _described(rows, mapping)
    known = None if sources is None else folder / f"{_digest(sources, mapping)}.source"
    if sources is not None and known is not None:
        found = _found(known, sources, mapping, progress)
        if found is not None:
            return found
    temporary = unfinished(folder / "corpus.duckdb")
    try:
        report = ingest(
            rows,
            out=temporary,
            mapping=mapping or None,
            progress=lambda count, done, total: progress.at(done, total, f"{count:,} rows"),
            on_samples=on_samples,
        )
        progress.note(report.understood())
        path = folder / f"{corpus_name(temporary)}.duckdb"
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if known is not None:
        with Corpus(path) as corpus:
            unchanged = corpus.provenance.sources == sources  # else written to while it was read
        if unchanged:
            with publishing(known) as file:
                file.write(path.stem.encode())
    return path


def _described(rows: Any, mapping: Mapping[str, str]) -> list[dict[str, Any]] | None:
    """What the files of a source hold, in their order; None for what is no file, or can be read only once."""
    if not isinstance(rows, str | Path) or not (Path(rows).is_file() or Path(rows).is_dir()):
        return None
    with suppress(InputError, OSError):  # ingest says it better
        sources = open_sources(rows, mapping or None)
        if all(source.path is not None and source.readable for source in sources):
            return [describe(source) for source in sources]
    return None


def _digest(sources: list[dict[str, Any]], mapping: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps([sources, dict(mapping)], sort_keys=True).encode()).hexdigest()[:32]


def _found(
    known: Path, sources: list[dict[str, Any]], mapping: Mapping[str, str], progress: Progress
) -> Path | None:
    """The corpus of these sources, if it was ingested as it would be now, and is whole."""
    try:
        path = known.with_name(f"{known.read_text(encoding='utf-8')}.duckdb")
        with Corpus(path) as corpus:
            made = corpus.provenance
    except (OSError, ValueError, InputError):
        return None
    as_now = (sources, dict(mapping) or None, asdict(DEFAULT_LIMITS), versions())
    if (made.sources, made.mapping, made.limits, made.versions) != as_now:
        return None
    progress.note(understood(made.counts.rows, made.counts.rejected, made.shapes, made.columns))
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
