"""What the service may read on its own: folders below import roots, object-store prefixes, the Hub.

Asked twice: when a request names a source, so that the answer is immediate, and again by the worker before it
reads, as links may have been changed in between.

Notable choices:
- a path is judged after all its symlinks are resolved, and a folder or glob with everything in it;
- what lies outside is refused without a word on whether it exists.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePath
from urllib.parse import unquote, urlsplit

from datapruner.errors import DeniedError, InputError, UsageError
from datapruner.schemas.datasets import HubSource, PathSource, UploadSource, UrlSource
from datapruner.settings import Settings

_SPECIAL = re.compile(r"[\x00-\x1f\x7f]")
_PASSWORD = re.compile(r"//[^/@]*:[^/@]*@")  # with its user, before the host of a URL


def check_source(settings: Settings, source: UploadSource | HubSource | PathSource | UrlSource) -> None:
    """Raise DeniedError or InputError unless the service may read `source` and, for a path, it is there."""
    match source:
        case HubSource():
            if not settings.allow_hub:
                raise DeniedError(
                    "this service reads nothing from the Hub",
                    remedy="whoever runs it can set DATAPRUNER_ALLOW_HUB=1",
                    field="source",
                )
        case PathSource():
            allowed_path(settings, source.path)
        case UrlSource():
            allowed_url(settings, source.url)
        case UploadSource():
            pass


def allowed_path(settings: Settings, path: str) -> list[Path]:
    """The files or folders that `path` names: absolute or relative to an import root, or a glob.

    Every one, symlinks resolved, lies in an import root, and so does everything below a folder. Raises
    DeniedError for what lies elsewhere, InputError when there is nothing.
    """
    roots = [root.expanduser().resolve() for root in settings.import_roots]
    if not roots:
        raise DeniedError(
            "this service has no import roots",
            remedy="whoever runs it can name folders in DATAPRUNER_IMPORT_ROOTS",
            field="source.path",
        )
    if _SPECIAL.search(path):
        raise UsageError("a path with control characters", remedy="give another", field="source.path")
    try:
        found = _find(path, roots)
        for item in found:
            _check(item, roots, path)
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, no UTF-8
        raise InputError(
            f"{path}: cannot be read: {_reason(error)}", remedy="check the path", field="source.path"
        ) from error
    if not found:
        raise InputError(
            f"{path}: nothing of this name is in the import roots",
            remedy="check the spelling",
            field="source.path",
        )
    return found


def _reason(error: Exception) -> str:
    """Without the path as it was resolved, which is not the client's to know."""
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__


def _find(path: str, roots: list[Path]) -> list[Path]:
    places = [Path(path)] if PurePath(path).is_absolute() else [root / path for root in roots]
    for place in places:
        resolved = place.resolve()
        if not _inside(resolved, roots):
            raise _outside(path)
        if resolved.exists():
            return [resolved]
    if not glob.has_magic(path):
        return []
    parts = PurePath(path).parts
    if ".." in parts or path.count("**") > 1:
        raise UsageError(f"{path}: a glob with '..' or more than one '**'", field="source.path")
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    pattern = str(PurePath(*parts[first:]))
    bases = (
        [Path(*parts[:first])] if PurePath(path).is_absolute() else [Path(r, *parts[:first]) for r in roots]
    )
    for base in bases:
        if not _inside(base.resolve(), roots):
            raise _outside(path)
        seen = {item.resolve() for item in base.glob(pattern) if not _hidden(item.relative_to(base))}
        if seen:
            return sorted(seen)
    return []


def _hidden(path: PurePath) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _check(found: Path, roots: list[Path], asked: str) -> None:
    """Refuse what is outside of the roots, what is no file or folder, and a folder with links leading out."""
    if not _inside(found, roots):
        raise _outside(asked)
    if found.is_dir():
        for place, folders, files in os.walk(found):
            for name in (*folders, *files):
                below = Path(place, name)
                if below.is_symlink() and not _inside(below.resolve(), roots):
                    raise _outside(asked)
    elif not found.is_file():
        raise InputError(f"{asked}: neither a file nor a folder", field="source.path")


def _inside(path: Path, roots: Iterable[Path]) -> bool:
    return any(path.is_relative_to(root) for root in roots)


def _outside(path: str) -> DeniedError:
    return DeniedError(
        f"{path}: outside of the import roots",
        remedy="name a file in one of them, or have its folder added to DATAPRUNER_IMPORT_ROOTS",
        field="source.path",
    )


def allowed_url(settings: Settings, url: str) -> str:
    """`url` itself, when it lies below an allowed prefix. Raises DeniedError."""
    if _is_plain(url):
        for prefix in settings.import_urls:
            if url == prefix or url.startswith(prefix.rstrip("/") + "/"):
                return url
    raise DeniedError(
        f"{_SPECIAL.sub('', _PASSWORD.sub('//', url))[:200]}: this service may not read it",
        remedy="name an object below a prefix in DATAPRUNER_IMPORT_URLS",
        field="source.url",
    )


def _is_plain(url: str) -> bool:
    """Whether the URL means what it looks like: fsspec chains on '::', servers may resolve '..'."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if not parts.scheme or parts.scheme == "file" or "::" in url or "\\" in url or _SPECIAL.search(url):
        return False
    if _PASSWORD.search(url):
        return False  # a source is stored, and shown
    return not {".", ".."} & set(unquote(parts.path).split("/"))
