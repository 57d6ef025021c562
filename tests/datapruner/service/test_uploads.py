"""From a stream to a file in storage with its row, or to nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from datapruner.catalog import migrations
from datapruner.catalog.database import Database
from datapruner.catalog.models import Project, Upload
from datapruner.errors import ConflictError, QuotaError, StorageError, UsageError
from datapruner.service.storage import FolderStorage
from datapruner.service.uploads import Incoming, inline, receive, shown_name, transaction


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "files")


@pytest.fixture
def db(sqlite_url: str) -> Iterator[Database]:
    migrations.upgrade(sqlite_url)
    db = Database(sqlite_url)
    with db.write() as session:
        session.add(Project(id="prj", name="small", quota_bytes=100, quota_rows=5))
    yield db
    db.close()


def _files(storage: FolderStorage) -> list[Path]:
    return [path for path in storage.root.rglob("*") if path.is_file()]


def test_a_stream_is_counted_and_hashed_into_one_file(storage: FolderStorage) -> None:
    digest = hashlib.sha256(b"one two").hexdigest()
    upload = receive(storage, "prj", Incoming("f", 7, iter([b"one ", b"two"]), sha256=digest))
    assert (upload.bytes, upload.sha256, upload.name) == (7, digest, "f")
    assert storage.local(upload.key).read_bytes() == b"one two"
    assert _files(storage) == [storage.local(upload.key)]


def test_a_stream_that_is_not_what_was_announced_leaves_nothing(storage: FolderStorage) -> None:
    with pytest.raises(UsageError, match="SHA-256"):
        receive(storage, "prj", Incoming("f", 3, [b"one"], sha256="0" * 64))
    assert _files(storage) == []


def test_a_stream_that_breaks_leaves_nothing(storage: FolderStorage) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"one"
        raise OSError("gone")

    with pytest.raises(StorageError, match="gone"):
        receive(storage, "prj", Incoming("f", 3, chunks()))
    assert _files(storage) == []


def test_storage_that_takes_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "files").write_text("in the way")
    with pytest.raises(StorageError, match="f: cannot be stored"):
        receive(FolderStorage(tmp_path / "files"), "prj", Incoming("f", 3, [b"one"]))


def test_the_row_comes_with_the_file(db: Database, storage: FolderStorage) -> None:
    with transaction(db, storage, "prj", inline([{"a": 2**70}, {"a": "ü"}])) as (_, upload):
        assert upload is not None
    with db.read() as session:
        assert session.scalars(select(Upload.id)).all() == [upload.id]
    expected = '{"a":1180591620717411303424}\n{"a":"ü"}\n'
    assert storage.local(upload.key).read_text(encoding="utf-8") == expected


def test_a_transaction_that_is_refused_leaves_no_file(db: Database, storage: FolderStorage) -> None:
    with pytest.raises(ConflictError), transaction(db, storage, "prj", inline([{"a": 1}])):
        raise ConflictError("taken")
    with db.read() as session:
        assert session.scalars(select(Upload)).all() == []
    assert _files(storage) == []


def test_after_an_error_of_unknown_outcome_the_file_is_left_to_the_sweep(
    db: Database, storage: FolderStorage
) -> None:
    with pytest.raises(RuntimeError), transaction(db, storage, "prj", inline([{"a": 1}])):
        raise RuntimeError("the connection broke during the commit")
    assert len(_files(storage)) == 1


@pytest.mark.parametrize(
    "incoming", [inline([{}] * 6), Incoming("f", 101, [b"x" * 101]), Incoming("f", 1, [b"x" * 101])]
)
def test_a_project_takes_what_its_quota_has_room_for(
    db: Database, storage: FolderStorage, incoming: Incoming
) -> None:
    with pytest.raises(QuotaError), transaction(db, storage, "prj", incoming):
        pass
    assert not storage.root.exists() or _files(storage) == []


@pytest.mark.parametrize(
    ("filename", "shown"),
    [
        ("rows.jsonl", "rows.jsonl"),
        ("../../etc/passwd", "passwd"),
        ("C:\\data\\rows.csv", "rows.csv"),
        ("a\x1b[31m\u202e\u200b\x00b.csv", "a[31mb.csv"),
        ("../..", ".."),
        ("/", "upload"),
        ("", "upload"),
        (None, "upload"),
        ("x" * 300 + ".jsonl.gz", "x" * 191 + ".jsonl.gz"),
    ],
)
def test_names_are_for_messages(filename: str | None, shown: str) -> None:
    assert shown_name(filename) == shown
