"""The trainers that subsets are written for. A new one is its file and its line here."""

from __future__ import annotations

from datapruner.errors import UsageError
from datapruner.outputs.trainers.automodel import AUTOMODEL
from datapruner.outputs.trainers.llamafactory import LLAMAFACTORY
from datapruner.outputs.trainers.megatron import MEGATRON
from datapruner.outputs.trainers.ms_swift import MS_SWIFT
from datapruner.outputs.trainers.trainer import Trainer
from datapruner.outputs.trainers.trl import AXOLOTL, TRANSFORMERS, TRL
from datapruner.outputs.trainers.verl import VERL

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


def find(name: str) -> Trainer:
    """Raises UsageError."""
    if name not in TRAINERS:
        raise UsageError(f"no trainer is called {name!r}", remedy=f"one of {', '.join(TRAINERS)}")
    return TRAINERS[name]
