"""Merged shards of the signal cache, and the small ones that each stands for (`compaction` makes them).

A small shard that a merged one stands for is no shard any more, though its file stays for a day: whoever
listed it before still reads it, whoever lists later does not.

Notable choice: it is known by name and size, as one to which a sample was added meanwhile has its old name.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

_PREFIX = "merged-"
_REPLACES = b"replaces"


def name(shard: str) -> str:
    """File name of a merged shard that would otherwise be called so."""
    return f"{_PREFIX}{shard}"


def told(small: list[Path]) -> dict[bytes, bytes]:
    """What a merged shard's file says of those that it stands for."""
    return {_REPLACES: json.dumps({path.name: path.stat().st_size for path in small}).encode()}


def is_merged(path: Path) -> bool:
    """Whether a shard is a merged one."""
    return path.name.startswith(_PREFIX)


def replaced(merged: Path) -> list[Path]:
    """The files that a merged shard stands for and that are still there."""
    sizes: dict[str, int] = json.loads((pq.read_schema(merged).metadata or {})[_REPLACES])
    paths = ((merged.with_name(small), size) for small, size in sizes.items())
    return [path for path, size in paths if path.is_file() and path.stat().st_size == size]


def shards(folder: Path) -> list[Path]:
    """Every published shard, by name, without those for which a merged one stands."""
    found = sorted(folder.glob("[!.]*.parquet"))
    gone = {path for each in found if is_merged(each) for path in replaced(each)}
    return [path for path in found if path not in gone] if gone else found
