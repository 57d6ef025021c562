"""What a run compares its rows with, the target set and evaluation sets, and what an evaluation holds out:
datasets of the same project, each at one version.

In a run's configuration, and in the settings of an evaluation, they are `name@3`, so that a job that is taken
up again compares with the same rows. A schedule's are only `name`: each fire pins the version that is the
latest then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from sqlalchemy.orm import Session

from datapruner.catalog import datasets
from datapruner.catalog.models import Version
from datapruner.corpora.corpus import Corpus
from datapruner.errors import ConflictError, InputError, UsageError
from datapruner.request.config import RunConfig
from datapruner.request.evaluating import EvaluationSettings
from datapruner.request.targets import by_task

TARGET, EVALUATION, HELD_OUT = "target", "contamination", "held_out"


def version_of(session: Session, project_id: str, target: str, field: str = TARGET) -> tuple[str, Version]:
    """The dataset's name and the version that `target` means: name or id, with `@number` or the latest.

    `field` is the setting that errors name. Raises NotFoundError, ConflictError, UsageError.
    """
    name, at, number = target.partition("@")
    dataset = datasets.find(session, project_id, name)
    if at:
        if not number.isascii() or not number.isdecimal() or len(number) > 9:
            raise UsageError(
                f"{field} {target!r} names no version", remedy="give dataset, or dataset@3", field=field
            )
        return dataset.name, datasets.version(session, dataset, int(number))
    version = datasets.latest(session, dataset.id)
    if version is None:
        raise ConflictError(
            f"dataset {dataset.name} has no version yet",
            remedy="wait for the job that reads its rows, or add a version",
            field=field,
        )
    return dataset.name, version


def pinned(session: Session, project_id: str, config: RunConfig) -> RunConfig:
    """The configuration with the versions of its target and evaluation sets. Raises as `version_of` does."""
    update: dict[str, Any] = {}
    if config.target is not None:
        sets = {
            task: _pin(session, project_id, wanted, TARGET) for task, wanted in by_task(config.target).items()
        }
        update["target"] = sets if isinstance(config.target, dict) else sets[""]
    if config.contamination is not None:
        against = {
            name: _pin(session, project_id, wanted, EVALUATION)
            for name, wanted in config.contamination.against.items()
        }
        update["contamination"] = config.contamination.model_copy(update={"against": against})
    return config.model_copy(update=update)


def _pin(session: Session, project_id: str, wanted: str, field: str) -> str:
    name, version = version_of(session, project_id, wanted, field)
    return f"{name}@{version.number}"


def target_versions(session: Session, project_id: str, config: RunConfig) -> dict[str, Version]:
    """The versions of a configuration's target sets, by task, "" without one. Raises as `version_of`."""
    if config.target is None:
        return {}
    return {
        task: version_of(session, project_id, wanted)[1] for task, wanted in by_task(config.target).items()
    }


def pinned_held_out(session: Session, project_id: str, settings: EvaluationSettings) -> EvaluationSettings:
    """The settings with the versions of the held-out sets. Raises as `version_of` does."""
    held_out = {
        name: _pin(session, project_id, wanted, HELD_OUT) for name, wanted in settings.held_out.items()
    }
    return settings.model_copy(update={"held_out": held_out})


def held_out_versions(
    session: Session, project_id: str, settings: EvaluationSettings
) -> dict[str, tuple[str, Version]]:
    """Of each held-out set, by its name: which dataset it is, and the version. Raises as `version_of`."""
    return {
        name: (wanted, version_of(session, project_id, wanted, HELD_OUT)[1])
        for name, wanted in settings.held_out.items()
    }


def evaluation_versions(session: Session, project_id: str, config: RunConfig) -> dict[str, Version]:
    """The versions of a configuration's evaluation sets, by what it calls them. Raises as `version_of`."""
    if config.contamination is None:
        return {}
    wanted = config.contamination.against.values()
    return {each: version_of(session, project_id, each, EVALUATION)[1] for each in wanted}


def evaluation_rows(name: str, corpus: Corpus) -> Iterator[dict[str, Any]]:
    """The rows of an evaluation set. Raises InputError when there are some that could not be read."""
    rejected = corpus.counts().rejected
    if rejected:
        raise InputError(
            f"evaluation set {name}: {rejected} of its rows were rejected, and would not be compared",
            remedy="make a dataset without them, or with the mapping that they need",
            field=EVALUATION,
        )
    return (orjson.loads(line) for line in corpus.originals_json())
