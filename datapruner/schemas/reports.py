"""The report of a run: everything that came of it, as numbers, for people and programs.

A part that a run does not have is absent. "Before" is every row that has a value, "after" the rows that were
kept; a run that only scored has no "after". Texts of rows are data, whatever they hold; they are cut to
`TEXT_CHARACTERS`, and the number of characters that they have is beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field

from datapruner.request.parts import is_none
from datapruner.schemas.common import Answer, Moment
from datapruner.schemas.evaluations import Evaluation
from datapruner.schemas.plans import Settled

TEXT_CHARACTERS = 400
"""Characters of a turn, of a reason or of an excerpt that a report shows."""
Status = Literal["kept", "pruned", "scored", "rejected", "error"]
Scale = Literal["linear", "log"]


Step = Literal[
    "read",
    "exact duplicates",
    "gate",
    "near duplicates",
    "contamination",
    "measure",
    "filter",
    "select",
    "calibrate",
    "rewrite",
]
STEPS: Mapping[Step, str] = {
    "read": "could not be read",
    "exact duplicates": "are exact copies of other rows",
    "gate": "have obvious defects",
    "near duplicates": "are near duplicates",
    "contamination": "hold text of an evaluation set",
    "measure": "could not be measured",
    "filter": "were left out by the filter",
    "select": "were not selected",
    "calibrate": "are not in the batch chosen to calibrate with",
    "rewrite": "were lost in rewriting",
}
"""Where rows are taken away, in the order in which a run does it; and what is said of such rows."""


class _Part(Answer):
    """Numbers that JSON has no words for are null."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")


class ReportCounts(_Part):
    """What became of the input: ingested = kept + pruned + rejected + errored.

    Where nothing was `selected`, kept are the rows that were scored. `duplicates`: exact copies of other rows
    among them.
    """

    selected: bool
    ingested: int
    kept: int
    pruned: int
    rejected: int
    errored: int
    duplicates: int


class ReportTokens(_Part):
    """Response tokens of all measured rows, and those that training on what was kept reads.

    `kept` is null where nothing was selected or nothing counted them. `truncated`: lost to the length limit.
    """

    before: int
    kept: int | None
    truncated: int


class AtRandom(_Part):
    """What random rows would hold in place of those kept, on average; copies of a sample count once.

    Of `samples` that could be kept, `kept` were. As many random ones would share `shared` with these.
    `tokens`: response tokens of a kept sample on average; `tokens_at_random`: of a random one. `rows`: how
    many random ones have as many trained tokens as what was kept.
    """

    samples: int
    kept: int
    shared: float
    tokens: float
    tokens_at_random: float
    rows: float


class ReasonCount(_Part):
    """How many rows have one reason; what such a reason says of a single row is left out."""

    status: Status
    reason: str
    rows: int


class FunnelStep(_Part):
    """What one step took away: before it there were `left + removed` rows.

    `reasons`: the commonest, and `other_reasons` more that account for `other_rows`; together they are
    `removed`.
    """

    step: Step
    removed: int
    left: int
    reasons: list[ReasonCount]
    other_reasons: int = 0
    other_rows: int = 0


class Funnel(_Part):
    """From the rows ingested to those kept, step by step: the last step leaves the rows kept.

    `kept`: why those stayed, the commonest reasons first; as in a step, the others are counted.
    """

    ingested: int
    steps: list[FunnelStep]
    kept: list[ReasonCount]
    other_reasons: int = 0
    other_rows: int = 0


class Summary(_Part):
    """Of `rows` finite numbers; quartiles are interpolated between neighbours."""

    rows: int
    mean: float
    minimum: float
    lower_quartile: float
    median: float
    upper_quartile: float
    maximum: float


class Distribution(_Part):
    """How the numbers of a column are distributed, in bins that both counts share.

    Bin i holds what is above `edges[i]` and at most `edges[i + 1]`; the first its lower edge, too. Of whole
    numbers the edges lie between them. `unplaced`: rows whose number has no bin, for it is not finite, or
    not above zero on a log scale.
    """

    column: str
    text: str
    scale: Scale
    edges: list[float]
    before: list[int]
    after: list[int] | None = Field(None, exclude_if=is_none)
    unplaced: int
    summary_before: Summary
    summary_after: Summary | None = Field(None, exclude_if=is_none)
    thresholds: dict[str, float] = Field({}, description="those that are on this column's scale")


class CategoryCount(_Part):
    """How many rows have one value, and how many of those were kept."""

    value: str
    rows: int
    kept: int | None = Field(None, exclude_if=is_none)


class Category(_Part):
    """The commonest values of a column of names; `other_rows` have one of `other_values` more."""

    column: str
    text: str
    values: list[CategoryCount]
    other_values: int = 0
    other_rows: int = 0


class Quadrant(_Part):
    """A quarter of the plane, or the band between its thresholds: its measured samples, and those kept."""

    name: str
    meaning: str
    samples: int
    kept: int | None = Field(None, exclude_if=is_none)


class Plane(_Part):
    """The error-uncertainty plane: measured samples by entropy (x) and perplexity (y); copies count once.

    `samples[j][i]` is how many lie in bin i of x and bin j of y, bins as in a distribution; `kept` likewise.
    """

    x: str
    y: str
    x_scale: Scale
    y_scale: Scale
    x_edges: list[float]
    y_edges: list[float]
    samples: list[list[int]]
    kept: list[list[int]] | None = Field(None, exclude_if=is_none)
    thresholds: dict[str, float]
    quadrants: list[Quadrant] | None = Field(None, exclude_if=is_none)


