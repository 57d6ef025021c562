"""TOPSIS over any scores: combines methods, each with a weight and a direction (Hwang and Yoon, 1981).

A criterion is `NAME:DIRECTION` or `NAME:DIRECTION:WEIGHT`, criteria are separated by commas, and NAME is
- a signal of a sample (`entropy`, `n_response_tokens`);
- a method, for the score column that bears its name (`ppl`, `donod`);
- `METHOD.COLUMN`, for any other of its score columns (`donod.nod`).

Notable choices:
- methods are asked for their scores with their default options;
- which methods there are is told by whoever lists them, as this one is among them;
- TOPSIS divides a column by its Euclidean norm and has no way to compare signs or heavy tails: one huge value
  leaves all others alike. That is the method as published; nothing is clipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from scorers.column import Column, Direction
from scorers.method import Columns, Method, Options, Selection, option, sample_column
from scorers.selection.ranking import ranked_selection
from scorers.selection.topsis import topsis
from scorers.signals.columns import SAMPLE_SIGNALS, Floats, Signals

NAME = "topsis"
CLOSENESS = Column(NAME, "TOPSIS closeness over the chosen criteria", direction="high", at_least=0, at_most=1)
Known = Callable[[], Mapping[str, Method[Any]]]
"""The methods that there are, by name."""

_EXAMPLE = "such as 'ppl:high:0.5,entropy:low:0.5'"


@dataclass(frozen=True, slots=True)
class Criterion:
    """One score column, whether it is to be high or low, and how much that counts."""

    name: str
    direction: Direction
    weight: float

    @property
    def column(self) -> str:
        """The name that the scores go by in a table of results."""
        return self.name.rpartition(".")[2].replace("-", "_")


@dataclass(frozen=True, slots=True)
class TopsisOptions(Options):
    """Raises ValueError, naming the criterion, for one that cannot be read."""

    criteria: str = option(
        "ppl:high:0.5,entropy:low:0.5",
        "what to combine: NAME:high or NAME:low, each with :WEIGHT where not 1, separated by commas; NAME is "
        "a signal, a method, or METHOD.COLUMN",
        longest=1000,
    )

    def __post_init__(self) -> None:
        Options.__post_init__(self)  # not super(): `slots` makes the class anew
        parse_criteria(self.criteria)


class Topsis:
    """Keep the ceil(share * N) samples closest to the ideal in all criteria together.

    Beside its own columns there are those of its criteria, which their methods and signals describe.
    """

    name = NAME
    title = "TOPSIS: any scores combined, with weights and directions"
    paper = "Hwang and Yoon, 1981"
    options = TopsisOptions
    presets: Mapping[str, Mapping[str, Any]] = {}
    columns: tuple[Column, ...] = (CLOSENESS, CLOSENESS.cut())

    def __init__(self, known: Known) -> None:
        self._known = known

    def needs(self, options: TopsisOptions) -> frozenset[str]:
        """Raises ValueError, naming the criterion, for one that is no score."""
        needed: set[str] = set()
        for criterion, method in self._sources(options):
            needed |= {criterion.name} if method is None else method.needs(method.options())
        return frozenset(needed)

    def scores(self, signals: Signals, options: TopsisOptions, seed: int) -> Columns:
        """Each criterion's column under its own name, and the closeness as `topsis`.

        Raises ValueError for a column that is not there, not of numbers or not finite.
        """
        sources = self._sources(options)
        criteria = [criterion for criterion, _ in sources]
        found: Columns = {}
        asked: dict[str, Columns] = {}
        for criterion, method in sources:
            if method is None:
                found[criterion.column] = sample_column(signals, criterion.name)
                continue
            if method.name not in asked:
                asked[method.name] = method.scores(signals, method.options(), seed)
            found[criterion.column] = _column(asked[method.name], criterion, method)
        table = np.column_stack([found[criterion.column].astype(np.float64) for criterion in criteria])
        weights = [criterion.weight for criterion in criteria]
        closeness = topsis(table, weights, [criterion.direction for criterion in criteria])
        return {**found, NAME: closeness}

    def token_scores(self, signals: Signals, options: TopsisOptions) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: TopsisOptions, seed: int
    ) -> Selection:
        closeness: Floats = np.asarray(scores[NAME], dtype=np.float64)
        return ranked_selection(
            signals, closeness, share, among="TOPSIS closeness among the highest", shown={NAME: closeness}
        )

    def _sources(self, options: TopsisOptions) -> list[tuple[Criterion, Method[Any] | None]]:
        """Each criterion with the method that gives its score; None for a signal. Raises ValueError."""
        known = {name: method for name, method in self._known().items() if name != NAME}
        return [(criterion, _source(criterion.name, known)) for criterion in parse_criteria(options.criteria)]


def parse_criteria(text: str) -> list[Criterion]:
    """The criteria that `text` lists, at least one, of different columns.

    Raises ValueError, naming the criterion, for one that is not NAME:DIRECTION[:WEIGHT], a direction other
    than high and low, a weight that is not over 0, and a column that comes twice.
    """
    criteria: list[Criterion] = []
    for part in text.split(","):
        name, *rest = (field.strip() for field in part.split(":"))
        if not name or len(rest) not in (1, 2):
            raise ValueError(f"criterion {part.strip()!r} is not NAME:DIRECTION[:WEIGHT], {_EXAMPLE}")
        direction = next((known for known in get_args(Direction) if known == rest[0]), None)
        if direction is None:
            raise ValueError(f"criterion {part.strip()!r}: direction {rest[0]!r} is neither high nor low")
        try:
            weight = float(rest[1]) if len(rest) == 2 else 1.0
        except ValueError:
            weight = math.nan
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"criterion {part.strip()!r}: weight {rest[1]!r} is not a number over 0")
        criterion = Criterion(name, direction, weight)
        if any(criterion.column == other.column for other in criteria):
            raise ValueError(f"criterion {part.strip()!r}: the column {criterion.column} comes twice")
        criteria.append(criterion)
    return criteria


def _source(name: str, known: Mapping[str, Method[Any]]) -> Method[Any] | None:
    """The method that gives the score called `name`; None when it is a signal. Raises ValueError."""
    method_name, _, column = name.partition(".")
    if not column and name in SAMPLE_SIGNALS:
        return None
    if method_name not in known or name.endswith("."):
        raise ValueError(
            f"criterion {name!r} is no score; known are the methods {', '.join(known)}, their other columns "
            f"as METHOD.COLUMN, and the signals {', '.join(SAMPLE_SIGNALS)}"
        )
    return known[method_name]


def _column(scores: Columns, criterion: Criterion, method: Method[Any]) -> np.ndarray[Any, Any]:
    """The method's score column that the criterion means. Raises ValueError."""
    numbers = {name: values for name, values in scores.items() if values.dtype.kind in "iufb"}
    if criterion.column not in numbers:
        raise ValueError(
            f"criterion {criterion.name!r}: method {method.name} has no numbers {criterion.column}; "
            f"it has {', '.join(numbers) or 'none'}"
        )
    return numbers[criterion.column]
