"""The run that a user names: by its id, as the latest, or by a file that it wrote."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datapruner.errors import InputError
from datapruner.runs import folders, published


def find(target: str, home: Path) -> published.Run:
    """The run that `target` names: a subset or score file, a `.run.json`, "latest", or the start of a run id.

    Raises UsageError when it names no run or more than one, InputError when it is a file that cannot be read,
    or one whose run is not in `home`.
    """
    path = Path(target)
    if not path.is_file():
        return published.latest(home) if target == "latest" else published.load(target, home)
    document = document_of(path)
    found = of_document(document, home)
    if found is None:
        raise InputError(
            f"{path}: run {document['run']} is not in {home}",
            remedy=f"bring it back with: datapruner replay {shlex.quote(str(path))}",
        )
    return found


def of_document(document: dict[str, Any], home: Path) -> published.Run | None:
    """The run that a run file is of, None when it is not in `home`."""
    folder = home / "runs" / Path(str(document["run"])).name
    return published.read(folder) if folders.database(folder).is_file() else None


def document_of(path: Path) -> dict[str, Any]:
    """The run that a file belongs to, as in a run file. Raises InputError."""
    if path.suffix == ".json":
        return folders.read_document(path)
    if path.suffix == ".parquet":
        try:
            metadata = (pq.read_schema(path).metadata or {}).get(b"datapruner")
        except pa.ArrowException as error:
            raise InputError(f"{path}: cannot be read as Parquet: {error}") from error
        if metadata is not None:
            return dict(json.loads(metadata))
    beside = folders.beside(path)
    if not beside.is_file():
        raise InputError(
            f"{path}: does not say which run it came from", remedy="give the run's id, see `datapruner runs`"
        )
    return folders.read_document(beside)