class ExampleTurn(_Part):
    """The beginning of a turn, and the characters that all of it has."""

    role: str
    text: str
    characters: int


class Example(_Part):
    """A sample. `turns`: its first ones of `n_turns`; null where the corpus is gone."""

    row: int
    sample_id: str
    status: Status
    reason: str | None
    value: float
    n_turns: int | None = Field(None, exclude_if=is_none)
    turns: list[ExampleTurn] | None = Field(None, exclude_if=is_none)


class ExampleGroup(_Part):
    """Some samples by the numbers of one column, chosen by `kind` (docs/report.md says how, exactly).

    highest, lowest: the extremes of all measured samples. typical: those in the middle, by rank, of the
    samples of one status. borderline: of the kept and of the pruned ones those whose number is nearest to
    `threshold`. Equal ones: the earliest rows.
    """

    column: str
    kind: Literal["typical", "highest", "lowest", "borderline"]
    threshold: str | None = Field(None, exclude_if=is_none)
    at: float | None = Field(None, exclude_if=is_none, description="where the threshold is")
    examples: list[Example]


class Group(_Part):
    """Rows that have something in common: rows = kept + pruned + rejected + errored."""

    name: str
    rows: int
    kept: int
    pruned: int
    rejected: int
    errored: int
    tokens_before: int | None = Field(None, exclude_if=is_none)
    tokens_kept: int | None = Field(None, exclude_if=is_none)


class Groups(_Part):
    """The largest groups; those that are no more than counted come under `others`."""

    groups: list[Group]
    others: int = 0
    other_rows: int = 0


class LengthGroup(_Part):
    """A tenth of the rows, by length: those with `low` to `high` of what the length counts."""

    low: int
    high: int
    rows: int
    kept: int | None = Field(None, exclude_if=is_none)


class Lengths(_Part):
    """Tenths of the rows by `column`; equal lengths are never parted, so that there may be fewer."""

    column: str
    groups: list[LengthGroup]


class RejectedRow(_Part):
    row: int
    source: str
    line: int | None
    excerpt: str | None


class Rejects(_Part):
    """Rows that were refused for one reason, the first of them shown."""

    code: str
    field: str | None
    reason: str
    remedy: str | None
    rows: int
    examples: list[RejectedRow]


class Failures(_Part):
    """Rows that failed for one reason, and the first of them by number."""

    reason: str
    rows: int
    first: list[int]


class Copies(_Part):
    """A sample with copies: its first row, how many more rows are the same, and the first of those."""

    sample_id: str
    row: int
    copies: int
    rows: list[int]


class Duplicates(_Part):
    """Exact copies of other rows: how many, of how many samples, and the samples with the most."""

    rows: int
    samples: int
    most: list[Copies]


class ReportRewriting(_Part):
    """What became of the rows whose reasoning was to be rewritten, and of its tokens.

    `outcomes`: rows by status (rewritten, original, dropped, error); `accepted` is the share rewritten.
    `levels`: rows by difficulty, where a teacher judged it. `tokens`: the reasoning's before and after, of
    the rows in which there is some. `flaws`: of what was rewritten, by kind, those that there are: references
    and colons to what is gone, and marks that lost their counterpart.
    """

    rows: int
    accepted: float
    outcomes: dict[str, int]
    reasons: list[ReasonOfRewriting]
    levels: dict[str, int] | None = Field(None, exclude_if=is_none)
    flaws: dict[str, int]
    tokens_before: int
    tokens_after: int
    tokens: Distribution | None = Field(None, exclude_if=is_none)


class ReasonOfRewriting(_Part):
    status: str
    reason: str
    rows: int


class RunReport(_Part):
    """Everything that came of a run.

    `notes`: what cannot be shown, and why. `stages`: counts of a recipe's stages and of rewriting.
    `thresholds`: the cuts that decided. `replay`: the command that does it again, if one did it.
    """

    run: str
    title: str
    published_at: Moment
    notes: list[str] | None = Field(None, exclude_if=is_none)
    warnings: list[str] | None = Field(None, exclude_if=is_none)
    truncated_sources: dict[str, str] | None = Field(None, exclude_if=is_none)
    counts: ReportCounts
    tokens: ReportTokens | None = Field(None, exclude_if=is_none)
    at_random: AtRandom | None = Field(None, exclude_if=is_none)
    funnel: Funnel
    stages: dict[str, dict[str, int]] | None = Field(None, exclude_if=is_none)
    thresholds: dict[str, float | None] | None = Field(None, exclude_if=is_none)
    distributions: list[Distribution] | None = Field(None, exclude_if=is_none)
    categories: list[Category] | None = Field(None, exclude_if=is_none)
    plane: Plane | None = Field(None, exclude_if=is_none)
    examples: list[ExampleGroup] | None = Field(None, exclude_if=is_none)
    by_source: Groups | None = Field(None, exclude_if=is_none)
    by_shape: Groups | None = Field(None, exclude_if=is_none)
    by_length: Lengths | None = Field(None, exclude_if=is_none)
    rejects: list[Rejects] | None = Field(None, exclude_if=is_none)
    failures: list[Failures] | None = Field(None, exclude_if=is_none)
    duplicates: Duplicates | None = Field(None, exclude_if=is_none)
    rewriting: ReportRewriting | None = Field(None, exclude_if=is_none)
    evaluations: list[Evaluation] | None = Field(None, exclude_if=is_none)
    forecast: Settled | None = Field(None, exclude_if=is_none)
    config: dict[str, Any]
    lineage: dict[str, Any]
    replay: str | None = Field(None, exclude_if=is_none)
