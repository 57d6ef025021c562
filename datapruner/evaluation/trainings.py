"""The trainings of an evaluation: on what runs kept and on controls, each read on held-out rows.

Notable choices:
- all runs and controls of one evaluation train on equally many tokens, those of the smallest subset;
- the learning rate is chosen once, on random rows, by what they make of the held-out rows: if that favours
  an arm, it is the control;
- what tells most comes first: all arms of one seed before the next one, and the control of all rows, which
  takes several times as long, at the end.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from datapruner.errors import ModelError, UsageError
from datapruner.evaluation.controls import ALL, CONTROLS, LONGEST, Candidates
from datapruner.evaluation.plan import READING, Amounts, Plan, plan
from datapruner.evaluation.reading import LONGEST_ANSWER, answered
from datapruner.evaluation.readings import Readings
from datapruner.evaluation.rows import HeldOut, Pool, prepare
from datapruner.evaluation.store import Done, Store
from datapruner.evaluation.tasks import Tasks
from datapruner.measuring.measure import Machine, Pass, proxy_for, sharing
from datapruner.progress import Progress
from datapruner.request.evaluating import EvaluationSettings, check_evaluated
from datapruner.rewriting.answers import AnswerCheck
from datapruner.rewriting.math_judge import MathJudge
from datapruner.runs.published import Run
from datapruner.schemas.evaluations import RANDOM, RANDOM_TOKENS
from datapruner.tuning.examples import Examples, Ints
from datapruner.tuning.reading import read
from datapruner.tuning.training import RATES, Trainee

_VERSION = 1
PACKAGES = ("datapruner", "torch", "transformers", "tokenizers", "numpy")
_PROBE_TOKENS = 96
_WRITING = {"cpu": 2, "cuda": 25}
"""As many tokens of training take as long as the writing of one: a GPU writes far below its speed."""


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """What is trained on: `rows` of a seed at a budget of trained tokens, and what they are to the model, by
    that seed. times: its trained tokens for each of the others'."""

    name: str
    rows: Callable[[int, int], Candidates]
    examples: Callable[[Sequence[str], int], Examples]
    inputs: float
    times: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """All that was trained and read: `done` by arm and seed, `not_reached` likewise, in the order of work.

    sweep: held-out loss of random rows by learning rate, of which `rate` was taken. tokens: of each held-out
    set, the labelled tokens of each row that was read.
    """

    rate: float
    sweep: dict[float, float]
    done: dict[tuple[str, int], Done]
    not_reached: list[tuple[str, int]]
    tokens: dict[str, Ints]

    def readings(self) -> Iterator[Readings]:
        """What verdicts are made of."""
        for (arm, seed), done in self.done.items():
            for name, nll in done.nll.items():
                yield Readings(arm, seed, name, nll, self.tokens[name], done.correct.get(name))


@dataclass(frozen=True, slots=True, eq=False)
class Trainings:
    """The trainings of an evaluation, and what they were of. identity: a hash of all that decides them.
    store: where they are kept. whole: trained tokens of a training that time does not limit. seconds: of this
    call."""

    identity: str
    store: Store
    model: Pass
    device: str
    pool: Pool
    held_out: list[HeldOut]
    arms: list[Arm]
    whole: int
    plan: Plan
    outcome: Outcome
    seconds: float


