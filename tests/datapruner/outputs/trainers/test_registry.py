"""The table of trainers: the names that the service offers are its own."""

from __future__ import annotations

from typing import get_args

import pytest

from datapruner.outputs.trainers.registry import TRAINERS, file_of
from datapruner.outputs.trainers.trainer import AsFile
from datapruner.rows.formats import EXPORTS, AnyExportFormat, TrainerFormat, exported


def test_the_service_offers_every_trainer_by_its_name() -> None:
    assert list(get_args(TrainerFormat)) == list(TRAINERS)
    assert all(trainer.name == name for name, trainer in TRAINERS.items())
    assert not set(TRAINERS) & set(EXPORTS)


@pytest.mark.parametrize("name", get_args(AnyExportFormat))
def test_every_export_is_one_file_with_its_suffix_and_media_type(name: str) -> None:
    suffix, media_type = file_of(name)
    if name in EXPORTS:
        assert (suffix, media_type) == (exported(name).suffix, exported(name).media_type)
        return
    trainer = TRAINERS[name]
    assert suffix == (trainer.suffix if isinstance(trainer, AsFile) else ".tar")
    assert media_type.startswith("application/")
