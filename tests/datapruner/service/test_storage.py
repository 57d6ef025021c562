"""Both kinds of storage by the same tests: a folder, and a real S3 server."""

from __future__ import annotations

import hashlib
import os
import random
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from datapruner.catalog.models import utcnow
from datapruner.errors import StorageError
from datapruner.service.storage import CACHE_SECONDS, FolderStorage, Storage, open_storage
from tests.disks import Disk

Opened = Callable[[str], Storage]
"""The storage as the machine of that name sees it: each has a cache of its own."""

PUBLISHER = """
import sys
from pathlib import Path
from datapruner.service.storage import open_storage

url, cache, folder = sys.argv[1:]
storage = open_storage(url, Path(cache))
for number in range(1000):
    path = Path(folder, str(number))
    path.write_bytes(bytes([number % 256]) * 3_000_000)
    storage.publish(path, f"a/{number}")
    print(number, flush=True)
"""


@pytest.fixture(params=["folder", "s3"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    if request.param == "folder":
        return lambda machine: open_storage(str(tmp_path / "files"), tmp_path / machine)
    url = request.getfixturevalue("s3_url")
    return lambda machine: open_storage(url, tmp_path / machine)


@pytest.fixture
def storage(opened: Opened) -> Storage:
    return opened("here")


@pytest.fixture
def made(tmp_path: Path) -> Callable[[bytes], Path]:
    """A finished local file with this content."""

    def make(content: bytes) -> Path:
        folder = tmp_path / "work"
        folder.mkdir(exist_ok=True)
        path = folder / f"{secrets.token_hex(4)}.part"
        path.write_bytes(content)
        return path

    return make


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder in another file system, where the system has one in memory."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def keys(storage: Storage, prefix: str) -> list[str]:
    return [stored.key for stored in storage.listing(prefix)]


class TestPublishing:
    def test_a_published_file_is_read_here_and_on_other_machines(self, opened, made):
        size = opened("here").publish(made(b"whole"), "projects/p/runs/r/1/run.duckdb")
        assert size == 5
        for machine in ("here", "there"):
            path = opened(machine).local("projects/p/runs/r/1/run.duckdb")
            assert path.read_bytes() == b"whole"

    def test_the_local_file_is_moved_not_copied(self, storage, made):
        path = made(b"whole")
        storage.publish(path, "a/b")
        assert not path.exists()

    def test_an_empty_file_can_be_published(self, opened, made):
        assert opened("here").publish(made(b""), "a/empty") == 0
        assert opened("there").local("a/empty").read_bytes() == b""

    def test_a_file_larger_than_a_part_of_an_upload_arrives_whole(self, opened, made):
        content = hashlib.shake_128(b"seed").digest(6 << 20)
        opened("here").publish(made(content), "a/large")
        assert opened("there").local("a/large").read_bytes() == content

    def test_a_file_that_was_never_published_is_said_to_be_gone(self, storage):
        with pytest.raises(StorageError, match=r"a/missing: the file is gone from storage"):
            storage.local("a/missing")

    def test_a_work_file_that_is_missing_publishes_nothing(self, storage, tmp_path):
        with pytest.raises(StorageError, match="a/b: cannot be stored: No such file"):
            storage.publish(tmp_path / "missing", "a/b")
        assert keys(storage, "a") == []

    def test_publishing_from_another_file_system_moves_the_file_too(self, opened, small_disk: Disk):
        path = small_disk.path / "made"
        path.write_bytes(b"whole")
        opened("here").publish(path, "a/b")
        assert not path.exists()
        assert opened("here").local("a/b").read_bytes() == b"whole"
        assert opened("there").local("a/b").read_bytes() == b"whole"

    @pytest.mark.parametrize(
        "key",
        [
            "a/with space/x y.parquet",
            "a/100%41+plus/x.parquet",
            "a/[0-9]/*?.parquet",
            "a/#hash?query=1&b=2/x.parquet",
            "a/Größe/日本語🙂.parquet",
            "a/quote'\"back\\slash/$HOME;x.parquet",
        ],
    )
    def test_keys_with_odd_characters_go_all_the_way(self, opened, made, key):
        storage, other = opened("here"), opened("there")
        storage.publish(made(b"odd"), key)
        storage.publish(made(b"plain"), "a/0/plain.parquet")
        assert sorted(keys(other, "a")) == sorted([key, "a/0/plain.parquet"])
        assert other.local(key).read_bytes() == b"odd"
        other.delete(key)
        assert keys(storage, "a") == ["a/0/plain.parquet"]

    @pytest.mark.parametrize("key", ["", "/etc/passwd", "a/../b", "./a", "a//b", "a/", ".hidden", "a/.b"])
    def test_keys_that_are_not_ours_are_refused(self, storage, made, key):
        with pytest.raises(AssertionError):
            storage.publish(made(b"x"), key)


class TestListing:
    def test_files_come_by_key_with_their_time(self, storage, made):
        for key in ("a/b/2", "a/b-c/1", "a/b/1", "ab/1"):
            storage.publish(made(key.encode()), key)
        found = list(storage.listing("a"))
        assert [stored.key for stored in found] == ["a/b-c/1", "a/b/1", "a/b/2"]
        assert all(abs(stored.modified - utcnow()) < timedelta(minutes=10) for stored in found)

    def test_what_is_not_there_lists_as_nothing(self, storage, made):
        storage.publish(made(b"x"), "a/file")
        assert keys(storage, "missing") == []
        assert keys(storage, "a/file") == []

    def test_a_store_lists_more_files_than_one_answer_holds(self, s3_url, tmp_path):
        from moto.backends import get_backend
        from moto.core import DEFAULT_ACCOUNT_ID

        bucket = s3_url.removeprefix("s3://").split("/")[0]
        backend = get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]  # in this process: quicker than 1001 uploads
        for number in range(1001):
            backend.put_object(bucket, f"some/prefix/many/{number:04}", b"x")
        storage = open_storage(s3_url, tmp_path)
        assert keys(storage, "many") == [f"many/{number:04}" for number in range(1001)]

    def test_listing_sees_what_another_machine_has_published_since(self, opened, made):
        here, there = opened("here"), opened("there")
        here.publish(made(b"1"), "a/1")
        assert keys(there, "a") == ["a/1"]
        here.publish(made(b"2"), "a/2")
        assert keys(there, "a") == ["a/1", "a/2"]


class TestDeleting:
    def test_a_folder_goes_with_all_that_is_in_it_and_nothing_else(self, opened, made):
        here, there = opened("here"), opened("there")
        for key in (
            "runs/run_1/1/run.duckdb",
            "runs/run_1/1/run.json",
            "runs/run_10/1/run.json",
            "runs/run_2",
        ):
            here.publish(made(b"x"), key)
        assert len(keys(there, "runs")) == 4  # what was listed before must not be believed later
        here.publish(made(b"x"), "runs/run_1/2/run.json")
        there.delete("runs/run_1")
        assert keys(here, "runs") == ["runs/run_10/1/run.json", "runs/run_2"]

    def test_a_deleted_file_is_gone_for_the_machine_that_deleted_it(self, storage, made):
        storage.publish(made(b"x"), "a/b")
        storage.delete("a/b")
        with pytest.raises(StorageError, match="gone"):
            storage.local("a/b")

    def test_deleting_what_is_not_there_is_no_error(self, storage, made):
        storage.publish(made(b"x"), "a/b")
        storage.delete("missing")
        storage.delete("a/b/c")
        assert keys(storage, "a") == ["a/b"]

    def test_two_machines_may_delete_the_same_folder_at_once(self, opened, made):
        storage = opened("here")
        for number in range(14):
            storage.publish(made(b"x"), f"a/{number % 7}/{number}")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda machine: opened(machine).delete("a"), "wxyz"))
        assert keys(storage, "a") == []


