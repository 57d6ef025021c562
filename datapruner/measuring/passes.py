"""All that a run's methods read, measured: the corpus, and what they compare it with (`signals.VIEWS`).

Notable choices:
- every view is a pass of its own, with a signal cache and a plan of its own: the reference model's signals
  are found again by a run in which it is the proxy model, a target set's by a run on that set;
- the reference model reads the proxy's chat template and stops at the proxy's length limit, for its tokens to
  be the same; whether they are is checked, sample by sample;
- a sample without one of the views is left out like one that could not be measured at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datapruner.corpora.corpus import Corpus
from datapruner.errors import ModelError
from datapruner.measuring import derived, embeddings, lissa, rewards
from datapruner.measuring.embeddings import Embedded
from datapruner.measuring.measure import (
    Machine,
    Measurement,
    Pass,
    Plan,
    find_model,
    measure,
    proxy_for,
    sharing,
)
from datapruner.measuring.rewards import Rewarded
from datapruner.measuring.signal_cache import SignalCache, series
from datapruner.measuring.targets import TargetRows, TargetSet, check_column, target_rows
from datapruner.measuring.tuned import Tuned, tune
from datapruner.progress import Progress
from datapruner.request.config import TUNED, RunConfig
from datapruner.request.needs import check_views, needs, reads_reward
from scorers.models import template
from scorers.signals.columns import (
    ALIGNED_VIEWS,
    DERIVED_SIGNALS,
    REWARD,
    SENTENCE_EMBEDDING,
    Signals,
    corpus_settings,
    needs_by_view,
)

Plans = Callable[[str], Plan]
"""A plan by its name, of those that `planned` gives; "" for the corpus itself."""

_STAGES = {
    "": "measuring",
    "free": "measuring without prompts",
    "bare": "measuring the bare answers",
    "reference": "measuring by the reference model",
    "target": "measuring the target set",
}
_CONTEXTS = {"free": "header", "bare": "bare"}
_FAILED = {
    "free": "without its prompt: ",
    "bare": "its bare answer: ",
    "reference": "by the reference model: ",
}
_CHUNK_SAMPLES = 20_000
_LIMITS = ("max_position_embeddings", "n_positions")
"""How configurations call the longest sequence; GPT-2's the second."""


def passes(
    config: RunConfig,
    models: Path,
    devices: Sequence[str],
    *,
    reads_model: bool = True,
    tuned: Tuned | None = None,
    fetch: bool = True,
) -> dict[str, Pass]:
    """What has to be measured for the methods, by view, the corpus itself ("") first.

    `models` is the folder that models are fetched into, if that is allowed. `reads_model`: whether the run
    reads anything of the proxy model besides its tokens. `tuned`: as `tuned_for` gives it. Raises ModelError.
    """
    wanted = needs_by_view(needs(config.methods, config.combine))
    found: dict[str, Pass] = {}
    for view in sorted(wanted):
        if view == "reference":
            found[view] = _reference(config, found[""], models, devices, wanted[view], tuned, fetch)
        else:
            context = _CONTEXTS.get(view, "full")
            found[view] = proxy_for(
                config.measuring, models, devices, needs=wanted[view], context=context, fetch=fetch
            )
    return found if reads_model else {"": found[""].tokens_only()}


def planned(views: Iterable[str], sets: int) -> dict[str, str]:
    """Each plan's name and view: the target has one for each of its sets, the other views have one."""
    of_sets = ["target", *(f"target{number}" for number in range(1, sets))]
    return {name: view for view in views for name in (of_sets if view == "target" else [view])}


def tuned_for(
    config: RunConfig, targets: Sequence[Corpus], home: Path, machine: Machine, progress: Progress
) -> Tuned | None:
    """The reference model of a run that has its proxy model tuned on the target set; None for any other run.
    Raises as `tuned.tune` does."""
    if config.measuring.reference != TUNED:
        return None
    assert targets, "see check_views()"
    return tune(config, targets, home, machine, progress)


def first(config: RunConfig, models: Path, devices: Sequence[str], *, reads_model: bool) -> Pass | None:
    """The one over the corpus itself, if its model is there; arguments as for `passes`."""
    wanted = needs_by_view(needs(config.methods, config.combine))[""]
    try:
        found = proxy_for(config.measuring, models, devices, needs=wanted, fetch=False)
    except ModelError:
        return None
    return found if reads_model else found.tokens_only()


