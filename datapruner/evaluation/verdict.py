"""Whether a subset is better than its controls, no different or worse: per held-out set and over all.

It is told by the loss on held-out rows: the subset is better where the whole interval of the difference
(`datapruner.evaluation.statistics`) is on its side, worse where it is on the other's, and otherwise no
difference is shown. One seed, or a handful of rows, shows none.

An arm of which a training diverged is compared with nothing: without that seed it would look better than it
is, and how bad it was is no number. Another learning rate, which is not the arm's doing, may mend it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from datapruner.evaluation.readings import Readings
from datapruner.evaluation.statistics import CONFIDENCE, LEAST_ROWS, Paired, estimate
from datapruner.schemas.evaluations import RANDOM, RANDOM_TOKENS, Against, Estimate, Verdict

_WORDS = {
    RANDOM: "random rows",
    RANDOM_TOKENS: "random tokens of its rows",
    "longest": "the longest rows",
    "all": "all rows",
}
_BySeed = Mapping[int, Readings]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """`by_set`: of each held-out set, in the order of the readings, its verdicts against the controls that
    were read on it. `overall`: against the controls that were read on all sets. `diverged`: by arm, the seeds
    of trainings whose loss is no finite number."""

    by_set: dict[str, list[Against]]
    overall: list[Against]
    diverged: dict[str, list[int]]


def verdicts(
    readings: Iterable[Readings], run: str, controls: Sequence[str], *, confidence: float = CONFIDENCE
) -> Verdicts:
    """What the readings say of the arm `run` against each of `controls`.

    A set is compared over the seeds that both arms were read with; all sets over the seeds that are common
    to all of them. What has no such seed is left out, and so is an arm of which a training diverged.
    """
    found: dict[str, dict[str, dict[int, Readings]]] = {}
    broken: dict[str, set[int]] = {}
    for each in readings:
        found.setdefault(each.held_out, {}).setdefault(each.arm, {})[each.seed] = each
        if not np.isfinite(each.nll).all():
            broken.setdefault(each.arm, set()).add(each.seed)
    for arms in found.values():
        for arm in broken:
            arms.pop(arm, None)
    by_set: dict[str, list[Against]] = {name: [] for name in found}
    overall: list[Against] = []
    for control in controls:
        both = {
            name: (arms[run], arms[control])
            for name, arms in found.items()
            if run in arms and arms.get(control, {}).keys() & arms[run].keys()
        }
        for name, (subset, other) in both.items():
            seeds = sorted(subset.keys() & other.keys())
            by_set[name].append(_against(control, [(subset, other)], seeds, confidence))
        if len(both) < len(found):
            continue
        common = set.intersection(*(subset.keys() & other.keys() for subset, other in both.values()))
        if common:
            overall.append(_against(control, list(both.values()), sorted(common), confidence))
    return Verdicts(by_set, overall, {arm: sorted(seeds) for arm, seeds in broken.items()})


def _against(
    control: str, sets: Sequence[tuple[_BySeed, _BySeed]], seeds: Sequence[int], confidence: float
) -> Against:
    drawn = control in (RANDOM, RANDOM_TOKENS)
    losses = [_losses(subset, other, seeds) for subset, other in sets]
    loss = estimate(losses, drawn=drawn, confidence=confidence)
    answers = [paired for paired in (_answers(subset, other, seeds) for subset, other in sets) if paired]
    rows = sum(len(each.weights) for each in losses)
    few = min(len(each.weights) for each in losses) < LEAST_ROWS
    verdict: Verdict = "no difference"
    if len(seeds) > 1 and not few and (loss.high < 0 or loss.low > 0):
        verdict = "better" if loss.high < 0 else "worse"
    return Against(
        control=control,
        verdict=verdict,
        said=_sentence(
            control, verdict, loss, confidence, len(seeds), [len(each.weights) for each in losses]
        ),
        nats_per_token=loss,
        exact_match=estimate(answers, drawn=drawn, confidence=confidence) if answers else None,
        seeds=len(seeds),
        rows=rows,
        covers_seeds=len(seeds) > 1,
    )


def _losses(subset: _BySeed, other: _BySeed, seeds: Sequence[int]) -> Paired:
    tokens = subset[seeds[0]].tokens
    assert all(np.array_equal(each[seed].tokens, tokens) for each in (subset, other) for seed in seeds), (
        "rows of a held-out set differ between its readings"
    )
    differences = np.stack([subset[seed].nll - other[seed].nll for seed in seeds])
    return Paired(differences, tokens.astype(np.float64))


def _answers(subset: _BySeed, other: _BySeed, seeds: Sequence[int]) -> Paired | None:
    """Right answers, each row the same; None where a reading has none."""
    differences = []
    for seed in seeds:
        mine, theirs = subset[seed].correct, other[seed].correct
        if mine is None or theirs is None:
            return None
        differences.append(mine.astype(np.float64) - theirs.astype(np.float64))
    return Paired(np.stack(differences), np.ones(len(differences[0])))


def _sentence(
    control: str, verdict: Verdict, loss: Estimate, confidence: float, seeds: int, rows: Sequence[int]
) -> str:
    other = _WORDS.get(control, f"run {control}")
    if verdict == "no difference":
        claim = f"No difference between the subset and {other} is shown"
    else:
        claim = f"The subset is {verdict} than {other}"
    counted = f"{seeds} seed{'s' if seeds > 1 else ''}, {sum(rows):,} rows"
    if len(rows) > 1:
        counted += f" of {len(rows)} sets"
    said = (
        f"{claim}: trained on it, a model's loss on held-out rows is {_amount(loss.difference)} a token "
        f"({100 * confidence:g} % interval: {_amount(loss.low)} to {_amount(loss.high)}; {counted})."
    )
    if seeds == 1:
        said += " The interval does not cover other seeds, which takes two or more, so nothing is shown."
    elif min(rows) < LEAST_ROWS:
        said += f" A held-out set of fewer than {LEAST_ROWS} rows shows nothing."
    return said


def _amount(difference: float) -> str:
    return f"{abs(difference):.4f} nats {'lower' if difference < 0 else 'higher'}"
