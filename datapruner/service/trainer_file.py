"""The file of an export for a trainer: what the trainer takes where that is one, else a tar archive of it."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

from datapruner.catalog.models import Export
from datapruner.outputs import training_rows
from datapruner.outputs.trainers import registry, writing
from datapruner.outputs.trainers.trainer import AsFolder
from datapruner.outputs.training_rows import TrainingBatch
from datapruner.progress import Progress
from datapruner.rows.formats import TooLong
from datapruner.runs.published import Run


def write(export: Export, run: Run, home: Path, path: Path, progress: Progress) -> dict[str, int]:
    """Write the rows of `run`, whose signals are in `home`, to `path`, and what the folder of an archive is
    made of beside it. Returns `training_rows.Counts`. Raises UsageError and NothingSurvivedError."""
    trainer = registry.find(export.format)
    too_long = cast("TooLong", export.too_long or "cut")
    rows = training_rows.of_run(run, home, max_length=export.max_length, too_long=too_long)
    source = rows.source

    def told() -> Iterator[TrainingBatch]:
        for batch in source():
            yield batch
            progress.at(rows.counts.rows)

    rows = replace(rows, source=told)
    if not isinstance(trainer, AsFolder):
        writing.write(trainer, path, rows)
        return asdict(rows.counts)
    folder = path.with_name(registry.FOLDER)
    writing.write(trainer, folder, rows)
    with tarfile.open(path, "x") as archive:
        archive.add(folder, registry.FOLDER, filter=_anonymous)
    return asdict(rows.counts)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without what says where and when it was made, so that the same rows are the same file."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.isdir() else 0o644
    return member