def _reference(
    config: RunConfig,
    base: Pass,
    models: Path,
    devices: Sequence[str],
    wanted: frozenset[str],
    tuned: Tuned | None,
    fetch: bool,
) -> Pass:
    assert config.measuring.reference is not None, "see check_views()"
    model = config.measuring.reference if tuned is None else str(tuned.path)
    measuring = config.measuring.model_copy(update={"model": model})
    found = proxy_for(measuring, models, devices, needs=wanted, fetch=fetch)
    if tuned is not None:  # which is told as what it is, wherever it lies
        proxy, key = replace(found.proxy, source=tuned.source), replace(found.key, model=TUNED)
        return replace(found, proxy=proxy, key=key)
    ours, theirs = base.proxy.path, found.proxy.path
    if _vocabulary(ours) != _vocabulary(theirs):
        raise ModelError(
            f"the reference model {measuring.model} has another tokenizer than {config.measuring.model}",
            remedy="losses can be compared only token by token; name a model of the same family",
        )
    if found.key.template_hash != base.key.template_hash:
        text, source = template.in_folder(ours)
        key = replace(found.key, template_hash=base.key.template_hash)
        found = replace(found, key=key, template=text if source == "model" else "")
    if (limit := positions(ours)) != positions(theirs):
        limits = [n for n in (limit, found.key.max_length) if n is not None]
        found = replace(found, key=replace(found.key, max_length=min(limits, default=None)))
    return found


def _vocabulary(folder: Path) -> Any:
    """The tokens of a model folder, None where they are not in a tokenizer.json."""
    path = folder / "tokenizer.json"
    return json.loads(path.read_text(encoding="utf-8"))["model"].get("vocab") if path.is_file() else None


def positions(folder: Path) -> int | None:
    """The longest sequence that a model allows, as its configuration says."""
    return length_limit(json.loads((folder / "config.json").read_text(encoding="utf-8")))


def length_limit(configuration: Mapping[str, Any]) -> int | None:
    """The longest sequence that a model's configuration allows, None when it states none."""
    for part in (configuration.get("text_config"), configuration):
        said = [part.get(name) for name in _LIMITS] if isinstance(part, dict) else []
        limits = [each for each in said if isinstance(each, int)]
        if limits:
            return limits[0]
    return None


@dataclass(frozen=True, slots=True)
class Views:
    """What was measured. `base` is of the corpus, `others` by view. `errors`: sample id -> why it has not all
    of the signals. `target`: the rows to select towards that could be measured, None where none are read.
    `tuned`: what the proxy model became by tuning it on the target set, where that was asked for."""

    base: Measurement
    others: dict[str, Measurement]
    errors: dict[str, str]
    target: TargetRows | None
    tuned: Tuned | None
    embedded: Embedded | None
    rewarded: Rewarded | None
    fitted: Callable[[list[str], str], NDArray[np.float64]]
    """The corpus signal that a need asks for, of these samples among themselves, (N,)."""

    @property
    def measured(self) -> int:
        """Samples that went through a model now, those of all views together."""
        return sum(each.measured for each in (self.base, *self.others.values()))

    @property
    def seconds(self) -> float:
        return sum(each.seconds for each in (self.base, *self.others.values()))

    def of_target(self, number: int) -> dict[str, int]:
        """How many samples of a target set, by its number, were read, and how many could not be."""
        if self.target is not None:
            samples = int((self.target.lines["set"] == number).sum())
            return {"samples": samples, "left_out": self.target.left_out.get(number, (0,))[0]}
        assert self.tuned is not None, "what nothing reads is not given"
        return {"samples": self.tuned.drawn[number], "left_out": 0}

    def truncated(self, signals: Signals) -> NDArray[np.generic]:
        """Response tokens that each sample lost to the length limit, (N,)."""
        if not len(signals):
            return np.empty(0, np.int64)
        return self.base.cache.columns(series(signals.ids), ["n_truncated"])["n_truncated"].to_numpy()

    def signals(self, ids: pl.Series, wanted: frozenset[str]) -> Signals:
        """The signals in `wanted` of these samples of the corpus, with the views of them."""
        by_view = needs_by_view(wanted)
        fitted = {need for need in by_view[""] if corpus_settings(need) is not None}
        elsewhere = fitted | DERIVED_SIGNALS.keys() | {SENTENCE_EMBEDDING}
        signals = self.base.cache.signals(ids, by_view[""] - elsewhere)
        others = {
            view: replace(measurement.cache.signals(ids, by_view[view]), ids=signals.ids)
            for view, measurement in self.others.items()
            if view in ALIGNED_VIEWS
        }
        if self.target is not None:
            aims = self.others["target"].cache.signals(self.target.ids, by_view["target"])
            others["target"] = replace(aims, tasks=self.target.tasks, rows=self.target.rows)
        samples = {**signals.samples, **{need: self.fitted(ids.to_list(), need) for need in sorted(fitted)}}
        if "vocabulary" in by_view[""]:
            samples["vocabulary"] = np.full(len(signals), derived.vocabulary(self.base.proxy.path))
        if "prompt" in by_view[""]:
            samples["prompt"] = derived.prompts(self.base.cache.places(ids))
        vectors = dict(signals.vectors)
        if self.embedded is not None:
            vectors[SENTENCE_EMBEDDING] = self.embedded.vectors(ids.to_list())
        return replace(signals, others=others, samples=samples, vectors=vectors)


