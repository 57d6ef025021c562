"""Scores and masks from signals: the cheap half of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from datapruner.errors import UsageError
from datapruner.request.config import MethodChoice, find
from datapruner.request.keep import Keep
from datapruner.request.needs import Combine, method_of
from datapruner.request.parts import Coverage
from datapruner.runs.cautions import missed_target, mostly_length, weighted
from scorers.column import Of
from scorers.method import Columns, Selection, sample_column
from scorers.methods import registry
from scorers.methods.topsis_columns import NAME as _COMBINED
from scorers.selection.coverage import coverage_selection
from scorers.selection.ranking import ranked_selection
from scorers.selection.topsis import topsis
from scorers.signals.columns import SAMPLE_SIGNALS, Floats, Ints, Signals

Select = Callable[[float], Selection]
"""A selection for every share."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What the chosen methods say of N measured samples (M response tokens).

    tokens: gives the token columns of samples that follow each other, some thousand at a time.
    own: the columns that they rank by: of each method the one that is called like it, or else all its numbers
    with fractions; of a combined score that alone. warnings: where they do not do what was asked, in words.
    """

    samples: Columns
    tokens: Callable[[slice], Columns]
    selection: Selection | None
    own: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def score(
    signals: Signals,
    methods: list[MethodChoice],
    keep: Keep | None,
    seed: int,
    *,
    combine: Combine | None = None,
    coverage: Coverage | None = None,
) -> Scored:
    """Run every method over the signals, and with `keep` select.

    What selects is the method, if there is but one; with `combine` the closeness (TOPSIS) over these
    criteria, as the column `topsis`; with `coverage` the range of that, or of the only method's score.

    Raises UsageError when `keep` asks for more than there is, or a score that is wanted is not there.
    """
    by_method = {choice.name: find(choice.name).scores(signals, choice.parsed(), seed) for choice in methods}
    samples: Columns = {}
    tokens = partial(_token_scores, replace(signals, vectors={}), methods)
    for choice in methods:
        samples |= _described(choice.name, "sample", by_method[choice.name])
    own = tuple(dict.fromkeys(name for choice in methods for name in _own(choice.name, by_method)))
    if combine is not None:
        samples[_COMBINED], own = _combined(signals, by_method, combine), (_COMBINED,)
    lengthy = mostly_length(samples, signals.lengths)
    if keep is None:
        return Scored(samples, tokens, None, own, tuple(lengthy))
    if coverage is not None:
        name = _COMBINED if combine is not None else methods[0].name
        values = samples[name] if combine is not None else _column(by_method, name, "coverage")
        select = _covering(signals, np.asarray(values, dtype=np.float64), coverage, seed, name)
    elif combine is not None:
        name = _COMBINED
        select = _ranking(signals, np.asarray(samples[_COMBINED], dtype=np.float64))
    else:
        [choice] = methods
        name, method, options = choice.name, find(choice.name), choice.parsed()

        def select(share: float) -> Selection:
            selection = method.select(signals, by_method[name], share, options, seed)
            _described(name, "selection", dict(selection.columns))
            return selection

    selection = _select(signals, select, keep, name)
    trained = kept_tokens(signals, selection)
    told = (*selection.warnings, *weighted(selection, name))
    missed = (*told, *missed_target(signals, selection, keep, trained, name))
    return Scored(samples | dict(selection.columns), tokens, selection, own, (*missed, *lengthy))


def _token_scores(signals: Signals, methods: Sequence[MethodChoice], samples: slice) -> Columns:
    """The token columns of some of the samples."""
    some, found = signals.part(samples), Columns()
    for choice in methods:
        found |= _described(choice.name, "token", find(choice.name).token_scores(some, choice.parsed()))
    return found


def _described(method: str, of: Of, columns: Columns) -> Columns:
    """The columns that a method writes. Raises UsageError when one is described neither by it nor, as TOPSIS
    shows those that it combines, by another method or as a signal."""
    new = columns.keys() - {column.name for column in find(method).columns if column.of == of}
    if new:
        known = (*SAMPLE_SIGNALS.values(), *(c for each in registry.methods().values() for c in each.columns))
        new -= {column.name for column in known if column.of == of}
    if new:
        raise UsageError(
            f"method {method} writes {', '.join(sorted(new))}, which it does not describe",
            remedy="describe it among the method's columns",
            field="methods",
        )
    return columns


def _own(method: str, by_method: Mapping[str, Columns]) -> list[str]:
    """The columns that a method ranks by."""
    columns, name = by_method[method], _column_name(method)
    return (
        [name] if name in columns else [each for each, values in columns.items() if values.dtype.kind == "f"]
    )


def _column_name(method: str) -> str:
    """What a method's main score is called."""
    return method.replace("-", "_")


