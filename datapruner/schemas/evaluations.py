"""Evaluations: whether what a run kept is worth training on, told by trainings.

Models are trained on the subset and, as controls, on other rows of the same corpus; each is then read on
held-out rows. `Evaluation` is the document of it, which is stored beside the run, travels and is shown.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from datapruner.request.evaluating import EvaluationSettings
from datapruner.schemas.common import Answer, Moment, Request
from datapruner.schemas.jobs import JobState

Verdict = Literal["better", "no difference", "worse"]
"""Of the subset, against a control; "no difference" where none is shown."""
SUBSET = "subset"
"""The arm that trains on what the run kept. The others are controls, by their names."""
RANDOM = "random"
"""The control that the verdict is about: rows drawn anew for each seed, at equal trained tokens."""
RANDOM_TOKENS = "random-tokens"
"""The control of runs that mask or weight tokens: of each of their rows as many tokens, and the same weights,
drawn anew for each seed."""


class _Stored(Answer):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Estimate(_Stored):
    """A difference, subset minus control, and the interval that holds it with the stated confidence."""

    difference: float
    low: float
    high: float


class Against(_Stored):
    """What came of the comparison with one control, on one held-out set or over all.

    `nats_per_token`: of loss on the labelled tokens; below zero the subset is better. `exact_match`: of the
    share of rows that are answered as they should be; above zero the subset is better. It is null where no
    row has an answer. `verdict` is told by the loss alone. `covers_seeds`: whether the interval holds
    for other seeds too; with one seed it is of held-out rows alone, and the verdict is "no difference".
    """

    control: str
    verdict: Verdict
    said: str = Field(description="the verdict as a sentence, with the number and its interval")
    nats_per_token: Estimate
    exact_match: Estimate | None
    seeds: int = Field(ge=1, description="seeds for which both were trained and read")
    rows: int = Field(ge=1, description="held-out rows that were read")
    covers_seeds: bool


class HeldOutSet(_Stored):
    """A held-out set and what came of it: rows = read + rejected + left_out.

    `left_out`: copies of other rows, those without a labelled token, and more than there was time for.
    `contaminated`: rows of the corpus that are the same as rows held out, or hold text of them, and so are
    not trained on. `losses`: nats per labelled token by arm, mean over seeds; of arms that diverged, none.
    """

    name: str
    source: str
    corpus_hash: str
    rows: int = Field(ge=0)
    read: int = Field(ge=0)
    rejected: int = Field(ge=0)
    contaminated: int = Field(ge=0)
    left_out: int = Field(0, ge=0)
    tokens: int = Field(ge=0, description="labelled tokens of the rows read")
    answered: int = Field(0, ge=0, description="rows read whose answer is known and was compared")
    losses: dict[str, float] = Field({})
    exact_match: dict[str, float] = Field({}, description="share of rows answered rightly, by arm")
    tasks: dict[str, dict[str, float]] = Field(
        {}, description="of a set that is a task of lm-eval: its metrics by arm, mean over seeds"
    )
    against: list[Against] = Field([], description="one a control that was reached")


class Arm(_Stored):
    """What one arm was trained on, and how long that took; means over seeds where they differ."""

    name: str
    rows: float = Field(ge=0)
    tokens: float = Field(ge=0, description="tokens read, labelled or not, of all steps")
    trained_tokens: float = Field(ge=0, description="labelled tokens of all steps")
    steps: float = Field(ge=0)
    seconds: float = Field(ge=0, description="of one training")
    seeds: list[int] = Field(description="those that were trained and read")


class Carried(_Stored):
    """What became of the kept rows where a model with another tokenizer or template was trained: masks are
    carried over by characters, rows = trained + untrained + the `refused`.

    Rows held out are not among them. `untrained`: rows without a token whose characters were all kept.
    `refused`: rows that the model cannot read, by their reasons. `on_border`: of its `response_tokens`, those
    with characters of both kinds, kept and not, which are not trained on.
    """

    rows: int = Field(ge=0)
    trained: int = Field(ge=0)
    untrained: int = Field(ge=0)
    refused: dict[str, int]
    response_tokens: int = Field(ge=0)
    on_border: int = Field(ge=0)
    said: str


class Cost(_Stored):
    """Whether selecting pays: what measuring took, and what training on less saves.

    FLOPs by 2 a parameter and token forward, 6 forward and backward (Kaplan et al. 2020, 2001.08361, 2.1).
    `break_even_parameters`: the size of a trained model from which the FLOPs saved are more than those of
    measuring (`datapruner.evaluation.cost`); null where the subset saves nothing.
    """

    proxy_parameters: int = Field(ge=1)
    measured_tokens: int = Field(ge=0, description="the proxy's own, of all samples of the run")
    measuring_flops: float = Field(ge=0)
    measuring_seconds: float | None = Field(ge=0, description="null where all was measured before")
    all_tokens: int = Field(ge=0, description="of one epoch on all rows, labelled or not, by the model")
    subset_tokens: int = Field(ge=0, description="of one epoch on the subset")
    saved_trained_tokens: int = Field(description="labelled tokens fewer in one epoch")
    epochs: float = Field(gt=0)
    break_even_parameters: float | None
    trained_parameters: int = Field(ge=1, description="of the model that this evaluation trained")
    pays: bool = Field(description="for a model of that size")
    said: str


class Evaluation(_Stored):
    """An evaluation of one run. Its `id` is a hash of all that decides the result.

    `overall`: each held-out set counts the same. `verdict` is that of `overall` against random rows at equal
    trained tokens, null when that was not reached or a training of either diverged, and `said` says it, or
    why there is none.
    """

    id: str = Field(pattern="^[0-9a-f]{8,64}$")
    run: str
    created_at: Moment
    settings: EvaluationSettings
    model: str = Field(description="what was trained: its source")
    model_hash: str = Field(description="of its weights, tokenizer and template")
    device: str
    learning_rate: float = Field(gt=0)
    learning_rates: dict[str, float | None] = Field(
        {},
        description="held-out loss of random rows by the learning rates that were tried; null: it diverged",
    )
    confidence: float = Field(gt=0, lt=1)
    arms: list[Arm]
    held_out: list[HeldOutSet]
    overall: list[Against]
    verdict: Verdict | None
    said: str
    diverged: list[str] = Field([], description="trainings that came to nothing, in words")
    not_reached: list[str] = Field([], description="what time was too short for, and how to get it, in words")
    carried: Carried | None = Field(None, description="where the trained model's tokens are not the proxy's")
    cost: Cost | None
    seconds: float = Field(ge=0)
    packages: dict[str, str] = Field(description="versions of what computed it")


class NewEvaluation(Request, EvaluationSettings):
    """How to evaluate a run. Held-out sets are datasets of the project, by name or id, at the latest version
    or, as in name@3, at another."""


class EvaluationAnswer(Answer):
    """An evaluation at a service. `settings` with the versions of the held-out sets; `evaluation` and its
    `verdict` are null until it is published, and the verdict where the evaluation came to none."""

    id: str
    run_id: str
    job_id: str
    state: JobState
    settings: dict[str, Any] = Field(repr=False)
    verdict: Verdict | None
    evaluation: Evaluation | None = Field(repr=False)
    created_at: Moment
    published_at: Moment | None
