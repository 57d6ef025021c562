"""From a source that a request named to the published corpus file of a new dataset version."""

from __future__ import annotations

import os
import posixpath
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fsspec
from pydantic import TypeAdapter

from datapruner.catalog import datasets, projects, uploads
from datapruner.catalog.models import Dataset, Project, Version, new_id
from datapruner.corpora import store
from datapruner.corpora.append import append
from datapruner.corpora.corpus import Corpus
from datapruner.corpora.ingest import ingest
from datapruner.errors import DeniedError, InputError, StorageError
from datapruner.input.readers import DATA_SUFFIXES, PACKED_SUFFIXES, Files
from datapruner.input.readers import Dataset as HubDataset
from datapruner.input.shapes import Limits
from datapruner.progress import Progress
from datapruner.schemas.datasets import HubSource, PathSource, Source, UploadSource, UrlSource
from datapruner.service import memory, queue
from datapruner.service.allowed_sources import allowed_path, allowed_url, check_source
from datapruner.service.context import Context

_SOURCE: TypeAdapter[Source] = TypeAdapter(Source)


def bring_in(
    context: Context, lease: queue.Lease, payload: dict[str, Any], scratch: Path, progress: Progress
) -> tuple[Version, int]:
    """The version that the job's source gives, published; and how many rows it brought.

    When an addition brings nothing new, that is the latest version and 0. Raises DataprunerError and
    LeaseLostError.
    """
    with context.db.read() as session:
        dataset = session.get_one(Dataset, payload["dataset_id"])
        done = datasets.of_job(session, lease.job_id)
        project = session.get_one(Project, dataset.project_id)
        room = None
        # What is read again is mostly known; its new rows are counted before they are added.
        if project.quota_rows is not None and payload["mode"] != "append_new":
            room = max(0, project.quota_rows - projects.usage(session, project.id).rows)
    if done is not None:
        return done, done.new_rows
    source = _SOURCE.validate_python(payload["source"])
    rows = _rows(context, dataset.project_id, source, scratch, progress)
    progress.stage("ingesting", None, "bytes")
    raw = scratch / "addition.duckdb"
    with memory.bounded(context.settings.ingest_memory_bytes + _size(rows)):
        report = ingest(
            rows,
            out=raw,
            mapping=dataset.mapping,
            limits=Limits(max_turns=context.settings.max_turns, max_row_bytes=context.settings.max_row_bytes),
            max_rows=room,
            progress=lambda rows, done, total: progress.at(done, total, f"{rows:,} rows"),
        )
    progress.note(report.understood())
    for name, where in report.truncated_sources.items():
        progress.note(f"{name} is truncated, {where}")
    while True:
        with context.db.read() as session:
            base = datasets.latest(session, dataset.id)
        whole, new_rows = raw, report.rows
        if base is not None:
            progress.stage("adding to the latest version", None, "rows")
            whole = scratch / "merged.duckdb"
            only_new = payload["mode"] == "append_new"
            added = append(context.storage.local(base.key), raw, whole, only_new=only_new)
            if not added.new_rows:
                progress.note(f"nothing new: all {added.known_rows:,} rows are in version {base.number}")
                return base, 0
            progress.note(f"{added.new_rows:,} new rows, {added.known_rows:,} known ones left out")
            new_rows = added.new_rows
        published = _publish(context, lease, dataset, whole, new_rows, base=base)
        if published is not None:
            return published, new_rows


def _size(rows: Any) -> int:
    """Bytes of files, which may be mapped into memory while they are read."""
    return sum(path.stat().st_size for path, _ in rows.files) if isinstance(rows, Files) else 0


def _publish(
    context: Context, lease: queue.Lease, dataset: Dataset, path: Path, new_rows: int, base: Version | None
) -> Version | None:
    """Store the corpus file, then its row.

    None when another version came after `base` meanwhile: then the file is at `path` again, to be built upon.
    """
    with Corpus(path) as corpus:
        provenance, rejects, truncated = corpus.provenance, corpus.rejects(), corpus.truncated_sources()
    version_id = new_id("ver")
    key = f"projects/{dataset.project_id}/corpora/{dataset.id}/{version_id}/{store.corpus_name(path)}.duckdb"
    size = path.stat().st_size
    counted = dict(rejects["code"].value_counts(sort=True).iter_rows())
    with context.db.read() as session:
        projects.check_quota(session, dataset.project_id, rows=provenance.counts.rows, bytes=size)
    context.storage.publish(path, key)
    with context.db.write() as session:
        queue.guard(session, lease)
        current = session.get_one(Dataset, dataset.id, with_for_update=True)
        latest = datasets.latest(session, dataset.id)
        if (latest and latest.id) == (base and base.id):
            projects.check_quota(session, dataset.project_id, rows=provenance.counts.rows, bytes=size)
            version = Version(
                id=version_id,
                dataset_id=dataset.id,
                number=current.next_version,
                job_id=lease.job_id,
                key=key,
                corpus_hash=provenance.corpus_hash,
                new_rows=new_rows,
                bytes=size,
                report={
                    "shapes": provenance.shapes,
                    "columns": provenance.columns,
                    "rejects": counted,
                    "sources": provenance.sources,
                    "truncated_sources": truncated,
                },
                **asdict(provenance.counts),
            )
            session.add(version)
            current.next_version += 1
            return version
    shutil.copyfile(context.storage.local(key), path)
    context.storage.delete(key)
    return None