def measure_views(
    corpus: Corpus,
    targets: Sequence[TargetSet],
    config: RunConfig,
    home: Path,
    machine: Machine,
    progress: Progress,
    plans: Plans | None = None,
    without: Collection[str] = (),
    *,
    reads_model: bool = True,
    fetch: bool = True,
) -> Views:
    """Measure what the methods of a run read and the caches lack, but the samples `without`, by their ids.
    `reads_model` and `fetch` are as for `passes`.

    Raises UsageError as `check_views` and `target_rows` do, ModelError, WorkerError, and NothingSurvivedError
    when nothing of a task of the target set can be measured.
    """
    check_views(config, has_target=bool(targets))
    if config.task_column is not None:
        for each in targets:
            check_column(each, config.task_column)
    models = machine.models or home
    if fetch:
        find_model(config.measuring, models, progress)
    made: dict[str, Measurement] = {}
    tuned = tuned_for(config, [each.corpus for each in targets], home, machine, progress)
    if tuned is not None:
        progress.note(tuned.text)
    found = passes(config, models, machine.devices, reads_model=reads_model, tuned=tuned, fetch=fetch)
    with sharing(machine) as shared:
        aims: list[Measurement] = []
        for name, view in planned(found, len(targets)).items():
            of_target = view == "target"
            made[view] = measure(
                targets[len(aims)].corpus if of_target else corpus,
                found[view],
                home,
                shared,
                progress=progress,
                plan=None if plans is None else plans(name),
                stage=_STAGES[view],
                without=() if of_target else without,
            )
            if of_target:
                aims.append(made[view])
    base = made.pop("")
    errors = dict(base.errors)
    for view in sorted(ALIGNED_VIEWS & made.keys()):
        for sample_id, reason in made[view].errors.items():
            errors.setdefault(sample_id, _FAILED[view] + reason)
    if "reference" in made:
        errors |= _other_tokens(corpus, base.cache, made["reference"].cache, {*errors, *without})
    embedded: Embedded | None = None
    if SENTENCE_EMBEDDING in needs(config.methods):
        model = embeddings.model_of(config.measuring)
        embedded = embeddings.embed(corpus, home, machine, model=model, progress=progress)
        for sample_id, reason in embedded.errors.items():
            if sample_id not in without:
                errors.setdefault(sample_id, "by the embedding model: " + reason)
    rewarded: Rewarded | None = None
    if labels := reads_reward(needs(config.methods)):
        rewarded = rewards.reward(
            corpus, home, machine, config.measuring, labels, progress=progress, without=without
        )
        for sample_id, reason in rewarded.errors.items():
            errors.setdefault(sample_id, "by the reward model: " + reason)
    target: TargetRows | None = None
    if aims:
        target = target_rows(targets, config.task_column, [each.errors for each in aims])
        measured, seconds = (sum(getattr(each, name) for each in aims) for name in ("measured", "seconds"))
        made["target"] = replace(aims[-1], measured=measured, seconds=seconds)
        for text in target.warnings():
            progress.note(text)

    def fitted(ids: list[str], need: str) -> NDArray[np.float64]:
        named = corpus_settings(need)
        assert named is not None, need
        if named[0] == REWARD:
            assert rewarded is not None, "see check_views()"
            return rewarded.values(ids, named[1].get("label", ""))
        assert named[0] == "lissa_influence", need
        of_set = [] if target is None else target.lines.partition_by("set", maintain_order=True)
        return lissa.influence(
            lissa.Samples(corpus, ids),
            [lissa.Samples(targets[each["set"][0]].corpus, each["sample_id"].to_list()) for each in of_set],
            named[1],
            found[""],
            home,
            machine,
            seed=config.seed,
            progress=progress,
        )

    return Views(base, made, errors, target, tuned, embedded, rewarded, fitted)


def _other_tokens(
    corpus: Corpus, base: SignalCache, reference: SignalCache, without: Collection[str]
) -> dict[str, str]:
    """The samples that the reference model read as other tokens, and so in other places, than the proxy;
    `without` those that not both have read."""
    index = corpus.sample_index().filter(pl.col("duplicate_of").is_null())
    ids = [sample_id for sample_id in index["sample_id"].to_list() if sample_id not in without]
    reason = "the reference model reads it as other tokens; name one with the same tokenizer"
    found: dict[str, str] = {}
    for start in range(0, len(ids), _CHUNK_SAMPLES):
        some = ids[start : start + _CHUNK_SAMPLES]
        ours, theirs = (cache.columns(some, ["input_ids", "position"]) for cache in (base, reference))
        differs = (ours["input_ids"] != theirs["input_ids"]) | (ours["position"] != theirs["position"])
        found |= dict.fromkeys(pl.Series(some).filter(differs), reason)
    return found
