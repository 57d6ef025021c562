"""Q-Tuning by the weights of each training step, against random rows at equal trained tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.table.changes import told
from datapruner.evaluation.readings import Readings
from datapruner.evaluation.store import Done
from datapruner.evaluation.trainings import Trainings
from datapruner.evaluation.verdict import verdicts
from datapruner.request.evaluating import EvaluationSettings
from datapruner.schemas.evaluations import RANDOM
from datapruner.training import UNTRAINED, MicroBatch, Reading, StepPruning, prune_step
from datapruner.tuning.batches import batches, passes, steps
from datapruner.tuning.examples import Examples, Ints
from datapruner.tuning.reading import read
from datapruner.tuning.training import Trained, Trainee
from scorers.signals.head import residuals

ARM = "in-training"


def in_training(
    trainings: Trainings,
    settings: EvaluationSettings,
    pruning: StepPruning,
    over: Callable[[], bool],
) -> dict[str, Any]:
    """Train on all rows, each step on what Q-Tuning keeps of its rows, until as many tokens are trained as in
    the other trainings; read the same held-out rows. The change, or {} where there was no time for two seeds.
    """
    store = trainings.store
    examples = {
        each.name: each.tokenised.examples(each.first(trainings.plan.rows[each.name]))
        for each in trainings.held_out
    }
    everything = trainings.pool.everything()
    trainee: Trainee | None = None
    done: dict[int, Done] = {}
    for seed in range(settings.seed, settings.seed + settings.seeds):
        name = f"{ARM}-{pruning.keep:g}"
        found = store.get(name, seed, trainings.outcome.rate)
        if found is None:
            if over():
                break
            trainee = trainee or Trainee(trainings.model.proxy.path, trainings.device, full=False)
            before = time.monotonic()
            budget = round(trainings.plan.trained_tokens / pruning.keep)
            drawn = everything.draw(budget, seed).sample_ids.to_list()
            rows = trainings.pool.tokenised.examples(drawn)
            trained = _train(trainee, rows, trainings, pruning, seed)
            losses = {name: read(trainee, each) for name, each in examples.items()}
            found = Done(trained, int(rows.lengths.sum()), time.monotonic() - before, losses, {}, {})
            store.put(name, seed, trainings.outcome.rate, found)
        done[seed] = found
    if not done:
        return {}
    readings = [each for each in trainings.outcome.readings() if each.arm == RANDOM]
    readings += [
        Readings(ARM, seed, name, nll, examples[name].counted)
        for seed, each in done.items()
        for name, nll in each.nll.items()
    ]
    against = verdicts(readings, ARM, [RANDOM]).overall
    if not against:
        return {}
    return told(against[0], float(np.mean([each.trained.trained_tokens for each in done.values()])))


def _train(
    trainee: Trainee, examples: Examples, trainings: Trainings, pruning: StepPruning, seed: int
) -> Trained:
    """`Trainee.train`, but that each step is pruned by the weights of its moment."""
    order = np.random.default_rng([seed, len(examples)]).permutation(len(examples))
    budget, counted, rows, padded, number = trainings.plan.trained_tokens, 0, 0, 0, 0
    ends = (trainee.tokenizer.eos_token_id,)
    with trainee.training(seed, trainings.outcome.rate, trainings.plan.steps) as step:
        for some in steps(examples.counted, order, trainings.plan.steps):
            kept = _pruned(trainee, examples, some, pruning, ends)
            if len(kept):
                padded += step(kept, np.arange(len(kept)))
                counted, rows, number = counted + int(kept.counted.sum()), rows + len(kept), number + 1
            if counted >= budget:
                break
    return Trained(rows, counted, number, padded)


def _pruned(
    trainee: Trainee, examples: Examples, rows: Ints, pruning: StepPruning, ends: Sequence[int]
) -> Examples:
    """What Q-Tuning keeps of the rows of a step."""
    micro, readings = [], []
    cut = passes(examples.lengths, rows, trainee.sizes)
    trainee.model.eval()
    with torch.inference_mode():
        for some, batch in zip(cut, batches(examples, rows, trainee.sizes, trainee.device), strict=True):
            hidden, head = trainee.states(batch)
            found = residuals(head, hidden, batch.targets)
            ids = batch.input_ids.cpu()
            labels = torch.full_like(ids, UNTRAINED)
            line, position = (each.cpu() for each in batch.where)
            labels[line, position + 1] = batch.targets.cpu()
            mask = torch.zeros_like(ids)
            for at, row in enumerate(some.tolist()):
                mask[at, : int(examples.lengths[row])] = 1
            micro.append(MicroBatch.of({"input_ids": ids, "labels": labels, "attention_mask": mask}))
            ends_at = np.cumsum(np.bincount(line.numpy(), minlength=len(some)))[:-1]
            readings.append(
                Reading(
                    np.split(found.nll.float().cpu().numpy(), ends_at),
                    np.split(found.entropy.float().cpu().numpy(), ends_at),
                )
            )
    trainee.model.train()
    ids_of, where = [], []
    left, _ = prune_step(micro, readings, pruning, ends)
    for pruned in left:
        for row in pruned.rows:
            tokens = pruned.fields["input_ids"][row.line, row.start : row.stop].numpy()
            ids_of.append(tokens.astype(np.int32))
            where.append((row.trained - row.start).astype(np.int32))
    return Examples.of(ids_of, where)