def train(
    runs: Sequence[Run],
    corpus: Path,
    held_out: Mapping[str, tuple[str, Path]],
    settings: EvaluationSettings,
    home: Path,
    machine: Machine,
    progress: Progress,
    tasks: Tasks | None = None,
    *,
    fixed: Plan | None = None,
) -> Trainings:
    """Train and read all that `settings` ask for and time allows, but what was done before.

    runs: of the one `corpus`. held_out: as for `rows.prepare`. tasks: that each model does besides. Files
    are kept in `home`. fixed: a plan made beforehand. Random rows are the only control then, so that what is
    trained depends on no other arm, and serves every later call for the same rows and plan.

    Raises UsageError when the runs cannot be compared or no training ended in time, and as `rows.prepare`.
    """
    started = time.monotonic()
    check(runs)
    measuring = runs[0].config.measuring
    if settings.model is not None:
        measuring = measuring.model_copy(update={"model": settings.model})
    measured = proxy_for(runs[0].config.measuring, machine.models or home, machine.devices)
    wanted = proxy_for(measuring, machine.models or home, machine.devices)
    with sharing(machine) as shared:
        pool, sets = prepare(corpus, held_out, wanted, measured, home, shared, progress)
        arms = _arms(pool, runs)  # which may tokenise rows again, to carry masks over
    whole = min(arm.rows(1 << 62, 0).total for arm in arms if arm.name not in CONTROLS)
    arms = _arms(pool, runs, whole)
    if fixed is not None:
        arms = [arm for arm in arms if arm.name in {RANDOM, *(run.run_id for run in runs)}]
    device = machine.devices[0]
    about = _about(runs, sets, wanted, settings, device, tasks, carried=pool.carry is not None)
    if fixed is not None:
        about["plan"] = asdict(fixed)
    identity = _hash(about)
    if fixed is not None:
        del about["runs"], about["settings"]["seeds"], about["settings"]["seconds"]
    elif (
        settings.seconds is None
    ):  # more seeds do not change a plan that takes all: they go on from the others
        del about["settings"]["seeds"]
    store = Store(home / "evaluations" / _hash(about))
    progress.stage("loading the model", None, "steps")
    trainee = Trainee(
        wanted.proxy.path, device, full=settings.tuning == "full", token_budget=machine.token_budget
    )
    made = fixed or store.plan()
    if made is None:
        amounts = _amounts(arms, whole, sets, settings, trainee.device.type)
        left = None if settings.seconds is None else settings.seconds - (time.monotonic() - started)
        made = plan(amounts, left, _probe(trainee, arms[0], progress) if left is not None else 0.0)
        store.keep_plan(made)
    work = _Work(store, trainee, made, sets, settings, progress, started, tasks)
    outcome = work.all(arms)
    seconds = time.monotonic() - started
    return Trainings(identity, store, wanted, device, pool, sets, arms, whole, made, outcome, seconds)


def redrawn(run_id: str) -> str:
    """What the arm of a run's rows with random tokens is called."""
    return f"{run_id}-{RANDOM_TOKENS}"


def check(runs: Sequence[Run]) -> None:
    """Raises UsageError unless the runs kept rows of one corpus, read alike."""
    for run in runs:
        check_evaluated(run.config)
        for what, mine, first in (
            ("corpus", run.lineage["corpus_hash"], runs[0].lineage["corpus_hash"]),
            ("model and length limit", _reading(run), _reading(runs[0])),
        ):
            if mine != first:
                raise UsageError(
                    f"runs {runs[0].run_id} and {run.run_id} are not of the same {what}",
                    remedy="evaluate them one by one",
                )


def _reading(run: Run) -> tuple[object, ...]:
    """What decides which tokens a run's rows are, and which of them may be trained."""
    key = run.lineage["proxy"]
    return tuple(key[name] for name in ("revision", "template_hash", "max_length", "overflow", "train_on"))


def _arms(pool: Pool, runs: Sequence[Run], whole: int = 1) -> list[Arm]:
    """Random rows first, then the runs, each with random tokens of its rows where it masks or weights some,
    the longest rows, all rows."""
    everything = pool.everything()
    ratio = float(everything.lengths.sum() / everything.total)
    longest = everything.longest(whole)
    times = everything.total / whole

    def of_run(run: Run) -> Iterator[Arm]:
        kept = pool.kept(run)
        inputs = float(kept.lengths.sum() / kept.total)
        yield Arm(run.run_id, kept.draw, lambda ids, _: pool.examples_of(run, ids), inputs)
        if pool.masks_tokens(run):
            yield Arm(
                redrawn(run.run_id), kept.draw, lambda ids, seed: pool.redrawn_of(run, ids, seed), inputs
            )

    def examples(ids: Sequence[str], _: int) -> Examples:
        return pool.tokenised.examples(ids)

    return [
        Arm(RANDOM, everything.draw, examples, ratio),
        *chain.from_iterable(map(of_run, runs)),
        Arm(LONGEST, longest.draw, examples, float(longest.lengths.sum() / longest.total)),
        Arm(
            ALL,
            lambda budget, seed: everything.draw(round(budget * times), seed),
            examples,
            ratio * times,
            times,
        ),
    ]


