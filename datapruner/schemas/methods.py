"""Methods, their options and their columns."""

from __future__ import annotations

from typing import Any

from datapruner.schemas.common import Answer
from datapruner.schemas.evaluations import Verdict
from scorers.column import Direction, Kind, Of


class ColumnAnswer(Answer):
    """A column or threshold of a method.

    `of`: what it has one value for: a sample, whatever is kept; a sample of a selection; a response token;
    or, as a threshold in the report, the selection as a whole. `direction`: the end of it that is kept by
    default, if either is. `always`: whether every run has the column, null where another method ran.
    """

    name: str
    meaning: str
    of: Of
    kind: Kind
    unit: str
    direction: Direction | None
    at_least: float | None
    at_most: float | None
    values: list[str]
    always: bool


class KeptAnswer(Answer):
    """Of the `rows` of a kind in a corpus, `kept` were kept where half of the corpus was asked for."""

    corpus: str
    kind: str
    kept: int
    rows: int


class LengthAnswer(Answer):
    """Rank correlation of a score with the response's tokens, above 0 where long ones are kept."""

    column: str
    correlation: float
    rows: int


class ChangeAnswer(Answer):
    """Against random rows at equal trained tokens: nats a token that held-out loss changed by, below 0 for
    better, with its interval at 95 %."""

    setting: str
    difference: float
    low: float
    high: float
    verdict: Verdict
    seeds: int
    rows: int
    trained_tokens: float


class FindingAnswer(Answer):
    """What was measured of a method, with the options given and else its defaults, on public corpora.

    `tokens`: the share of the response tokens in the kept half of the first corpus. `left_out`: what was not
    measured, and why. `words`: what sets it apart from the defaults, "" for these.
    """

    words: str
    options: dict[str, Any]
    kept: list[KeptAnswer]
    tokens: float | None
    length: LengthAnswer | None
    changes: list[ChangeAnswer]
    left_out: list[str]


class MethodAnswer(Answer):
    """`options` is a JSON Schema; `presets` are published settings. `findings` are of public corpora,
    measured with what `measured_with` says, when this version was made."""

    name: str
    title: str
    paper: str
    prunes_tokens: bool
    options: dict[str, Any]
    presets: dict[str, dict[str, Any]]
    columns: list[ColumnAnswer]
    findings: list[FindingAnswer]
    measured_with: list[str]
