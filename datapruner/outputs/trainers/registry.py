"""The trainers that subsets are written for. A new one is its file and its line here."""

from __future__ import annotations

from datapruner.errors import UsageError
from datapruner.outputs.trainers.automodel import AUTOMODEL
from datapruner.outputs.trainers.llamafactory import LLAMAFACTORY
from datapruner.outputs.trainers.megatron import MEGATRON
from datapruner.outputs.trainers.ms_swift import MS_SWIFT
from datapruner.outputs.trainers.trainer import AsFolder, Trainer
from datapruner.outputs.trainers.trl import AXOLOTL, TRANSFORMERS, TRL
from datapruner.outputs.trainers.verl import VERL
from datapruner.rows.formats import FILES, FORMATS, exported, suffixes
from datapruner.schemas.exports import TAR

_ALL: tuple[Trainer, ...] = (
    TRL,
    TRANSFORMERS,
    AXOLOTL,
    LLAMAFACTORY,
    MS_SWIFT,
    VERL,
    MEGATRON,
    AUTOMODEL,
)

TRAINERS = {each.name: each for each in _ALL}
"""All of them, by name."""


FOLDER = "subset"
"""Of a tar archive of a trainer's folder, the name of that folder in it."""


def find(name: str) -> Trainer:
    """Raises UsageError."""
    if name not in TRAINERS:
        raise UsageError(f"no trainer is called {name!r}", remedy=f"one of {', '.join(TRAINERS)}")
    return TRAINERS[name]


def file_of(format: str) -> tuple[str, str]:  # noqa: A002
    """Suffix and media type of a subset as one file, in a format of `rows.formats.AnyExportFormat`.

    Of a trainer that takes a folder, the file is a tar archive of it, as `FOLDER`.
    """
    trainer = TRAINERS.get(format)
    if isinstance(trainer, AsFolder):
        return ".tar", TAR
    form = exported(format) if trainer is None else FORMATS[suffixes(FILES)[trainer.suffix]]
    return form.suffix, form.media_type
