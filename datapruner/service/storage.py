"""Where published files live: a folder or an object store (`s3://bucket/prefix`), behind one interface.

Keys are relative POSIX paths that we make ourselves. A file appears under its key whole or not at all, and
never changes afterwards, so a copy of it in the local cache is good for ever.

Notable choices:
- in a folder, publishing is a rename in the same file system, flushed to disk with the folder's entry; in an
  object store, one upload, which stores show only once it is complete;
- DuckDB and pyarrow read local files only, so that one code path serves both: `local` fetches when it must;
- copies that nobody asked for in a week leave the cache: nothing else would, as files are deleted from
  storage by other machines. Where they take more than they may, those that nobody asked for lately go first;
  what was asked for within hours stays, as a job may be reading it;
- objects are deleted by a request each, several at a time: fsspec's recursive removal takes a key with `*`
  or `[` for a pattern, and a bulk delete does not say what it left behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import unquote

import fsspec

from datapruner.errors import StorageError
from datapruner.system.files import clear_unfinished, unfinished

CACHE_BYTES = 100 << 30
CACHE_SECONDS = 7 * 24 * 3600.0
"""How long a copy stays in the cache after it was last asked for."""
SPARED_SECONDS = 6 * 3600.0
"""How long a copy stays however large the cache is. Jobs ask again for what they go on reading."""
_ASKED_AGAIN_SECONDS = 600.0
_SWEEP_SECONDS = 3600.0
_SWEEP_SHARE = 0.1
"""Of what the cache may take: when so much was added, it is looked at sooner."""
_REQUESTS = 16
"""At the same time, when many files are concerned."""
_REMEDY = "free or enlarge the storage, or check its permissions"
_REMEMBERED = 1_000  # folders
_GONE = "restore it, or run again"


@dataclass(frozen=True, slots=True)
class Stored:
    """A file in storage. `modified` is UTC, without a zone; `size` in bytes."""

    key: str
    modified: datetime
    size: int


class Storage(Protocol):
    """Published files by key. Every method raises StorageError when the storage refuses."""

    def local(self, key: str) -> Path:
        """A file of this machine with the content of `key`; not to be changed."""
        ...

    def publish(self, path: Path, key: str) -> int:
        """Move the finished local file `path` to `key`; its size in bytes."""
        ...

    def listing(self, prefix: str) -> Iterator[Stored]:
        """Every file whose key is below the folder `prefix`, by key."""
        ...

    def delete(self, key: str) -> None:
        """Remove a file or a folder of files; nothing happens when there is none."""
        ...

    def clear(self, prefix: str) -> None:
        """Remove what killed processes left unfinished below the folder `prefix` on this machine."""
        ...

    def check(self) -> None:
        """Raise StorageError unless a file can be written now."""
        ...

    def folder(self, prefix: str) -> Path:
        """A folder of this machine for the append-only files below `prefix`, such as signals."""
        ...

    def pull(self, prefix: str) -> None:
        """Fetch what `folder(prefix)` lacks."""
        ...

    def push(self, prefix: str) -> None:
        """Send what storage lacks of `folder(prefix)`."""
        ...


def open_storage(url: str, cache: Path, cache_bytes: int = CACHE_BYTES) -> Storage:
    """The storage at a path or URL. `cache` is a local folder for copies of remote files, which take no more
    than `cache_bytes`.

    An object store's address and credentials come from the environment, as its client reads them
    (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, …). Raises StorageError for a URL that no installed package knows.
    """
    if url.startswith("file://"):
        return FolderStorage(Path(unquote(url.removeprefix("file://"))))
    if "://" not in url:
        return FolderStorage(Path(url))
    return ObjectStorage(url, cache, cache_bytes)


class FolderStorage:
    """Files below one folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self._flushed: dict[Path, int] = {}
        """Inodes of folders whose entries in those above them are on the disk for good."""

    def local(self, key: str) -> Path:
        path = self._path(key)
        with _refusing(f"{key}: cannot be read"):
            if not path.is_file():
                raise StorageError(f"{key}: the file is gone from storage", remedy=_GONE)
        return path

    def publish(self, path: Path, key: str) -> int:
        target = self._path(key)
        with _refusing(f"{key}: cannot be stored"):
            size = path.stat().st_size
            _flush(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            _move(path, target)
            _flush(target.parent)
            # Each new folder is an entry of the one above it, which a power cut could lose as well.
            for folder in [*target.parents][: len(target.relative_to(self.root).parts) - 1]:
                inode = folder.stat().st_ino
                if self._flushed.get(folder) != inode:
                    _flush(folder.parent)
                    self._flushed[folder] = inode
            if len(self._flushed) > _REMEMBERED:
                self._flushed.clear()
        return size

    def listing(self, prefix: str) -> Iterator[Stored]:
        found: list[Stored] = []
        with _refusing(f"{prefix}: cannot be listed"):
            for path in _finished(self._path(prefix)):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    about = path.stat()
                    modified = datetime.fromtimestamp(about.st_mtime, UTC).replace(tzinfo=None)
                    key = path.relative_to(self.root).as_posix()
                    found.append(Stored(key, modified, about.st_size))
        yield from sorted(found, key=lambda stored: stored.key)

    def delete(self, key: str) -> None:
        self._flushed.clear()  # a folder made again may get the inode of the one before
        with _refusing(f"{key}: cannot be deleted"):
            _remove(self._path(key))

    def clear(self, prefix: str) -> None:
        clear_unfinished(self._path(prefix))

    def check(self) -> None:
        probe = self.root / f".probe.{secrets.token_hex(4)}"
        try:
            with _refusing("the storage"):
                self.root.mkdir(parents=True, exist_ok=True)
                probe.write_bytes(b"datapruner")
        finally:
            _discard(probe)

    def folder(self, prefix: str) -> Path:
        return self._path(prefix)

    def pull(self, prefix: str) -> None:
        """The folder is the storage."""

    def push(self, prefix: str) -> None:
        """The folder is the storage."""

    def _path(self, key: str) -> Path:
        return self.root / _checked(key)


class ObjectStorage:
    """Objects below a URL that fsspec understands, with a read cache on this machine."""

    def __init__(self, url: str, cache: Path, cache_bytes: int) -> None:
        protocol, _, place = url.partition("://")
        if ":" in place.partition("/")[0].rpartition("@")[0]:  # errors name the place, and are logged
            raise StorageError(
                f"the {protocol} storage's URL has a password in it",
                remedy="give it to the store's client by the environment, as in AWS_SECRET_ACCESS_KEY",
            )
        try:
            # Without its cache of listings, which would not see what other processes publish.
            self._files, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise StorageError(
                f"{url}: {error}", remedy=f"install fsspec's package for {protocol}"
            ) from error
        if not place.strip("/"):
            raise StorageError(f"{url}: names no bucket", remedy=f"write {protocol}://bucket/prefix")
        self._root = str(root).rstrip("/")
        self._cache = cache.absolute()
        self._cache_bytes = cache_bytes
        self._swept, self._added = -_SWEEP_SECONDS, 0

    def local(self, key: str) -> Path:
        path = self._cached(key)
        with _refusing(f"{key}: cannot be fetched"):
            try:
                os.utime(path)
            except FileNotFoundError:
                self._fetch(key, path)
                self._sweep(path.stat().st_size)
        return path

    def publish(self, path: Path, key: str) -> int:
        with _refusing(f"{key}: cannot be stored"):
            size = path.stat().st_size
            self._send(path, key)
        cached = self._cached(key)
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            _move(path, cached)
            self._sweep(size)
        except OSError:  # published all the same: whoever wants to read it here fetches it
            _discard(path)
        return size

    def listing(self, prefix: str) -> Iterator[Stored]:
        for stored in self._find(prefix):
            if stored.key != prefix:  # a file has nothing below it
                yield stored

    def delete(self, key: str) -> None:
        def remove(one: str) -> None:
            with self._asking(f"{one}: cannot be deleted"):
                self._files.rm_file(self._remote(one))

        _for_each(remove, (stored.key for stored in self._find(key)))
        with contextlib.suppress(OSError):  # a copy that stays is swept one day
            _remove(self._cached(key))

    def clear(self, prefix: str) -> None:
        clear_unfinished(self._cached(prefix))

    def check(self) -> None:
        probe = f"{self._root}/.probe-{secrets.token_hex(4)}"
        with self._asking("the storage cannot be written"):
            self._files.pipe_file(probe, b"datapruner")
            self._files.rm_file(probe)

    def folder(self, prefix: str) -> Path:
        return self._cached(prefix)

    def pull(self, prefix: str) -> None:
        _for_each(self.local, (stored.key for stored in self.listing(prefix)))

    def push(self, prefix: str) -> None:
        known = {stored.key for stored in self.listing(prefix)}
        with _refusing(f"{prefix}: cannot be listed"):
            held = sorted(_finished(self.folder(prefix)))
        for path in held:
            _asked_again(path)
        keys = (path.relative_to(self._cache).as_posix() for path in held)
        _for_each(lambda key: self._send(self._cached(key), key), (key for key in keys if key not in known))

    def _fetch(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = unfinished(path)
        try:
            with self._asking(f"{key}: cannot be fetched"):
                try:
                    self._files.get_file(self._remote(key), str(temporary))
                except FileNotFoundError as error:
                    raise StorageError(f"{key}: the file is gone from storage", remedy=_GONE) from error
            temporary.replace(path)
        finally:
            _discard(temporary)

    def _send(self, path: Path, key: str) -> None:
        remote = self._remote(key)
        with self._asking(f"{key}: cannot be stored"):
            self._files.put_file(str(path), remote)

    def _find(self, prefix: str) -> Iterator[Stored]:
        """The file `prefix`, or all files below that folder."""
        remote = self._remote(prefix)
        with self._asking(f"{prefix}: cannot be listed"):
            found = self._files.find(remote, detail=True)
        for name in sorted(found):
            about = found[name]
            modified = about.get("LastModified") or about.get("created") or datetime.now(UTC)
            key = name.removeprefix(f"{self._root}/")
            yield Stored(key, modified.astimezone(UTC).replace(tzinfo=None), int(about.get("size") or 0))

    def _sweep(self, added: int) -> None:
        """Drop copies that nobody has asked for lately, and what broken downloads left; more where the cache
        is too large. `added` are the bytes that came just now."""
        self._added += added
        soon = self._added > _SWEEP_SHARE * self._cache_bytes
        if time.monotonic() - self._swept < _SWEEP_SECONDS and not soon:
            return
        self._swept, self._added = time.monotonic(), 0
        now, held = time.time(), []
        for folder, _, names in os.walk(self._cache):
            for path in (Path(folder, name) for name in names):
                with contextlib.suppress(OSError):  # another process sweeps as well
                    about = path.stat()
                    held.append((about.st_mtime, about.st_size, path))
        left = sum(size for _, size, _ in held)
        for asked, size, path in sorted(held):
            age = now - asked
            if age < CACHE_SECONDS and (left <= self._cache_bytes or age < SPARED_SECONDS):
                break
            with contextlib.suppress(OSError):
                path.unlink()
            left -= size

    def _cached(self, key: str) -> Path:
        return self._cache / _checked(key)

    def _remote(self, key: str) -> str:
        return f"{self._root}/{_checked(key)}"

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except FileNotFoundError as error:
            bucket = self._root.lstrip("/").split("/", 1)[0]
            raise StorageError(
                f"{what}: {error}", remedy=f"check that {bucket} is there and may be used"
            ) from error
        except Exception as error:  # each store's client has exceptions of its own
            raise StorageError(f"{what}: {error}", remedy=_REMEDY) from error


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    """What the system refuses, as ours."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{what}: {error.strerror or error}", remedy=_REMEDY) from error


def _for_each(call: Callable[[str], object], keys: Iterable[str]) -> None:
    """Call it with each key, several at a time; raises what one of the calls raised."""
    with ThreadPoolExecutor(_REQUESTS) as pool:
        for _ in pool.map(call, keys):
            pass


def _finished(folder: Path) -> Iterator[Path]:
    """The files below a folder, without what has no name yet and what is in a folder that has none."""
    for place, folders, names in os.walk(folder, onerror=_unless_gone):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in names if not name.startswith("."))


def _checked(key: str) -> str:
    """`key`, which means the same in a folder and in an object store, and has no hidden part."""
    path = PurePosixPath(key)
    assert key == str(path), key
    assert not path.is_absolute(), key
    assert not any(part.startswith(".") for part in path.parts), key
    return key


def _move(path: Path, target: Path) -> None:
    """Make the file `path` appear as `target`, whole, from another file system if need be."""
    try:
        path.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        temporary = unfinished(target)
        try:
            shutil.copyfile(path, temporary)
            _flush(temporary)
            temporary.replace(target)
        finally:
            _discard(temporary)
        path.unlink()


def _flush(path: Path) -> None:
    """Have the disk hold a file's content, or a folder's entries."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _asked_again(path: Path) -> None:
    """Keep a copy that is in use in the cache."""
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > _ASKED_AGAIN_SECONDS:
            os.utime(path)


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there; another process may be at it as well."""
    while path.exists():
        with contextlib.suppress(FileNotFoundError):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _discard(path: Path) -> None:
    """Remove a file of no use; on a read-only disk even a missing one is refused."""
    with contextlib.suppress(OSError):
        path.unlink()


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error