def _amounts(
    arms: Sequence[Arm], whole: int, sets: Sequence[HeldOut], settings: EvaluationSettings, on: str
) -> Amounts:
    return Amounts(
        whole=whole,
        inputs={arm.name: arm.inputs for arm in arms if arm.name != ALL},
        sets={
            each.name: (len(each.tokenised.index), int(each.tokenised.index["n_tokens"].sum()))
            for each in sets
        },
        writing={each.name: _WRITING[on] * LONGEST_ANSWER for each in sets if each.answers is not None},
        seeds=settings.seeds,
        rates=RATES[settings.tuning],
    )


def _probe(trainee: Trainee, random: Arm, progress: Progress) -> float:
    """Seconds that training takes for each token, by a few rows."""
    progress.stage("finding out how fast this machine is", None, "steps")
    rows = random.examples(random.rows(_PROBE_TOKENS, 0).sample_ids.to_list(), 0)
    took = 0.0
    for _ in range(2):  # the first time more is made ready than the model
        before = time.monotonic()
        trainee.train(rows, seed=0, rate=1e-6, number=2)
        took = time.monotonic() - before
    return took / int(rows.lengths.sum())


def _about(
    runs: Sequence[Run],
    sets: Sequence[HeldOut],
    wanted: Pass,
    settings: EvaluationSettings,
    device: str,
    tasks: Tasks | None,
    *,
    carried: bool,
) -> dict[str, Any]:
    """All that decides the readings."""
    about: dict[str, Any] = {
        "version": _VERSION,
        "runs": [run.run_id for run in runs],
        "held_out": {each.name: each.corpus_hash for each in sets},
        "model": wanted.key.document(),
        "settings": settings.model_dump(mode="json", exclude={"held_out", "model"}),
        "device": device.partition(":")[0],
        "packages": {name: version(name) for name in PACKAGES},
    }
    if carried:
        about["masks"] = "carried over by characters"
    if tasks is not None:
        about["tasks"] = [tasks.names, tasks.identity, version("lm-eval")]
    return about


