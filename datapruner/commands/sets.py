"""Target, evaluation and held-out sets that are files here, for a run at a service: sent first, as datasets.

Such a dataset is called by its content, so that a file is sent once however often it is compared with, and it
is in no listing. What is no file here is a name that the service knows.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING, cast

from datapruner.errors import NotFoundError, UsageError
from datapruner.request.targets import by_task
from datapruner.schemas.datasets import content_name

if TYPE_CHECKING:
    from datapruner.client import Client, RunOptions
    from datapruner.schemas.datasets import DatasetAnswer
    from datapruner.schemas.jobs import JobAnswer

Finish = Callable[["JobAnswer"], object]
"""Waits for a job, and raises what it failed with."""


def brought(client: Client, wanted: RunOptions, finish: Finish) -> RunOptions:
    """What to run with the service's names of all the sets that it compares with; those that are files here
    are sent, and the jobs that read them given to `finish`.

    Raises UsageError for a folder as one of them, and what reading, sending and `finish` raise.
    """
    recipe = wanted.get("recipe")
    asked = dict(recipe if isinstance(recipe, Mapping) else wanted)
    target, contamination, evaluate = (asked.get(name) for name in ("target", "contamination", "evaluate"))
    if target is not None:
        sets = {task: rows(client, str(where), finish) for task, where in by_task(target).items()}
        asked["target"] = sets if isinstance(target, Mapping) else sets[""]
    if evaluate is not None:
        asked["evaluate"] = {**evaluate, "held_out": held_out(client, evaluate["held_out"], finish)}
    if contamination is not None:
        against = dict(contamination["against"])
        for name, where in against.items():
            if Path(where).exists():
                with _as_samples(name, where) as path:
                    against[name] = _dataset(client, path, finish)
        asked["contamination"] = {**contamination, "against": against}
    return {**wanted, "recipe": asked} if recipe is not None else cast("RunOptions", asked)


def held_out(client: Client, wanted: Mapping[str, str], finish: Finish) -> dict[str, str]:
    """The service's names of the held-out sets of an evaluation, as `rows`."""
    return {name: rows(client, where, finish) for name, where in wanted.items()}


def rows(client: Client, where: str, finish: Finish) -> str:
    """The service's name of a set: of a file here, which is sent, or else what it is called already.

    Raises UsageError for a folder, and what reading, sending and `finish` raise.
    """
    if not Path(where).exists():
        return where
    if Path(where).is_dir():
        raise UsageError(f"{where}: a folder cannot be sent to a service", remedy="name one file")
    return _dataset(client, Path(where), finish)


@contextmanager
def _as_samples(name: str, where: str) -> Iterator[Path]:
    """A file with the texts of an evaluation set in a form that a service takes, whatever its columns."""
    from datapruner.curation import contamination

    with tempfile.TemporaryDirectory(prefix="datapruner-") as folder:
        path = Path(folder, f"{name[:50]}.jsonl".replace("/", "_"))
        with path.open("w", encoding="utf-8") as file:
            for sample in contamination.as_samples(where):
                file.write(json.dumps(sample) + "\n")
        yield path


def _dataset(client: Client, path: Path, finish: Finish) -> str:
    """The name of the service's dataset that has the rows of a file, and its version; sent if need be."""
    with path.open("rb") as file:
        name = content_name(file_digest(file, "sha256").hexdigest())
    known: DatasetAnswer | None = None
    with suppress(NotFoundError):
        known = client.datasets.get(name)
    if known is None:
        finish(client.datasets.start_create(name, path))
    elif known.latest is None:  # the job that was to read it did not come to its end
        finish(client.datasets.start_append(name, path))
    return f"{name}@1"