class TestConcurrency:
    def test_readers_see_nothing_or_the_whole_file(self, opened, made):
        content = hashlib.shake_128(b"seed").digest(1 << 20)
        seen: list[bytes] = []
        done = threading.Event()

        def read(machine: str) -> None:
            while True:
                last = done.is_set()
                try:
                    seen.append(opened(machine).local("a/file").read_bytes())
                except StorageError:
                    assert not last
                if last:
                    return

        readers = [threading.Thread(target=read, args=(machine,)) for machine in "xxy"]
        for reader in readers:
            reader.start()
        opened("here").publish(made(content), "a/file")
        done.set()
        for reader in readers:
            reader.join()
        assert len(seen) >= 3
        assert set(seen) == {content}

    def test_publishing_the_same_key_at_once_leaves_one_whole_file(self, opened, storage, made):
        contents = [bytes([letter]) * 300_000 for letter in b"abcd"]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda content: opened("w").publish(made(content), "a/b"), contents))
        assert opened("there").local("a/b").read_bytes() in contents
        assert keys(storage, "a") == ["a/b"]

    @pytest.mark.slow
    def test_a_publisher_that_is_killed_leaves_whole_files_only(self, opened, storage, elsewhere, tmp_path):
        url = str(storage.root) if isinstance(storage, FolderStorage) else f"s3://{storage._root}"
        command = [sys.executable, "-c", PUBLISHER, url, str(tmp_path / "w"), str(elsewhere)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(3):
                process.stdout.readline()
            time.sleep(random.uniform(0, 0.03))
            process.kill()
        there = opened("there")
        found = keys(there, "a")
        assert len(found) >= 3
        assert all(len(set(there.local(key).read_bytes())) == 1 for key in found)
        assert {there.local(key).stat().st_size for key in found} == {3_000_000}


class TestAppendOnlyFolders:
    def test_what_one_machine_pushes_another_pulls(self, opened):
        here, there = opened("here"), opened("there")
        folder = here.folder("signals/key")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "1.parquet").write_bytes(b"one")
        (folder / ".2.parquet.part").write_bytes(b"unfinished")
        (folder / ".tasks").mkdir()
        (folder / ".tasks" / "3.parquet").write_bytes(b"of a measuring that goes on")
        here.push("signals/key")
        there.pull("signals/key")
        assert (there.folder("signals/key") / "1.parquet").read_bytes() == b"one"
        assert keys(there, "signals/key") == ["signals/key/1.parquet"]

    def test_both_may_push_and_nothing_is_lost(self, opened):
        machines = [opened("here"), opened("there")]
        for number, machine in enumerate(machines):
            folder = machine.folder("signals/key")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.parquet").write_bytes(b"x")
            machine.push("signals/key")
        for machine in machines:
            machine.pull("signals/key")
            found = machine.folder("signals/key").iterdir()
            assert sorted(path.name for path in found) == ["0.parquet", "1.parquet"]

    def test_pulling_and_pushing_nothing_does_nothing(self, storage):
        storage.pull("signals/none")
        storage.push("signals/none")
        assert keys(storage, "signals") == []