def _hash(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(slots=True, eq=False)
class _Work:
    """The trainings of one evaluation, one after another."""

    store: Store
    trainee: Trainee
    plan: Plan
    sets: list[HeldOut]
    settings: EvaluationSettings
    progress: Progress
    started: float
    tasks: Tasks | None
    pace: float = 0.0
    """Seconds that the last training took for each token."""
    answers: dict[str, list[str]] = field(default_factory=dict)
    """Of the sets for which answers are written, the right ones of the rows read."""
    check: AnswerCheck = field(default_factory=lambda: AnswerCheck(MathJudge()))

    def all(self, arms: list[Arm]) -> Outcome:
        chosen = {each.name: each.first(self.plan.rows[each.name]) for each in self.sets}
        examples = {each.name: each.tokenised.examples(chosen[each.name]) for each in self.sets}
        for each in self.sets:
            if each.name in self.plan.answered and each.answers is not None:
                self.answers[each.name] = [each.answers[sample_id] for sample_id in chosen[each.name]]
        seeds = [self.settings.seed + at for at in range(self.settings.seeds)]
        inputs = {arm.name: round(arm.inputs * self.plan.trained_tokens) for arm in arms}
        reading = round(READING * sum(int(each.lengths.sum()) for each in examples.values()))
        reading += sum(map(len, self.answers.values())) * LONGEST_ANSWER * _WRITING[self.trainee.device.type]
        total = len(seeds) * sum(inputs.values()) + (len(self.plan.rates) - 1) * inputs[RANDOM]
        self.progress.stage("training", total, "tokens")
        passed = 0

        def one(arm: Arm, seed: int, rate: float) -> Done | None:
            nonlocal passed
            found = self.store.get(arm.name, seed, rate)
            if found is None and self._fits(inputs[arm.name] + reading):
                found = self._train(
                    arm, seed, rate, examples, lambda tokens: self.progress.at(passed + tokens)
                )
                self.store.put(arm.name, seed, rate, found)
                self.pace = found.seconds / (found.tokens + reading)
            passed += inputs[arm.name]
            self.progress.at(passed, note=f"{arm.name}, seed {seed}")
            return found

        random, *others = [arm for arm in arms if arm.name != ALL]
        everything = [arm for arm in arms if arm.name == ALL]
        tried: dict[float, Done] = {}
        for rate in sorted(self.plan.rates, key=lambda rate: abs(np.log(rate / np.median(self.plan.rates)))):
            done = one(random, seeds[0], rate)
            if done is not None:
                tried[rate] = done
        sweep = {rate: _loss(done, examples) for rate, done in sorted(tried.items())}
        finite = {rate: loss for rate, loss in sweep.items() if np.isfinite(loss)}
        if not tried:
            raise UsageError(
                "no training ended in the time given; what was made ready is kept",
                remedy="give more seconds, or ask again to go on",
                field="seconds",
            )
        if not finite:
            raise ModelError("every training on random rows diverged", remedy="train another model")
        rate = min(finite, key=finite.__getitem__)
        found = {(RANDOM, seeds[0]): tried[rate]}
        order = [(arm, seed) for seed in seeds for arm in (random, *others)]
        order += [(arm, seed) for arm in everything for seed in seeds]
        for arm, seed in order:
            if (arm.name, seed) not in found:
                done = one(arm, seed, rate)
                if done is None:
                    break
                found[arm.name, seed] = done
        missing = [(arm.name, seed) for arm, seed in order if (arm.name, seed) not in found]
        return Outcome(rate, sweep, found, missing, {name: each.counted for name, each in examples.items()})

    def _fits(self, tokens: int) -> bool:
        """Whether there is time for a training that takes as long as training on so many tokens. The first of
        a call is begun while any is left, so that asking again gets on on a machine that is slow today."""
        if self.settings.seconds is None:
            return True
        left = self.settings.seconds - (time.monotonic() - self.started)
        return left > 0 and tokens * self.pace <= left

    def _train(
        self,
        arm: Arm,
        seed: int,
        rate: float,
        examples: Mapping[str, Examples],
        tell: Callable[[int], None],
    ) -> Done:
        before = time.monotonic()
        rows = arm.rows(self.plan.trained_tokens, seed)
        taken = arm.examples(rows.sample_ids.to_list(), seed)
        told = 0.0

        def hear(tokens: int) -> None:
            nonlocal told
            told += tokens * arm.inputs / arm.times
            tell(round(told))

        trained = self.trainee.train(taken, seed=seed, rate=rate, number=self.plan.steps, tell=hear)
        losses = {name: read(self.trainee, each) for name, each in examples.items()}
        tasks = {} if self.tasks is None else self.tasks.scores(self.trainee)
        correct = {
            name: answered(self.trainee, examples[name], answers, self.check)
            for name, answers in self.answers.items()
        }
        return Done(trained, int(taken.lengths.sum()), time.monotonic() - before, losses, correct, tasks)


def _loss(done: Done, examples: Mapping[str, Examples]) -> float:
    """Nats per token, all sets alike."""
    return float(np.mean([done.nll[name].sum() / each.counted.sum() for name, each in examples.items()]))
