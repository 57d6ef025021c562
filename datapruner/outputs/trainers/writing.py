"""A trainer's format on disk: a file, a folder, or a folder of shards, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from datapruner.errors import NothingSurvivedError, UsageError
from datapruner.outputs.trainers.trainer import AsFile, Trainer
from datapruner.outputs.training_rows import TrainingRows
from datapruner.system.files import publishing, publishing_folder


def check_target(trainer: Trainer, path: Path, shard_rows: int | None = None) -> None:
    """Find out before the work starts that a trainer's format cannot be written there. Raises UsageError."""
    if not path.parent.is_dir():
        raise UsageError(f"{path}: the folder {path.parent} does not exist", remedy="create it first")
    if isinstance(trainer, AsFile) and shard_rows is None:
        if path.suffix != trainer.suffix:
            raise UsageError(
                f"{path}: rows for {trainer.name} are {trainer.suffix} files",
                remedy=f"name it {path.with_suffix(trainer.suffix).name}",
            )
        if path.is_dir():
            raise UsageError(f"{path} is a folder", remedy="name a file")
        return
    if not isinstance(trainer, AsFile) and shard_rows is not None:
        raise UsageError(f"rows for {trainer.name} are a folder already", remedy="leave out --shard-rows")
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UsageError(f"{path}: there is something already", remedy="name a new folder, or remove it")


def write(trainer: Trainer, path: Path, rows: TrainingRows, shard_rows: int | None = None) -> None:
    """Write all the rows; their counts are whole then.

    shard_rows: rows of a file, of a format that is one otherwise. Raises UsageError when that cannot be
    written there, NothingSurvivedError when no row is left.
    """
    check_target(trainer, path, shard_rows)
    try:
        if isinstance(trainer, AsFile) and shard_rows is None:
            with publishing(path) as file:
                trainer.write(file, rows)
                _check_rows(rows)
            return
        with publishing_folder(path) as folder:
            if not isinstance(trainer, AsFile):
                trainer.write(folder, rows)
            elif shard_rows is not None:
                _write_shards(trainer, folder, rows, shard_rows)
            _check_rows(rows)
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror or error}", remedy="choose another place"
        ) from error


def _write_shards(trainer: AsFile, folder: Path, rows: TrainingRows, shard_rows: int) -> None:
    """Files with the names by which `datasets` finds a split in a folder."""
    made = []
    for number, shard in enumerate(rows.shards(shard_rows)):
        made.append(folder / f"{number:05}")
        with made[-1].open("xb") as file:
            trainer.write(file, shard)
    for number, path in enumerate(made):
        path.rename(folder / f"train-{number:05}-of-{len(made):05}{trainer.suffix}")


def _check_rows(rows: TrainingRows) -> None:
    if rows.counts.written == 0:
        limit = "" if rows.max_length is None else f" within {rows.max_length:,} tokens"
        raise NothingSurvivedError(
            f"no row has a token to train on{limit}", remedy="keep more, or raise --max-length"
        )