def _rows(context: Context, project_id: str, source: Source, scratch: Path, progress: Progress) -> Any:
    """What `ingest` reads. What a request was allowed to name is checked again."""
    limit = context.settings.max_unpacked_bytes
    check_source(context.settings, source)
    match source:
        case UploadSource():
            with context.db.read() as session:
                upload = uploads.find(session, project_id, source.upload_id)
            return Files([(context.storage.local(upload.key), upload.name)], limit)
        case HubSource():
            if Path(source.name).exists():
                raise DeniedError(f"{source.name}: a path here, not a name on the Hub", field="source.name")
            return HubDataset(source.name, source.config, source.split)
        case PathSource():
            return Files(_named(allowed_path(context.settings, source.path)), limit)
        case UrlSource():
            url = allowed_url(context.settings, source.url)
            return Files(_fetched(url, scratch / "objects", limit, progress), limit)


def _named(found: list[Path]) -> list[tuple[Path, str]]:
    """Data files below the given files and folders, with names relative to what was given."""
    files: dict[Path, str] = {}
    for item in found:
        if item.is_file():
            files[item] = item.name
            continue
        for path in sorted(item.rglob("*")):
            relative = path.relative_to(item)
            if path.is_file() and _is_data(path.name) and not any(p.startswith(".") for p in relative.parts):
                files[path] = relative.as_posix()
    if not files:
        raise InputError(
            "there are no data files", remedy=f"looked for {', '.join(sorted(DATA_SUFFIXES))}", field="source"
        )
    # Names need not be UTF-8 on a disk; in messages and documents they have to be.
    return [(path, os.fsencode(name).decode(errors="replace")) for path, name in files.items()]


def _is_data(name: str) -> bool:
    suffixes = Path(name.lower()).suffixes
    if suffixes and suffixes[-1] in PACKED_SUFFIXES:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in DATA_SUFFIXES


def _fetched(url: str, folder: Path, limit: int, progress: Progress) -> list[tuple[Path, str]]:
    """The data files at `url`, an object or a prefix, copied to `folder` under names of our own.

    Raises InputError when there are none, they may not be read or have more than `limit` bytes together,
    StorageError when the store fails.
    """
    folder.mkdir()
    progress.stage("fetching", None, "files")
    with _asking(url):
        files, root = fsspec.core.url_to_fs(url)
        files.invalidate_cache()
        below = f"{root.rstrip('/')}/"  # an HTTP server may list what lies elsewhere
        remote = {
            name: about.get("size") or 0
            for name, about in sorted(files.find(root, detail=True).items())
            if name == root or (name.startswith(below) and _is_data(posixpath.basename(name)))
        }
    if not remote:
        raise InputError(
            f"{url}: there are no data files", remedy="give an object, or a prefix of data files"
        )
    if (total := sum(remote.values())) > limit:
        raise InputError(f"{url}: {total:,} bytes, at most {limit:,} are read", remedy="split it")
    fetched = []
    for number, name in enumerate(remote):
        progress.at(number, len(remote))
        local = folder / f"{number:06}"
        with _asking(url):
            files.get_file(name, str(local))
        shown = posixpath.basename(name) if name == root else posixpath.relpath(name, root)
        fetched.append((local, shown))
    return fetched


@contextmanager
def _asking(url: str) -> Iterator[None]:
    """What an object store says, as an error that is final or one that may pass."""
    try:
        yield
    except (FileNotFoundError, PermissionError, ValueError, ImportError) as error:
        raise InputError(
            f"{url}: cannot be read: {error}", remedy="check the URL and the service's credentials"
        ) from error
    except Exception as error:  # each store's client has exceptions of its own
        raise StorageError(f"{url}: cannot be read: {error}", remedy="try again later") from error
