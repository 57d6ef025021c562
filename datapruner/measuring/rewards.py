"""Rewards of a corpus's samples by a reward model: cached like signals, once for each sample and model.

Notable choices:
- the shards are those of the signal cache, and the processes that write them are driven by the same executor,
  so that a crash costs one task and an interrupted run goes on where it was;
- every output of the model is kept, so that another label of it costs nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from datapruner.corpora.corpus import Corpus
from datapruner.errors import ModelError
from datapruner.measuring.measure import Machine, cut, dtype_of, spec_of
from datapruner.measuring.signal_cache import ProxyKey, SignalCache
from datapruner.measuring.workers import local
from datapruner.measuring.workers.start import START
from datapruner.progress import Count, Progress
from datapruner.request.config import Measuring
from scorers.models import rewards
from scorers.models.rewards import RewardFolder
from scorers.models.sources import ModelSourceError
from scorers.signals.columns import Floats

REWARD_VERSION = 1
"""Raised whenever a reward's value would change; part of the cache key."""

OF_REWARDS = "reward"
"""The context in the key of rewards."""
WORKER = (*START, "rewarder")
_OUTPUTS = "outputs"


@dataclass(frozen=True, slots=True)
class Rewarded:
    """Where the rewards of a corpus are. errors: sample id -> reason why it has none."""

    model: RewardFolder
    cache: SignalCache
    errors: dict[str, str]

    def values(self, ids: Sequence[str], label: str) -> Floats:
        """What the model's output of this label says of these samples, (N,): the output itself, or, of
        classes that exclude one another, the logarithm of the class's probability. All must have been
        rewarded."""
        found = self.cache.columns(ids, [_OUTPUTS])[_OUTPUTS]
        width = len(self.model.labels)
        outputs = found.explode(empty_as_null=False).to_numpy().astype(np.float64).reshape(-1, width)
        at = self.model.index(label)
        if not self.model.classes:
            return np.ascontiguousarray(outputs[:, at])
        highest = outputs.max(axis=1)
        total: Floats = highest + np.log(np.exp(outputs - highest[:, None]).sum(axis=1))
        return outputs[:, at] - total


def wanted(models: Path, measuring: Measuring, devices: Sequence[str]) -> tuple[RewardFolder, ProxyKey]:
    """The reward model, fetched into `models` if need be, and its rewards' key. Raises ModelError."""
    assert measuring.reward_model is not None, "see check_views()"
    try:
        model = rewards.resolve(measuring.reward_model, models)
    except ModelSourceError as error:
        raise ModelError(str(error)) from error
    return model, ProxyKey(
        model=measuring.reward_model,
        revision=model.revision,
        template_hash=model.template_hash,
        dtype=dtype_of(measuring, devices),
        max_length=None,
        overflow="error",
        train_on="all",
        tied=False,
        signal_version=REWARD_VERSION,
        context=OF_REWARDS,
    )


def reward(
    corpus: Corpus,
    home: Path,
    machine: Machine,
    measuring: Measuring,
    labels: Collection[str],
    *,
    progress: Progress,
    without: Collection[str] = (),
) -> Rewarded:
    """Reward every sample of the corpus that the cache lacks, but those `without`, by their ids.

    Raises ModelError when the model cannot be found or used, or has not these labels, WorkerError when it
    cannot start.
    """
    progress.stage("finding the reward model", None, "steps")
    model, key = wanted(machine.models or home, measuring, machine.devices)
    try:
        for label in labels:
            model.index(label)
    except ModelSourceError as error:
        raise ModelError(str(error)) from error
    cache = SignalCache(home, key)
    index = corpus.sample_index().filter(pl.col("duplicate_of").is_null())
    index = index.filter(~pl.col("sample_id").is_in(list(without)))
    missing = index.join(cache.status(index["sample_id"]), on="sample_id", how="anti", maintain_order="left")
    failed: dict[str, str] = {}
    if len(missing):
        cache.create()
        spec = spec_of(model, key, machine)
        progress.stage("rewarding", len(missing), "samples")
        count = Count(progress, "loading the reward model")
        tasks = (local.Task(samples, cache.folder) for samples in cut(corpus, missing["row"].to_list()))
        failed = machine.run(spec, tasks, count, WORKER)
        cache = SignalCache(home, key)
    found = cache.status(index["sample_id"]).drop_nulls("error").select("sample_id", "error")
    return Rewarded(model, cache, failed | dict(found.iter_rows()))