class TestCache:
    def test_a_copy_serves_while_the_store_cannot_be_reached(self, s3_url, tmp_path, made):
        storage = open_storage(s3_url, tmp_path / "there")
        open_storage(s3_url, tmp_path / "here").publish(made(b"x"), "a/b")
        first = storage.local("a/b")
        open_storage(s3_url, tmp_path / "here").delete("a/b")
        assert storage.local("a/b") == first
        assert first.read_bytes() == b"x"

    def test_copies_that_nobody_asked_for_in_a_week_are_dropped(self, s3_url, tmp_path, made):
        here = open_storage(s3_url, tmp_path / "here")
        for name in ("old", "used", "new"):
            here.publish(made(b"x"), f"a/{name}")
        cached = {name: open_storage(s3_url, tmp_path / "c").local(f"a/{name}") for name in ("old", "used")}
        long_ago = time.time() - CACHE_SECONDS - 60
        for path in cached.values():
            os.utime(path, (long_ago, long_ago))
        there = open_storage(s3_url, tmp_path / "c")
        there.local("a/used")
        there.local("a/new")
        assert not cached["old"].exists()
        assert cached["used"].exists()
        assert there.local("a/old").read_bytes() == b"x"

    def test_a_cache_that_is_too_large_loses_what_was_not_asked_for_in_hours_the_oldest_first(
        self, s3_url, tmp_path, made
    ):
        here = open_storage(s3_url, tmp_path / "here")
        for number in range(6):
            here.publish(made(bytes(100)), f"a/{number}")
        there = open_storage(s3_url, tmp_path / "c", cache_bytes=450)
        hours = {0: 20, 1: 40, 2: 30, 3: 1, 4: 1}
        cached = {number: there.local(f"a/{number}") for number in hours}
        for number, path in cached.items():
            ago = time.time() - hours[number] * 3600
            os.utime(path, (ago, ago))
        there.push("a")  # as a job does while it works: it still needs them
        assert [path.exists() for path in cached.values()] == [True] * 5
        for number in (0, 1, 2):
            ago = time.time() - hours[number] * 3600
            os.utime(cached[number], (ago, ago))
        there.local("a/5")
        assert [path.exists() for path in cached.values()] == [True, False, False, True, True]
        open_storage(s3_url, tmp_path / "c", cache_bytes=0).local("a/1")
        assert [path.exists() for path in cached.values()] == [False, True, False, True, True]

    def test_a_download_into_a_full_cache_fails_and_leaves_no_torn_copy(
        self, s3_url, tmp_path, made, small_disk
    ):
        open_storage(s3_url, tmp_path / "here").publish(made(bytes(100_000)), "a/b")
        storage = open_storage(s3_url, small_disk.path / "cache")
        small_disk.fill()
        with pytest.raises(StorageError, match="No space left on device"):
            storage.local("a/b")
        small_disk.relieve()
        assert storage.local("a/b").read_bytes() == bytes(100_000)

    def test_publishing_succeeds_although_the_cache_is_full(self, s3_url, tmp_path, made, small_disk):
        storage = open_storage(s3_url, small_disk.path / "cache")
        small_disk.fill()
        path = made(bytes(100_000))
        storage.publish(path, "a/b")
        assert not path.exists()
        assert open_storage(s3_url, tmp_path / "there").local("a/b").read_bytes() == bytes(100_000)


