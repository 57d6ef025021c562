"""The trainers that subsets are written for. A new one is its file and its line here."""

from __future__ import annotations

from datapruner.errors import UsageError
from datapruner.outputs.trainers.trainer import Trainer
from datapruner.outputs.trainers.trl import AXOLOTL, TRANSFORMERS, TRL

TRAINERS: dict[str, Trainer] = {each.name: each for each in (TRL, TRANSFORMERS, AXOLOTL)}
"""All of them, by name."""


def find(name: str) -> Trainer:
    """Raises UsageError."""
    if name not in TRAINERS:
        raise UsageError(f"no trainer is called {name!r}", remedy=f"one of {', '.join(TRAINERS)}")
    return TRAINERS[name]
