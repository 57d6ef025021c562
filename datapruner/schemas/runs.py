"""Runs: what was asked for, what came of it, and why."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from datapruner.request.settings import RunSettings
from datapruner.schemas.common import Answer, Moment, Request
from datapruner.schemas.evaluations import Evaluation, Verdict
from datapruner.schemas.jobs import JobState
from datapruner.validation import of_kind


class RunRequest(Request, RunSettings):
    """What to run: methods and how much to keep, or a recipe, which says all of it.

    What says how much to keep prunes, by one method; what does not scores, by one method or several.
    """

    recipe: Annotated[str | dict[str, Any], of_kind(str, dict)] | None = Field(
        None,
        description="instead of the other fields: a recipe as YAML text, or the same as an object, without "
        "data, mapping and export; its target, evaluation and held-out sets are datasets of the project",
    )

    @model_validator(mode="after")
    def _recipe_or_settings(self) -> Self:
        beside = sorted(self.model_fields_set & RunSettings.model_fields.keys())
        if self.recipe is not None and beside:
            said = {"text": f"it says all of the run: leave out {', '.join(beside)}", "at": ["recipe"]}
            raise PydanticCustomError("configuration", "{text}", said)
        return self


class NewRun(RunRequest):
    """`dataset` is a name or id; `version` a number, null for the latest."""

    dataset: str
    version: int | None = Field(None, ge=1, le=2**31 - 1)


class RunAnswer(Answer):
    """`report` has the counts: ingested = kept + pruned + rejected + errored. Null until published.

    `verdict`: of its last evaluation; null where there is none, or none that reached random rows.
    """

    id: str
    dataset_id: str
    dataset: str
    version: int | None
    job_id: str
    state: JobState
    config: dict[str, Any] = Field(repr=False)
    content_id: str | None
    lineage: dict[str, Any] | None = Field(repr=False)
    report: dict[str, Any] | None = Field(repr=False)
    measured: int | None
    seconds: float | None
    verdict: Verdict | None
    created_at: Moment
    published_at: Moment | None


class ReportAnswer(Answer):
    """What became of the input, with what replays it. Tokens are response tokens.

    `report`: ingested = kept + pruned + rejected + errored, duplicates among the pruned, counts of shapes,
    reasons, quadrants and a recipe's stages, the thresholds that were applied, the scores that the methods
    rank by, and warnings of what to mind.
    """

    run: str
    content_id: str
    config: dict[str, Any] = Field(repr=False)
    lineage: dict[str, Any] = Field(repr=False)
    report: dict[str, Any] = Field(repr=False)


class MaskAnswer(Answer):
    """Kept response tokens of a kept sample: indices into input_ids, and (turn, start, end) characters.

    `token_weight`: factors of their loss, as many; null where the run weights no tokens.
    """

    row: int
    sample_id: str
    kept_tokens: list[int]
    kept_spans: list[dict[str, int]]
    token_weight: list[float] | None


class PieceAnswer(Answer):
    """A stretch of text whose tokens fared alike; empty for an end-of-turn token, which has no text."""

    text: str
    state: Literal["kept", "pruned", "scored", "untrained"]


class TurnAnswer(Answer):
    """One turn. `untrained` is why an assistant turn is not trained on, as the row says it."""

    role: str | None
    pieces: list[PieceAnswer]
    tool_calls: str | None
    untrained: str | None


class TokenAnswer(Answer):
    """A response token: characters `start` to `end` of its turn's content, which are `text`.

    `position` is the index into input_ids. `nll`, `entropy` and `el2n` are null in a run for which no model
    read the samples, `el2n` also once its signals are deleted. `keep` is null in a run that pruned nothing,
    and in a sample that was rewritten. `weight` is the factor of the token's loss, 0 where it is not trained
    on; null where the run weights no tokens.
    """

    position: int
    turn: int
    start: int
    end: int
    text: str
    nll: float | None
    entropy: float | None
    el2n: float | None
    is_end: bool
    keep: bool | None
    weight: float | None


class StepAnswer(Answer):
    """A step of the reasoning of a row that was to be rewritten. `surprisal`: its score, in nats."""

    text: str
    surprisal: float | None
    kept: bool
    why: str


class ChangeAnswer(Answer):
    """A stretch of a response that was rewritten: in the original and in the new text, or in one of them."""

    text: str
    kind: Literal["same", "removed", "added"]


class NearDuplicateAnswer(Answer):
    """A near duplicate, and how alike the two are: the Jaccard similarity of their words."""

    row: int
    jaccard: float


class SampleAnswer(Answer):
    """Why a row of the input was kept, pruned or refused: everything that is known of it.

    `ranks`: of each numeric score among the `ranked` samples measured, 1 for the highest. `copies`: other
    rows with the same conversation. `near`: near duplicates that the run found, the row that this one was
    dropped for or the rows that were dropped for it. `source`: where a rejected row stood. `notes`: what
    cannot be shown, and why. `steps`: of runs that rewrite. `changes`: the response before and after it was
    rewritten. `prompt`: all that the model reads before the first response token, what the chat template adds
    included, such as a system prompt of its own or the list of tools.
    """

    run: str
    row: int
    sample_id: str | None
    status: Literal["kept", "pruned", "scored", "rejected", "error"]
    reason: str | None
    quadrant: str | None
    scores: dict[str, Any]
    ranks: dict[str, int]
    ranked: int
    thresholds: dict[str, float]
    turns: list[TurnAnswer]
    tokens: list[TokenAnswer]
    copies: list[int]
    source: dict[str, Any]
    notes: list[str]
    steps: list[StepAnswer]
    prompt: str | None
    changes: list[ChangeAnswer]
    near: list[NearDuplicateAnswer]


class ScoreCorrelation(Answer):
    """Rank correlation (Spearman) of a score over the samples that both runs scored."""

    column: str
    samples: int
    spearman: float | None


class OwnCorrelation(Answer):
    """The same of a score of the first run with one of the second, whatever they are called."""

    first: str
    second: str
    samples: int
    spearman: float | None


class MeanTokens(Answer):
    """Response tokens of a sample, on average: of those that a run keeps, and of all, which is what random
    rows have."""

    kept: float
    all: float


class Comparison(Answer):
    """Two runs over the same rows: how many samples both keep, one keeps, neither keeps; by sample id.

    `kept_by_both_at_random`: how many both would keep on average if one of them were a draw of as many random
    samples. `first_tokens`, `second_tokens`: how long those are that a run keeps; null where it keeps none or
    counted no tokens.
    `correlations`: of every score that both have. `own_scores`: of each score that the first run ranked by
    with each that the second did, the first eight of either. `evaluations`: the last of either run, if any.
    """

    first: str
    second: str
    common_samples: int
    kept_by_both: int
    kept_by_first_only: int
    kept_by_second_only: int
    kept_by_neither: int
    kept_by_both_at_random: float
    jaccard: float | None
    first_tokens: MeanTokens | None
    second_tokens: MeanTokens | None
    correlations: list[ScoreCorrelation]
    own_scores: list[OwnCorrelation]
    evaluations: list[Evaluation] = Field([], repr=False)
