"""Where published runs and their corpora are in a home folder.

What is in a run is read by `published`. Finding it takes no configuration, the checks of which cost more than
a small query.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datapruner.errors import InputError, UsageError
from datapruner.system import homes


def find(run_id: str, home: Path) -> Path:
    """The folder of the run with this id, or the one whose id starts so. Raises UsageError."""
    homes.use(home)
    found = [path for path in _all(home) if path.name.startswith(run_id)]
    if len(found) != 1:
        what = "no run" if not found else f"{len(found)} runs"
        raise UsageError(f"{what} with an id that starts with {run_id!r}", remedy="see `datapruner runs`")
    return found[0]


def newest_first(home: Path) -> list[Path]:
    """The folders of all runs, the one published last first."""
    return sorted(_all(home), key=lambda folder: (folder / "run.json").stat().st_mtime_ns, reverse=True)


def latest(home: Path) -> Path:
    """The folder of the run published last. Raises UsageError when there is none."""
    homes.use(home)
    found = newest_first(home)
    if not found:
        raise UsageError(
            "there is no run yet", remedy="start one with `datapruner prune` or `datapruner score`"
        )
    return found[0]


def beside(path: Path) -> Path:
    """Where the run file of what was written to `path` is. A folder's name has no suffix, only dots."""
    return path.with_name(f"{path.name}.run.json") if path.is_dir() else path.with_suffix(".run.json")


def read_document(path: Path) -> dict[str, Any]:
    """A run file. Raises InputError when it is not one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not {"run", "config", "lineage"} <= set(document):
            raise ValueError("it lacks run, config or lineage")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: not a run file: {error}", remedy="give the .run.json written beside a subset"
        ) from error
    return dict(document)


DATABASE, TOKENS, DOCUMENT = "run.duckdb", "token_scores.parquet", "run.json"
"""The files of a run. It is there when the last is."""


def database(folder: Path) -> Path:
    """The DuckDB file of a run with sample_scores, masks, scored and, where it rewrote, rewrites."""
    return folder / DATABASE


def tokens(folder: Path) -> Path:
    """The Parquet file of a run with token_scores."""
    return folder / TOKENS


def corpus(lineage: Mapping[str, Any], home: Path) -> Path:
    """The corpus that a run of this lineage read."""
    return home / "corpora" / f"{lineage['corpus']}.duckdb"


def _all(home: Path) -> list[Path]:
    return [path.parent for path in (home / "runs").glob("*/run.json")]
