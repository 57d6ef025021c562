"""The stages of a recipe besides methods and keep: what is dropped before measuring, how scores are combined
and covered, and how the kept reasoning is rewritten. `Stages` is the table of them.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Place = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
LARGEST = 2**63 - 1  # of counts and seeds: what files and databases hold
Seed = Annotated[int, Field(ge=0, le=LARGEST, description="seed of whatever is drawn")]
Tracker = Literal["mlflow", "wandb", "trackio", "openlineage"]
"""What runs are logged to, each the name of an extra and of its module (`datapruner.tracking`)."""


class Part(BaseModel):
    """Base of everything in a run's configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def is_none(value: object) -> bool:
    """What is not given is not in a dump either, so that the ids of runs without it stay as they are."""
    return value is None


class Gate(Part):
    """Rows with obvious defects are dropped, each for a reason in words (`datapruner.curation.gate`)."""

    OF_TEXT: ClassVar = ("refusals", "loops", "loop_share", "cut_off", "languages")
    """What needs no proxy model."""

    refusals: bool = Field(True, description="drop responses that refuse and say nothing else")
    loops: bool = Field(True, description="drop responses that say the same again and again")
    loop_share: float = Field(
        0.6, gt=0, le=1, description="least share of a response that it said before, of one in a loop"
    )
    cut_off: bool = Field(True, description="drop responses whose text shows that they stop in the middle")
    languages: bool = Field(
        True, description="drop responses in another script or language than the prompt, unasked"
    )
    gibberish: bool = Field(True, description="drop responses that the proxy model finds next to impossible")
    gibberish_ppl: float = Field(
        250.0, gt=1, description="perplexity from which a response, of 32 tokens or more, is gibberish"
    )
    endings: bool = Field(
        True, description="drop responses that stop in the middle where the proxy model expects no end"
    )
    ending_nll: float = Field(
        16.0, gt=0, description="-ln p of the end of a response from which it is unexpected, in nats"
    )

    @property
    def reads_model(self) -> bool:
        """Whether a rule asks what the proxy model measured."""
        return self.gibberish or self.endings


class Dedup(Part):
    """Near duplicates of an earlier row are dropped before measuring (`datapruner.curation.duplicates`)."""

    threshold: float = Field(0.7, gt=0, le=1, description="least Jaccard similarity of a duplicate")
    shingle: int = Field(3, ge=1, le=1000, description="words of the n-grams that are compared")
    part: Literal["all", "prompt", "response"] = Field("all", description="what of a sample is compared")


class Contamination(Part):
    """Rows that hold text of evaluation sets are dropped likewise (`datapruner.curation.contamination`)."""

    against: dict[Name, Place] = Field(
        min_length=1, max_length=100, description="name of an evaluation set: file, Hub name or dataset"
    )
    convention: Literal["13-gram", "8-gram"] = Field(
        "13-gram", description="one shared n-gram (GPT-3), or 70 % of a text's n-grams (PaLM)"
    )


class Criterion(Part):
    """What a score contributes to the combined one."""

    direction: Literal["high", "low"] = Field(description="which end of the score is the good one")
    weight: float = Field(1.0, gt=0, description="only the ratios of weights matter")


class Coverage(Part):
    """Samples are drawn evenly over the combined, or only, score (`scorers.selection.coverage`)."""

    bins: int = Field(50, ge=1, le=1_000_000, description="score bins that samples are drawn from")
    hard_prune: float = Field(0.1, ge=0, lt=1, description="share of the samples cut before drawing")
    hardest: Literal["high", "low"] = Field("high", description="which end of the score is cut")


class Calibrate(Part):
    """Of what is kept, the batch to calibrate compression with stays (`datapruner.curation.calibration`)."""

    batches: int = Field(8, ge=1, le=10_000, description="candidate batches, drawn at random")
    size: int = Field(16, ge=1, le=10_000, description="samples of a batch")
    held_out: int = Field(32, ge=1, le=10_000, description="samples to measure on, in no batch")
    sparsity: float = Field(
        0.5, gt=0, lt=1, description="share of each layer's weights that compression zeroes"
    )

    @property
    def samples(self) -> int:
        """How many are drawn in all."""
        return self.batches * self.size + self.held_out


class Rewrite(Part):
    """The reasoning of the samples that are kept is rewritten (`datapruner.rewriting`)."""

    method: Name = Field(description="method of rewriting")
    options: dict[str, Any] = Field({}, description="of that method")
    pattern: str | None = Field(None, description="where reasoning is: RE2 with a group named reasoning")
    answers: str | None = Field(None, description="original column that holds the right answers")


Filter = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
"""A boolean SQL expression over the columns of a sample (`datapruner.runs.filters`)."""


class Stages(Part):
    """Every stage, in the order in which they are done, and none of them unless it is asked for.

    `gate`, `dedup` and `contamination` drop samples before they are measured, what is left of `gate` and
    `filter` before the methods score them;
    `combine` makes one score of several and `coverage` selects evenly over it; of what is kept, `calibrate`
    leaves one batch and `rewrite` shortens the reasoning.
    """

    OF_SCORES: ClassVar = ("combine", "coverage", "calibrate")
    """Those that nothing can be done for without methods."""

    gate: Gate | None = Field(None, exclude_if=is_none)
    dedup: Dedup | None = Field(None, exclude_if=is_none)
    contamination: Contamination | None = Field(None, exclude_if=is_none)
    filter: Filter | None = Field(
        None, exclude_if=is_none, description="SQL over a sample's columns, true for those that stay"
    )
    combine: dict[Name, Criterion] | None = Field(None, exclude_if=is_none, min_length=1, max_length=50)
    coverage: Coverage | None = Field(None, exclude_if=is_none)
    calibrate: Calibrate | None = Field(None, exclude_if=is_none)
    rewrite: Rewrite | None = Field(None, exclude_if=is_none)
