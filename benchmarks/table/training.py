"""What a model trained on what a method keeps makes of held-out rows, against one trained on random rows: the
trainings and verdicts of `datapruner evaluate`, by a plan that is the same for every method.

As the plan is fixed, what is trained for one method serves every other: random rows are trained on once, and
a method that is new costs its own trainings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import datapruner
from benchmarks.table.asked import Asked, Notes, Place, hashed
from benchmarks.table.changes import told
from benchmarks.table.corpora import with_defects
from benchmarks.table.data import Data, Rows
from benchmarks.table.in_training import in_training
from datapruner.corpora.store import ingest_to
from datapruner.errors import DataprunerError
from datapruner.evaluation.evaluate import evaluations_of
from datapruner.evaluation.plan import Plan, steps_of
from datapruner.evaluation.trainings import Trainings, train
from datapruner.measuring.measure import Machine
from datapruner.progress import Silent
from datapruner.request.evaluating import EvaluationSettings
from datapruner.runs import published
from datapruner.schemas.evaluations import RANDOM, Evaluation
from datapruner.training import StepPruning

DEFAULT, IN_TRAINING = Asked("qtuning", "", {}), Asked("qtuning", "in training", {})
_AT_ONCE = 2
"""Methods whose trainings are asked for together: what was done is noted after as many."""


@dataclass(frozen=True)
class Setting:
    """rows: to select from, and clean ones beside them. share: of their trained tokens that is kept.
    held_out: sets that are read."""

    name: str
    rows: Callable[[Data], tuple[Rows, Rows]]
    share: float
    held_out: Sequence[str]


@dataclass(frozen=True)
class Trained:
    """tokens: of each training. seeds: trainings of each arm. read: rows of a held-out set at most. rates:
    learning rates that are tried on random rows, or the one."""

    tokens: int
    seeds: int
    read: int
    rates: tuple[float, ...]


def planted(data: Data) -> tuple[Rows, Rows]:
    """Alpaca with planted defects, as in the rest of the table."""
    corpus = with_defects(data)
    return corpus.rows, corpus.beside


def mixed(data: Data) -> tuple[Rows, Rows]:
    """Alpaca with a fifth of problems of GSM8K: what is wanted is in the corpus, among other things."""
    rows, _, _ = data.alpaca()
    problems, clean = data.problems(), data.amounts.clean
    part = data.amounts.rows // 10
    return rows[: 4 * part] + problems[clean : clean + part], problems[:clean]


def clean(data: Data) -> tuple[Rows, Rows]:
    """Alpaca as it is, and clean rows beside it."""
    rows, beside, _ = data.alpaca()
    return rows[: data.amounts.rows], beside


def changes(
    setting: Setting,
    methods: Sequence[Asked],
    wanted: Sequence[Asked],
    data: Data,
    place: Place,
    notes: Notes,
    trained: Trained,
    over: Callable[[], bool],
) -> Iterator[tuple[Asked, dict[str, Any], dict[str, Any]]]:
    """Of each method that was trained before, or is wanted now and there was time for, the change against
    random rows (or why not), and the setting as it was measured."""
    rows, beside = setting.rows(data)
    held = {name: data.held_out(name)[: trained.read] for name in setting.held_out}
    plan = Plan(
        trained.tokens,
        steps_of(trained.tokens),
        {name: len(some) for name, some in held.items()},
        [],
        list(trained.rates),
        0.0,
    )
    what = hashed(rows, beside, held, setting.share, asdict(plan), trained.seeds, place.model)
    keys = {each.label: hashed("change", each.identity, what) for each in methods}
    open_ = []
    for each in methods:
        found = notes.get(keys[each.label])
        if found is None:
            open_ += [each] if each in wanted else []
        else:
            yield each, found["change"], found["setting"]
    for at in range(0, len(open_), _AT_ONCE):
        if over():
            break
        some = open_[at : at + _AT_ONCE]
        runs, failed = _runs(setting, some, rows, beside, place)
        yield from ((each, {"left_out": why}, {}) for each, why in failed)
        if not runs:
            continue
        only = [run for _, run in runs]
        trainings, how = _trained(only, held, place, plan, trained.seeds)
        evaluations = evaluations_of(only, trainings, how, place.home, Machine((place.device,)))
        for (each, _), evaluation in zip(runs, evaluations, strict=True):
            change, measured = _change(evaluation), _setting(setting, evaluation)
            notes.put(keys[each.label], {"change": change, "setting": measured})
            yield each, change, measured
    key = hashed("in training", what)
    if DEFAULT in methods:
        change = notes.get(key) or {}
        if not change and DEFAULT in wanted and not over():
            [(_, run)], _ = _runs(setting, [DEFAULT], rows, beside, place)
            trainings, how = _trained([run], held, place, plan, trained.seeds)
            change = in_training(trainings, how, StepPruning(keep=setting.share), over)
        if change:
            notes.put(key, change)
            yield IN_TRAINING, change, {}


def _runs(
    setting: Setting, methods: Sequence[Asked], rows: Rows, beside: Rows, place: Place
) -> tuple[list[tuple[Asked, published.Run]], list[tuple[Asked, str]]]:
    tokens = datapruner.score(
        rows, "length", device=place.device, home=place.home, model=place.model
    ).report.response_tokens
    runs, failed = [], []
    for each in methods:
        try:
            run = place.prune(each, rows, beside, keep_tokens=round(setting.share * tokens)).run
        except DataprunerError as error:
            failed.append((each, str(error)))
        else:
            runs.append((each, run))
    return runs, failed


def _trained(
    runs: list[published.Run], held: Mapping[str, Rows], place: Place, plan: Plan, seeds: int
) -> tuple[Trainings, EvaluationSettings]:
    sets = {name: (name, ingest_to(some, {}, place.home, Silent())) for name, some in held.items()}
    settings = EvaluationSettings(held_out={name: name for name in sets}, seeds=seeds)
    corpus = published.corpus_path(runs[0], place.home)
    machine = Machine((place.device,))
    return train(runs, corpus, sets, settings, place.home, machine, Silent(), fixed=plan), settings


def _change(evaluation: Evaluation) -> dict[str, Any]:
    """Over all held-out sets together."""
    against = next((each for each in evaluation.overall if each.control == RANDOM), None)
    subset = next((arm for arm in evaluation.arms if arm.name == "subset"), None)
    if against is None or subset is None:
        return {"left_out": evaluation.said}
    return told(against, subset.trained_tokens)


def _setting(setting: Setting, evaluation: Evaluation) -> dict[str, Any]:
    random = next(arm for arm in evaluation.arms if arm.name == RANDOM)
    return {
        "name": setting.name,
        "share": setting.share,
        "trained_tokens": random.trained_tokens,
        "steps": random.steps,
        "seeds": len(random.seeds),
        "learning_rate": evaluation.learning_rate,
        "held_out": [each.name for each in evaluation.held_out],
        "read": sum(each.read for each in evaluation.held_out),
        "tokens": sum(each.tokens for each in evaluation.held_out),
    }
