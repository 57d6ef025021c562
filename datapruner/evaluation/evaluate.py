"""What an evaluation of runs finds: the trainings (`datapruner.evaluation.trainings`), put into words and
numbers for each run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from math import isfinite, prod
from pathlib import Path

import duckdb
import numpy as np
from safetensors import safe_open

from datapruner.evaluation.controls import CONTROLS
from datapruner.evaluation.cost import Epoch, Measured, cost
from datapruner.evaluation.rows import HeldOut, Pool
from datapruner.evaluation.statistics import CONFIDENCE
from datapruner.evaluation.store import Done
from datapruner.evaluation.tasks import Tasks
from datapruner.evaluation.trainings import PACKAGES, Trainings, redrawn, train
from datapruner.evaluation.verdict import Verdicts, verdicts
from datapruner.measuring.measure import Machine, proxy_for
from datapruner.measuring.signal_cache import ProxyKey, SignalCache
from datapruner.progress import Progress
from datapruner.request.evaluating import EvaluationSettings
from datapruner.runs.published import Run
from datapruner.schemas.evaluations import (
    RANDOM,
    RANDOM_TOKENS,
    SUBSET,
    Against,
    Arm,
    Cost,
    Evaluation,
    HeldOutSet,
    Verdict,
)


def evaluate(
    runs: Sequence[Run],
    corpus: Path,
    held_out: Mapping[str, tuple[str, Path]],
    settings: EvaluationSettings,
    home: Path,
    machine: Machine,
    progress: Progress,
    tasks: Sequence[str] = (),
) -> list[Evaluation]:
    """Train on what each of the runs kept and on the controls, and say what came of it, run by run.

    `corpus`: the file of the rows that all the runs chose from. `held_out`: by name, what a set's source is
    called and the file of its rows, ingested. What is done is kept in `home`, and not done again. Trains on
    the first device of the machine. `tasks`: of lm-eval, by name or file (`datapruner.evaluation.tasks`).

    Raises UsageError when the runs cannot be evaluated (together) or no training ended in time, InputError
    for a held-out set without a row that can be read, NothingSurvivedError when no training rows are left,
    ModelError and WorkerError.
    """
    known = Tasks(tasks) if tasks else None
    trainings = train(runs, corpus, held_out, settings, home, machine, progress, known)
    return evaluations_of(runs, trainings, settings, home, machine)


def evaluations_of(
    runs: Sequence[Run], trainings: Trainings, settings: EvaluationSettings, home: Path, machine: Machine
) -> list[Evaluation]:
    """What the trainings say of each of the runs that they were of, the others being arms beside it."""
    ids = [run.run_id for run in runs]
    return [_of_run(run, ids, trainings, settings, home, machine) for run in runs]


def _of_run(
    run: Run,
    ids: Sequence[str],
    trainings: Trainings,
    settings: EvaluationSettings,
    home: Path,
    machine: Machine,
) -> Evaluation:
    controls = (*CONTROLS, *(each for each in dict.fromkeys(ids) if each != run.run_id))
    names = {name: name for name in controls} | {
        run.run_id: SUBSET,
        redrawn(run.run_id): RANDOM_TOKENS,
    }
    done = {(names[arm], seed): each for (arm, seed), each in trainings.outcome.done.items() if arm in names}
    sweep = {rate: loss if isfinite(loss) else None for rate, loss in trainings.outcome.sweep.items()}
    readings = (each for each in trainings.outcome.readings() if each.arm in names)
    found = verdicts((replace(each, arm=names[each.arm]) for each in readings), SUBSET, controls)
    against = next((each for each in found.overall if each.control == RANDOM), None)
    verdict = None if against is None else against.verdict
    usable = {(arm, seed): each for (arm, seed), each in done.items() if arm not in found.diverged}
    missing = [(names[arm], seed) for arm, seed in trainings.outcome.not_reached if arm in names]
    model = trainings.model
    return Evaluation(
        id=trainings.identity,
        run=run.run_id,
        created_at=datetime.now(UTC),
        settings=settings,
        model=model.proxy.source,
        model_hash=model.proxy.revision,
        device=trainings.device,
        learning_rate=trainings.outcome.rate,
        learning_rates={f"{rate:g}": loss for rate, loss in sweep.items()},
        confidence=CONFIDENCE,
        arms=[_arm(name, done) for name in dict.fromkeys(arm for arm, _ in done)],
        held_out=[_set(each, trainings, usable, found) for each in trainings.held_out] + _tasks(usable),
        overall=found.overall,
        verdict=verdict,
        said=_said(against, found.diverged),
        diverged=[
            f"training on {arm} with seed {', '.join(map(str, seeds))}: its loss is no finite number, so "
            "that nothing is compared with it"
            for arm, seeds in found.diverged.items()
        ],
        not_reached=_not_reached(trainings, missing),
        carried=trainings.pool.carried(run),
        cost=_cost(run, trainings, home, machine, verdict),
        seconds=trainings.seconds,
        packages={name: version(name) for name in PACKAGES},
    )


def _arm(name: str, done: Mapping[tuple[str, int], Done]) -> Arm:
    mine = {seed: each for (arm, seed), each in sorted(done.items()) if arm == name}
    every = list(mine.values())
    return Arm(
        name=name,
        rows=float(np.mean([each.trained.rows for each in every])),
        tokens=float(np.mean([each.tokens for each in every])),
        trained_tokens=float(np.mean([each.trained.trained_tokens for each in every])),
        steps=float(np.mean([each.trained.steps for each in every])),
        seconds=float(np.mean([each.seconds for each in every])),
        seeds=list(mine),
    )


def _set(
    held_out: HeldOut, trainings: Trainings, done: Mapping[tuple[str, int], Done], found: Verdicts
) -> HeldOutSet:
    tokens = trainings.outcome.tokens[held_out.name]
    losses: dict[str, list[float]] = {}
    right: dict[str, list[float]] = {}
    for (arm, _), each in done.items():
        if held_out.name in each.correct:
            right.setdefault(arm, []).append(float(each.correct[held_out.name].mean()))
        losses.setdefault(arm, []).append(float(each.nll[held_out.name].sum() / tokens.sum()))
    return HeldOutSet(
        name=held_out.name,
        source=held_out.source,
        corpus_hash=held_out.corpus_hash,
        rows=held_out.rows,
        read=len(tokens),
        rejected=held_out.rejected,
        contaminated=held_out.taken,
        left_out=held_out.rows - held_out.rejected - len(tokens),
        tokens=int(tokens.sum()),
        answered=len(tokens) if right else 0,
        losses={arm: float(np.mean(each)) for arm, each in losses.items()},
        exact_match={arm: float(np.mean(each)) for arm, each in right.items()},
        against=found.by_set.get(held_out.name, []),
    )


def _tasks(done: Mapping[tuple[str, int], Done]) -> list[HeldOutSet]:
    """The tasks of lm-eval as sets of their own."""
    found: dict[str, dict[str, list[Mapping[str, float]]]] = {}
    for (arm, _), each in done.items():
        for task, metrics in each.tasks.items():
            found.setdefault(task, {}).setdefault(arm, []).append(metrics)
    return [
        HeldOutSet(
            name=task,
            source="lm-eval",
            corpus_hash="",
            rows=0,
            read=0,
            rejected=0,
            contaminated=0,
            tokens=0,
            tasks={
                arm: {name: float(np.mean([one[name] for one in each])) for name in each[0]}
                for arm, each in arms.items()
            },
        )
        for task, arms in found.items()
    ]


def _said(against: Against | None, diverged: Collection[str]) -> str:
    if against is not None:
        return against.said
    for arm, rows in ((SUBSET, "the subset"), (RANDOM, "random rows")):
        if arm in diverged:
            return f"A training on {rows} diverged, so nothing is known; another model or tuning may train."
    return "There was no time to train on both the subset and random rows, so nothing is known."


def _not_reached(trainings: Trainings, missing: Sequence[tuple[str, int]]) -> list[str]:
    """What time was too short for, in words: what the plan left out, which stays as it is, and trainings that
    the same evaluation goes on with when it is asked for again."""
    found = []
    if trainings.plan.trained_tokens < trainings.whole:
        found.append(
            f"training on all of the subset: {trainings.plan.trained_tokens:,} of "
            f"{trainings.whole:,} trained tokens were taken each time; give more seconds"
        )
    for each in trainings.held_out:
        rows, read = len(each.tokenised.index), trainings.plan.rows[each.name]
        if read < rows:
            found.append(f"{rows - read:,} of {rows:,} held-out rows of {each.name}; give more seconds")
        if each.answers is not None and each.name not in trainings.plan.answered:
            found.append(
                f"answers to the held-out rows of {each.name}, which state theirs; give more seconds"
            )
    by_arm: dict[str, list[int]] = {}
    for arm, seed in missing:
        by_arm.setdefault(arm, []).append(seed)
    for arm, seeds in by_arm.items():
        found.append(
            f"training on {arm} with seed {', '.join(map(str, seeds))}; the same again goes on from there"
        )
    return found


def _cost(run: Run, trainings: Trainings, home: Path, machine: Machine, verdict: Verdict | None) -> Cost:
    key = ProxyKey(**run.lineage["proxy"])
    everything, kept = trainings.pool.everything(), trainings.pool.kept(run)
    tokens = _measured_tokens(run, key, trainings.pool, home) if key.has_signals else 0
    backward = tokens if key.tied or key.lora else 0
    trained = parameters(trainings.model.proxy.path)
    proxy = trained
    if key.revision != trainings.model.key.revision:
        measuring = run.config.measuring
        proxy = parameters(proxy_for(measuring, machine.models or home, machine.devices).proxy.path)
    return cost(
        Measured(proxy, tokens - backward, backward),
        Epoch(int(everything.lengths.sum()), everything.total),
        Epoch(int(kept.lengths.sum()), kept.total),
        trained_parameters=trained,
        verdict=verdict,
    )


def _measured_tokens(run: Run, key: ProxyKey, pool: Pool, home: Path) -> int:
    """Tokens that the proxy read, its own ones: of all samples of the run, each once, held out or not."""
    query = "SELECT DISTINCT sample_id FROM sample_scores WHERE n_response_tokens IS NOT NULL"
    with duckdb.connect(str(run.database), read_only=True) as connection:
        samples = connection.sql(query).pl()
    if pool.carry is None:  # the model has the proxy's tokens
        counts = samples.join(pool.tokenised.index, on="sample_id")
    else:
        counts = SignalCache(home, key).columns(samples["sample_id"].to_list(), ["n_tokens"])
    return int(counts["n_tokens"].sum())


def parameters(folder: Path) -> int:
    """How many numbers the weights of a model folder have."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            total += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total