def _combined(signals: Signals, by_method: Mapping[str, Columns], combine: Combine) -> Floats:
    """Closeness of each sample to the ideal in all criteria, (N,)."""
    columns = [
        sample_column(signals, name)
        if method_of(name, by_method) is None
        else _column(by_method, name, f"combine.{name}")
        for name in combine
    ]
    table = np.column_stack([np.asarray(column, dtype=np.float64) for column in columns])
    finite = np.isfinite(table).all(axis=0)
    if not finite.all():
        name = list(combine)[int(np.argmin(finite))]
        raise UsageError(
            f"the score {name} is not finite for every sample, so it cannot be combined",
            remedy="leave such samples out with a filter, or leave it out",
            field=f"combine.{name}",
        )
    criteria = list(combine.values())
    return topsis(table, [each.weight for each in criteria], [each.direction for each in criteria])


def _column(by_method: Mapping[str, Columns], name: str, field: str) -> NDArray[np.generic]:
    """The score column that METHOD or METHOD.COLUMN means. Raises UsageError."""
    method, _, rest = name.partition(".")
    numbers = {each: values for each, values in by_method[method].items() if values.dtype.kind in "iufb"}
    column = _column_name(rest or method)
    if column not in numbers:
        known = ", ".join(f"{method}.{each}" for each in numbers) or "none"
        raise UsageError(
            f"method {method} has no score {column}",
            remedy=f"its scores are {known}; `combine` can name one",
            field=field,
        )
    return numbers[column]


def _ranking(signals: Signals, closeness: Floats) -> Select:
    def select(share: float) -> Selection:
        shown = {_COMBINED: closeness}
        return ranked_selection(
            signals, closeness, share, among="combined score among the highest", shown=shown
        )

    return select


def _covering(signals: Signals, values: Floats, coverage: Coverage, seed: int, name: str) -> Select:
    if not np.isfinite(values).all():
        raise UsageError(
            f"the score {name} is not finite for every sample, so its range cannot be covered",
            remedy="leave such samples out with a filter",
            field="coverage",
        )

    def select(share: float) -> Selection:
        return coverage_selection(
            signals,
            values,
            share,
            hardest=coverage.hardest,
            hard_prune=coverage.hard_prune,
            bins=coverage.bins,
            seed=seed,
            name=name,
        )

    return select


def _select(signals: Signals, select: Select, keep: Keep, name: str) -> Selection:
    n = len(signals)
    if keep.share is not None:
        return select(keep.share)
    if keep.count is not None:
        if keep.count > n:
            raise UsageError(
                f"asked to keep {keep.count} samples, but only {n} were measured",
                remedy="keep fewer, or a share",
            )
        return select(keep.count / n)
    assert keep.tokens is not None
    return _within_tokens(signals, select, keep.tokens, name)


def _within_tokens(signals: Signals, select: Select, budget: int, name: str) -> Selection:
    """The largest selection whose kept response tokens fit the budget: where samples are taken one after
    another, those taken until it is met, and otherwise found by bisection."""
    n = len(signals)
    likely = n * budget / max(1, int(signals.lengths.sum()))
    first = select(min(n, max(1, math.ceil(likely))) / n)
    best = (
        _bisected(signals, select, budget) if first.turn is None else _taken(signals, select, budget, first)
    )
    if best is None:
        raise UsageError(
            f"a budget of {budget} tokens does not hold even the one sample that {name} puts first",
            remedy="raise the token budget or keep a count of samples",
        )
    return best


def _bisected(signals: Signals, select: Select, budget: int) -> Selection | None:
    n = len(signals)
    best: Selection | None = None
    low, high = 1, n
    while low <= high:
        count = (low + high) // 2
        selection = select(count / n)
        if int(kept_tokens(signals, selection).sum()) <= budget:
            best, low = selection, count + 1
        else:
            high = count - 1
    return best


def _taken(signals: Signals, select: Select, budget: int, first: Selection) -> Selection | None:
    """`first`: of about so many samples as the budget holds."""
    selection, tokens = first, kept_tokens(signals, first)
    while tokens.sum() <= budget and not selection.keep.all():
        selection = select(min(1.0, 2 * selection.keep.mean()))
        tokens = kept_tokens(signals, selection)
    turn = selection.turn
    assert turn is not None, "a method takes samples one after another, or it does not"
    kept = np.flatnonzero(selection.keep)
    spent = np.cumsum(tokens[kept[np.argsort(turn[kept])]])
    count = int(np.searchsorted(spent, budget, side="right"))
    return select(count / len(signals)) if count else None


def kept_tokens(signals: Signals, selection: Selection) -> Ints:
    """Trained tokens that each sample contributes, (N,): 0 for pruned samples."""
    return np.where(selection.keep, signals.counted(selection.token_keep), 0)
