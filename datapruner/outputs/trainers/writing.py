"""A trainer's format on disk: a file, a folder, or a folder of shards, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from datapruner.errors import NothingSurvivedError, UsageError
from datapruner.outputs.trainers import registry
from datapruner.outputs.trainers.trainer import AsFile, AsFolder, Trainer
from datapruner.outputs.training_rows import TrainingRows
from datapruner.rows import shards
from datapruner.system.files import check_file, check_place, publishing, publishing_folder


def check_target(trainer: Trainer, path: Path, shard_rows: int | None, max_length: int | None) -> None:
    """Find out before the work starts that a trainer's format cannot be written there. Raises UsageError."""
    if isinstance(trainer, AsFile) and shard_rows is None:
        check_place(path)
        if path.suffix != trainer.suffix:
            raise UsageError(
                f"{path}: rows for {trainer.name} are {trainer.suffix} files",
                remedy=f"name it {path.with_suffix(trainer.suffix).name}",
            )
        check_file(path)
        return
    if not isinstance(trainer, AsFile) and shard_rows is not None:
        raise UsageError(f"rows for {trainer.name} are a folder already", remedy="leave out --shard-rows")
    check_length(trainer, max_length)
    shards.check_folder(path)


def check_length(trainer: Trainer, max_length: int | None) -> None:
    """Raise UsageError when a trainer's rows are packed to a length, and there is none."""
    if isinstance(trainer, AsFolder) and trainer.packed and max_length is None:
        raise UsageError(
            f"rows for {trainer.name} are packed to a length", remedy="give max_length", field="max_length"
        )


def check_weights(trainer: Trainer, weighted: bool) -> None:
    """Raise UsageError when tokens have weights that a trainer cannot take: it would train on all alike."""
    if weighted and trainer.weights is None:
        able = ", ".join(name for name, each in registry.TRAINERS.items() if each.weights is not None)
        raise UsageError(
            f"{trainer.name} cannot take the weights that this run gives tokens: it would train on all alike",
            remedy=f"write it for one of {able}, or mask tokens in place of weighting them (mode=mask)",
            field="format",
        )


def write(trainer: Trainer, path: Path, rows: TrainingRows, shard_rows: int | None = None) -> None:
    """Write all the rows; their counts are whole then.

    shard_rows: rows of a file, of a format that is one otherwise. Raises UsageError when that cannot be
    written there or the trainer cannot take the rows' weights, NothingSurvivedError when no row is left.
    """
    check_target(trainer, path, shard_rows, rows.max_length)
    check_weights(trainer, rows.counts.weighted)
    # Whose rows they are, for not all forms are told apart by their columns. The counts stay those of `rows`.
    rows = replace(rows, about=rows.about | {"trainer": trainer.name})
    try:
        if not isinstance(trainer, AsFile):
            with publishing_folder(path) as folder:
                trainer.write(folder, rows)
                _check_rows(rows)
        elif shard_rows is not None:
            shards.write_parts(path, trainer.suffix, _parts(trainer, rows, shard_rows))
        else:
            with publishing(path) as file:
                trainer.write(file, rows)
                _check_rows(rows)
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror or error}", remedy="choose another place"
        ) from error


def _parts(trainer: AsFile, rows: TrainingRows, shard_rows: int) -> Iterator[shards.Part]:
    for shard in rows.shards(shard_rows):
        yield _part(trainer, shard)
    _check_rows(rows)


def _part(trainer: AsFile, rows: TrainingRows) -> shards.Part:
    return lambda file: trainer.write(file, rows)


def _check_rows(rows: TrainingRows) -> None:
    if rows.counts.written == 0:
        limit = "" if rows.max_length is None else f" within {rows.max_length:,} tokens"
        raise NothingSurvivedError(
            f"no row has a token to train on{limit}", remedy="keep more, or raise --max-length"
        )
