"""Forecasts of runs: what one will read, take and leave, and after it how far that was off.

`Plan` is the document of a forecast, kept in the home until the run that it is of; `Settled` is what that run
then came to, kept beside the run.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ConfigDict, Field

from datapruner.schemas.common import Answer, Moment

Reads = Literal["tokens", "forward", "forward and backward"]
"""What a pass does to a sample: makes tokens of it, has a model read it, or differentiates that too."""


class _Stored(Answer):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Expected(_Stored):
    """A number that is expected, and the interval that should hold it; what is counted is all three alike."""

    value: float = Field(ge=0)
    low: float = Field(ge=0)
    high: float = Field(ge=0)

    @classmethod
    def counted(cls, value: float) -> Self:
        """What is known."""
        return cls(value=float(value), low=float(value), high=float(value))

    @property
    def exact(self) -> bool:
        """Whether it is counted and not estimated."""
        return self.low == self.high

    def holds(self, found: float) -> bool:
        """Whether the interval has this number in it, a rounding error allowed for."""
        slack = 1e-9 * max(1.0, abs(found))
        return self.low - slack <= found <= self.high + slack

    def __add__(self, other: Expected) -> Expected:
        """The sum of two; their errors add up, as those of one machine do."""
        return Expected(value=self.value + other.value, low=self.low + other.low, high=self.high + other.high)

    def times(self, factor: float) -> Expected:
        """So many times as much."""
        return Expected(value=self.value * factor, low=self.low * factor, high=self.high * factor)


class Pass(_Stored):
    """One reading of samples by one model.

    `samples` are all that it is over, `cached` of them are measured already and are not read again. `tokens`
    and `seconds` are of the others; `tokens` is null where what reads has no tokens of its own to count,
    `seconds` where it was not measured.
    """

    what: str = Field(description="what reads, such as: measuring, embedding, reference")
    model: str
    parameters: int | None = Field(None, ge=0)
    reads: Reads
    samples: int = Field(ge=0)
    cached: int = Field(ge=0)
    tokens: Expected | None = None
    seconds: Expected | None = None

    @property
    def by_sample(self) -> bool:
        """Whether a run counts it among the samples that it measured."""
        return self.what not in ("embedding", "rewarding", "influence")

    @property
    def missing(self) -> int:
        """Samples that have to be read."""
        return self.samples - self.cached

    @property
    def operations(self) -> int:
        """About how many a token and parameter takes (`datapruner.evaluation.cost`)."""
        return {"tokens": 0, "forward": 2, "forward and backward": 6}[self.reads]

    @property
    def flops(self) -> float:
        """About how many operations what is missing takes."""
        tokens = 0.0 if self.tokens is None else self.tokens.value
        return self.operations * (self.parameters or 0) * tokens


class Probe(_Stored):
    """What was measured for the forecast: rows that went through the models, where, and for how long."""

    device: str
    rows: int = Field(ge=0)
    tokens: int = Field(ge=0)
    seconds: float = Field(ge=0)
    load: float = Field(ge=0, description="load average of the machine when they had been read")
    peak_bytes: int | None = Field(None, description="of the largest measuring process")


class OnDevice(_Stored):
    """How long the passes take a model of a size on some devices. `measured`: whether the probe ran there
    with that model; else `said` has the assumptions that the figure is made of."""

    model: str
    parameters: int | None
    device: str
    count: int = Field(ge=1)
    hours: Expected
    money: Expected | None = Field(None, description="at the price that was given; null without one")
    measured: bool
    said: str

    @property
    def device_hours(self) -> Expected:
        """Hours of all devices together."""
        return self.hours.times(self.count)


class Asks(_Stored):
    """What a teacher is asked (`datapruner.teacher.Estimate`)."""

    questions: int
    stored: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None


class BreakEven(_Stored):
    """Scoring and training on what is kept, against training on everything, in operations or seconds.

    `share`: the first as a part of the second; below one, selecting pays.
    """

    trained_parameters: int = Field(ge=1)
    epochs: float = Field(gt=0)
    all_tokens: float
    kept_tokens: float
    unit: Literal["FLOPs", "seconds"]
    scoring: float
    training_on_all: float
    training_on_kept: float
    share: float
    break_even_parameters: float | None = Field(
        None, description="the size of a trained model from which selecting pays; null where none does"
    )
    pays: bool
    said: str


class Plan(_Stored):
    """What a run is expected to read, take and leave.

    Rows are counted: ingested = samples + duplicates + rejected. `tokens` and `response_tokens` are of all
    samples, each once. `signals_bytes`: of the signals of all samples; `cached_bytes` of them are there.
    `memory_bytes`: of this process and the measuring ones together. `notes`: what the forecast leaves out,
    and what it takes for granted.
    """

    id: str = Field(description="of the request that it is of")
    created_at: Moment
    title: str
    ingested: int
    samples: int
    duplicates: int
    rejected: int
    tokens: Expected
    response_tokens: Expected
    kept_rows: Expected | None = None
    kept_tokens: Expected | None = Field(None, description="read tokens of the rows that are kept")
    passes: list[Pass]
    asks: Asks | None = None
    seconds: Expected | None = Field(None, description="of the passes, on the device of the probe")
    signals_bytes: Expected
    cached_bytes: int
    memory_bytes: int | None
    probe: Probe | None
    devices: list[OnDevice]
    break_even: BreakEven | None = None
    notes: list[str]


class Outcome(_Stored):
    """One figure of a forecast and what was measured. `error`: (measured - forecast) / forecast; null where
    nothing was forecast. `held`: whether the interval had it."""

    what: str
    unit: str
    forecast: Expected
    measured: float
    error: float | None
    held: bool


class Settled(_Stored):
    """A forecast after its run."""

    plan: str
    created_at: Moment
    outcomes: list[Outcome]
    notes: list[str]
