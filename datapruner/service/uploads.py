"""From a stream of bytes to a file in storage, counted and hashed on the way.

The row that makes it an upload is the caller's to add, in the transaction that says what it is for: until
then the file does not exist for anybody, and the sweep removes it.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from datapruner.catalog.database import Database
from datapruner.catalog.models import Upload, new_id
from datapruner.catalog.projects import check_quota
from datapruner.errors import DataprunerError, StorageError, UsageError
from datapruner.service.storage import Storage

_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Incoming:
    """Data that came with a request. `chunks` can be read once; `sha256` is the sender's word, in hex."""

    name: str
    size: int
    chunks: Iterable[bytes]
    rows: int | None = None
    """How many, where that is known before they are parsed."""
    sha256: str | None = None


def receive(storage: Storage, project_id: str, incoming: Incoming) -> Upload:
    """Store the data; its upload, which is in no session yet.

    Raises UsageError when the data is not what its digest says, StorageError when it cannot be stored; then
    nothing is left of it.
    """
    upload_id = new_id("upl")
    folder = f"projects/{project_id}/uploads"
    part = storage.folder(folder) / f"{upload_id}.part"
    digest = hashlib.sha256()
    size = 0
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            for chunk in incoming.chunks:
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        if incoming.sha256 is not None and incoming.sha256 != digest.hexdigest():
            raise UsageError(
                f"{incoming.name}: the {size:,} bytes that came have the SHA-256 {digest.hexdigest()}, "
                f"not {incoming.sha256}",
                remedy="send the file again",
                field="sha256",
            )
        storage.publish(part, f"{folder}/{upload_id}")
    except OSError as error:
        raise StorageError(
            f"{incoming.name}: cannot be stored: {error.strerror or error}",
            remedy="free or enlarge the storage, or check its permissions",
        ) from error
    finally:
        with suppress(OSError):  # published, or not even begun
            part.unlink()
    return Upload(
        id=upload_id,
        project_id=project_id,
        key=f"{folder}/{upload_id}",
        name=incoming.name,
        bytes=size,
        sha256=digest.hexdigest(),
    )


def inline(rows: Sequence[Mapping[str, Any]]) -> Incoming:
    """Rows that stood in a request, as JSON lines."""
    # By the standard library: orjson refuses integers of more than 64 bits, which JSON allows.
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for row in rows]
    return Incoming("rows", sum(map(len, lines)), lines, rows=len(rows))


@contextmanager
def transaction(
    db: Database, storage: Storage, project_id: str, incoming: Incoming | None
) -> Iterator[tuple[Session, Upload | None]]:
    """A write transaction for what adds rows to a project; the data, if there is any, is stored before.

    Raises QuotaError when the project is full, and what `receive` raises.
    """
    rows, size = (1, 0) if incoming is None else (incoming.rows or 1, incoming.size)
    with db.read() as session:
        check_quota(session, project_id, rows=rows, bytes=size)
    upload = None if incoming is None else receive(storage, project_id, incoming)
    try:
        with db.write() as session:
            if upload is not None:
                check_quota(session, project_id, rows=rows, bytes=upload.bytes)
                session.add(upload)
                session.flush()
            yield session, upload
    except DataprunerError:  # for certain not committed; after any other error it is the sweep that knows
        if upload is not None:
            storage.delete(upload.key)
        raise


def shown_name(filename: str | None) -> str:
    """What messages call an uploaded file: its base name, without control characters."""
    base = (filename or "").replace("\\", "/").rsplit("/", 1)[-1]
    clean = "".join(c for c in base if unicodedata.category(c)[0] != "C").strip()
    return clean[-_LONGEST_NAME:] or "upload"
