"""How a run is to be evaluated, whichever way it was asked: command line, Python, JSON, recipe, schedule."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from datapruner.errors import UsageError
from datapruner.request.config import RunConfig
from datapruner.request.parts import Name, Part, Place, Seed

HeldOutSets = Annotated[dict[Name, Place], Field(min_length=1, max_length=100)]


class EvaluationSettings(Part):
    """What is trained and what it is read on. Each seed trains the subset and its controls once."""

    held_out: HeldOutSets = Field(
        description="name of a held-out set: file or Hub name or, at a service, a dataset of the project"
    )
    model: Place | None = Field(None, description="the model to train; without, the proxy of the run")
    tuning: Literal["lora", "full"] = Field("lora", description="what of the model is trained")
    seeds: int = Field(
        3, ge=1, le=100, description="trainings of each arm; one alone cannot show a difference"
    )
    seconds: float | None = Field(
        None, gt=0, le=1e7, description="time to spend; what is not reached by then is said"
    )
    seed: Seed = 0


def check_evaluated(config: RunConfig) -> None:
    """Raise UsageError unless a run of this configuration keeps rows that can be compared with others."""
    if not config.has_subset:
        raise UsageError(
            "a run that selected nothing has nothing to compare with other rows",
            remedy="evaluate a run that says how much to keep",
            field="evaluate",
        )