class TestRefusals:
    def test_a_storage_that_works_passes_the_check_and_keeps_no_trace_of_it(self, storage, made):
        storage.check()
        storage.publish(made(b"x"), "a/b")
        assert keys(storage, "a") == ["a/b"]

    def test_a_full_disk_is_a_clear_refusal_with_nothing_half_published(self, small_disk: Disk, made):
        storage = open_storage(str(small_disk.path), small_disk.path)
        small_disk.fill()
        path = made(bytes(10_000))
        with pytest.raises(StorageError, match="a/b: cannot be stored: No space left on device"):
            storage.publish(path, "a/b")
        with pytest.raises(StorageError, match="No space left on device"):
            storage.check()
        assert path.exists()
        assert keys(storage, "a") == []
        assert [p.name for p in small_disk.path.rglob(".*")] == []
        small_disk.relieve()
        storage.publish(path, "a/b")
        storage.check()

    def test_a_read_only_disk_still_reads(self, small_disk: Disk, made):
        storage = open_storage(str(small_disk.path), small_disk.path)
        storage.publish(made(b"x"), "a/b")
        small_disk.protect()
        path = made(b"y")
        for refused in (
            lambda: storage.publish(path, "a/c"),
            lambda: storage.publish(path, "new/c"),
            lambda: storage.delete("a/b"),
            storage.check,
        ):
            with pytest.raises(StorageError, match="Read-only file system"):
                refused()
        assert path.exists()
        assert storage.local("a/b").read_bytes() == b"x"
        assert keys(storage, "a") == ["a/b"]

    def test_a_file_where_the_folder_should_be_is_refused(self, tmp_path, made):
        (tmp_path / "files").write_bytes(b"")
        storage = open_storage(str(tmp_path / "files"), tmp_path)
        with pytest.raises(StorageError, match=r"Not a directory|File exists"):
            storage.check()
        with pytest.raises(StorageError, match=r"Not a directory|File exists"):
            storage.publish(made(b"x"), "a/b")

    def test_a_bucket_that_does_not_exist_is_named(self, s3_server, tmp_path, made):
        storage = open_storage("s3://no-such-bucket/prefix", tmp_path)
        for refused in (
            storage.check,
            lambda: storage.publish(made(b"x"), "a/b"),
            lambda: keys(storage, "a"),
            lambda: storage.delete("a"),
        ):
            with pytest.raises(StorageError, match=r"bucket does not exist \(check that no-such-bucket"):
                refused()

    @pytest.mark.slow
    def test_a_store_that_does_not_answer_is_a_refusal(self, monkeypatch, tmp_path, s3_url):
        import s3fs

        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
            monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
            s3fs.S3FileSystem.clear_instance_cache()
            with pytest.raises(StorageError, match="cannot be written: Could not connect"):
                open_storage(s3_url, tmp_path).check()
        s3fs.S3FileSystem.clear_instance_cache()


class TestOpening:
    def test_a_path_and_a_file_url_are_folders(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        wanted = tmp_path / "some files"
        for url in (str(wanted), "some files", f"file://{tmp_path}/some%20files"):
            storage = open_storage(url, tmp_path)
            assert isinstance(storage, FolderStorage)
            assert storage.root == wanted

    @pytest.mark.parametrize(
        ("url", "message"), [("s3://", "names no bucket"), ("ftps3://x/y", "Protocol not known: ftps3")]
    )
    def test_a_url_that_leads_nowhere_is_refused(self, url, message, tmp_path):
        with pytest.raises(StorageError, match=message):
            open_storage(url, tmp_path)


def test_a_password_in_the_url_is_refused_and_not_quoted(tmp_path: Path) -> None:
    for url in ("s3://AKIA:hidden-words@bucket/prefix", "sftp://me:hidden-words@host/folder"):
        with pytest.raises(StorageError, match="has a password in it") as refused:
            open_storage(url, tmp_path)
        assert "hidden-words" not in str(refused.value)


def test_a_folder_that_was_deleted_is_flushed_with_its_parents_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    real = os.fsync

    def noting(handle: int) -> None:
        flushed.append(os.fstat(handle).st_ino)
        real(handle)

    monkeypatch.setattr(os, "fsync", noting)
    store = open_storage(str(tmp_path / "files"), tmp_path / "cache")
    for times in ("first", "second", "after a deletion"):
        (tmp_path / "file").write_text(times)
        if times == "after a deletion":
            store.delete("a/b")
        flushed.clear()
        store.publish(tmp_path / "file", "a/b/file")
        inodes = {name: (tmp_path / "files" / name).stat().st_ino for name in ("", "a", "a/b", "a/b/file")}
        seen = {name for name, inode in inodes.items() if inode in flushed}
        assert (
            seen
            == {
                "first": {"", "a", "a/b", "a/b/file"},
                "second": {"a/b", "a/b/file"},
                "after a deletion": {"", "a", "a/b", "a/b/file"},
            }[times]
        )
