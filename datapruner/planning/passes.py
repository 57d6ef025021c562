"""The passes that a run needs over its samples: what is left to read, its tokens, and how long it takes.

Notable choices:
- tokens are counted by the run's own tokenizer and template: of all samples where they are few, else of some
  thousand drawn over all lengths; of samples in the signal cache they are read there;
- every pass that can be timed is timed by itself, in the process that would do it. What a tuned reference
  model takes is what the proxy takes, of which it is a copy. A tuning itself, and LiSSA, are not timed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from datapruner.corpora import texts
from datapruner.corpora.corpus import Corpus
from datapruner.measuring import embeddings, rewards
from datapruner.measuring.measure import Machine, cut, spec_of, tokenisers, worker_spec
from datapruner.measuring.measure import Pass as Measuring
from datapruner.measuring.passes import passes
from datapruner.measuring.signal_cache import SignalCache
from datapruner.measuring.workers import local
from datapruner.measuring.workers.spec import WorkerSpec
from datapruner.planning.probe import Columns, Timed, timed
from datapruner.planning.strata import Read, drawn, strata, total
from datapruner.progress import Count, Progress
from datapruner.request.config import TUNE_SECONDS, TUNE_STEPS, TUNED, RunConfig
from datapruner.request.needs import needs, reads_reward
from datapruner.rewriting.proxies import parameters
from datapruner.runs import stages
from datapruner.schemas.plans import Expected, Pass, Reads
from scorers.signals.columns import SENTENCE_EMBEDDING, Floats, Ints, corpus_settings

COUNTED_ROWS = 4096
"""Samples up to which the tokens of all are counted, and that are drawn of more."""
_DRIFT = 0.15
"""By how much a machine may be faster or slower from one minute to another, at least."""
_SEED = 0
_OF_TEMPLATE = 64
"""Characters that are added to a sample's own: what a chat template puts around it."""
_CHARACTERS_OF_TOKEN = 4
"""About, where nothing here counts the tokens of what reads."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of a set of samples: all tokens, and those of their responses. each: of each sample, counted or about,
    over 0, (N,)."""

    all: Expected
    responses: Expected
    each: Ints


@dataclass(frozen=True, slots=True)
class Planned:
    """A pass, and what was found of it. tokens: of all its samples, the cached ones too. held: bytes of the
    signals that are there; size: of those that are to come."""

    told: Pass
    timed: Timed | None
    tokens: Tokens | None
    held: int
    size: Expected


@dataclass(frozen=True, slots=True)
class Prober:
    """What looks at the passes of one run. `scratch` is a folder that goes afterwards."""

    config: RunConfig
    home: Path
    scratch: Path
    machine: Machine
    progress: Progress

    def planned(self, corpus: Corpus, targets: Sequence[Corpus]) -> Iterator[Planned]:
        """The passes over the corpus, the first of them that of the proxy model, and over the targets."""
        if not stages.reads_signals(self.config):
            return
        by_model = stages.reads_model(self.config)
        tuned = self.config.measuring.reference == TUNED
        config = self.config
        if tuned:
            copy = config.measuring.model_copy(update={"reference": config.measuring.model})
            config = config.model_copy(update={"measuring": copy})
        models = self.machine.models or self.home
        found = passes(config, models, self.machine.devices, reads_model=by_model)
        base: Planned | None = None
        for view, each in found.items():
            if view == "target":
                alike = any(each.key == other.key for name, other in found.items() if name != view)
                before = [corpus] if alike else []
                for number, target in enumerate(targets):
                    name = "target" if not number else f"target {number + 1}"
                    yield self._measured(name, target, each, [*before, *targets[:number]])
                continue
            if view == "reference" and tuned:
                assert base is not None, "the proxy is first"
                yield self._tuned(base)
                continue
            made = self._measured(view or ("measuring" if by_model else "tokenising"), corpus, each)
            base = base or made
            yield made
        wanted = needs(self.config.methods, self.config.combine)
        if SENTENCE_EMBEDDING in wanted:
            yield self._embedded(corpus, models)
        if reads_reward(wanted):
            yield self._rewarded(corpus, models)
        if base is not None:
            yield from self._fitted(base, wanted)

    def _measured(
        self, what: str, corpus: Corpus, wanted: Measuring, before: Sequence[Corpus] = ()
    ) -> Planned:
        """A pass over these samples, but those that are among those `before`, which the run has read then."""
        samples, cache, known = _found(self.home, corpus, wanted)
        missing = samples.join(known, on="sample_id", how="anti", maintain_order="left")
        for each in before:
            missing = missing.join(each.sample_index(), on="sample_id", how="anti", maintain_order="left")
        reads: Reads = "tokens"
        if wanted.key.has_signals:
            reads = "forward and backward" if wanted.key.tied or wanted.key.lora else "forward"
        there = known.filter(pl.col("error").is_null())["sample_id"]
        cached = _cached_tokens(cache, there)
        rows, new = self._count(corpus, missing, wanted)
        took = self._time(corpus, (rows, new.each), wanted, what)
        told = Pass(
            what=what,
            model=wanted.key.model,
            parameters=parameters(wanted.proxy.path),
            reads=reads,
            samples=len(samples),
            cached=len(samples) - len(missing),
            tokens=new.all,
            seconds=self._seconds(took, len(missing), reads=reads),
        )
        lengths = np.concatenate([new.each, cached.each])
        tokens = Tokens(new.all + cached.all, new.responses + cached.responses, lengths)
        return Planned(told, took, tokens, cache.held_bytes(known["sample_id"]), _size(took))

    def _count(self, corpus: Corpus, missing: pl.DataFrame, wanted: Measuring) -> tuple[Ints, Tokens]:
        """The samples that are not measured yet, by their rows, and their tokens. Where not all are counted,
        one has as many for its characters as others of its length."""
        at, sizes = _columns(missing)
        if missing.is_empty():
            return at, Tokens(Expected.counted(0), Expected.counted(0), sizes)
        if len(missing) <= COUNTED_ROWS:
            parts, count = strata(at, sizes, 1), len(missing)
        else:
            parts = strata(at, sizes, 16)
            count = COUNTED_ROWS // len(parts)
        rng = np.random.default_rng(_SEED)
        some = [drawn(part, count, rng) for part in parts]
        rows = np.concatenate([part.rows for part in some])
        counts = self._tokenised(corpus, np.sort(rows).tolist(), wanted)
        counted = dict(zip(counts["row"], counts.select("n_tokens", "n_response_tokens").rows(), strict=True))
        read: tuple[list[Read], list[Read]] = [], []
        lengths: list[Floats] = []
        for part, few in zip(parts, some, strict=True):
            values = np.array([counted[row] for row in few.rows.tolist()], np.float64)  # (m, 2)
            for of, column in zip(read, values.T, strict=True):
                of.append(Read(part.whole, few.sizes.astype(np.float64), column))
            about = part.sizes * (values[:, 0].sum() / few.sizes.sum())
            about[np.isin(part.rows, few.rows)] = values[:, 0]
            lengths.append(np.clip(about, 1, wanted.key.max_length))
        each = np.rint(np.concatenate(lengths)).astype(np.int64)
        return np.concatenate([part.rows for part in parts]), Tokens(total(read[0]), total(read[1]), each)

    def _tokenised(self, corpus: Corpus, rows: Sequence[int], wanted: Measuring) -> pl.DataFrame:
        """row, n_tokens, n_response_tokens of these rows; 0 of what cannot be rendered."""
        tokens_only = wanted.tokens_only()
        folder = self._folder()
        self.progress.stage("counting tokens", len(rows), "samples")
        count = Count(self.progress)
        spec = worker_spec(tokens_only, self.machine)
        places = tokenisers(self.machine, len(rows))
        tasks = (local.Task(samples, folder) for samples in cut(corpus, rows))
        for _ in local.measure(
            spec, places, tasks, count, local.TOKENISER, idle=self.machine.idle, on_wait=count.tell
        ):
            pass
        names = ["sample_id", "n_tokens", "n_response_tokens"]
        found = pl.read_parquet(sorted(folder.glob("*.parquet")), columns=names, glob=False)
        index = corpus.sample_index().filter(pl.col("row").is_in(list(rows)))
        return index.join(found, on="sample_id", how="left").select("row", *names[1:]).fill_null(0)

    def _time(self, corpus: Corpus, missing: Columns, wanted: Measuring, what: str) -> Timed | None:
        if not len(missing[0]):
            return None
        self.progress.stage(f"trying a few rows: {what}", None, "samples")
        with_model = wanted.key.has_signals
        return timed(
            worker_spec(wanted, replace(self.machine, devices=self.machine.devices[:1])),
            missing,
            partial(_conversations, corpus),
            self._folder(),
            self.machine,
            self.progress,
            local.WORKER if with_model else local.TOKENISER,
        )

    def _seconds(self, took: Timed | None, rows: int, *, reads: Reads) -> Expected:
        """How long all of it takes the devices there are."""
        if took is None:
            return Expected.counted(0)
        at_once = len(self.machine.devices)
        if reads == "tokens":
            at_once = len(tokenisers(self.machine, rows))
        found = took.seconds.times(1 / at_once) + Expected.counted(took.start)
        low, high = min(found.low, found.value * (1 - _DRIFT)), max(found.high, found.value * (1 + _DRIFT))
        return Expected(value=found.value, low=low, high=high)

    def _tuned(self, base: Planned) -> Planned:
        """The reference model that is made by tuning the proxy: it reads all that the proxy reads."""
        tokens = base.tokens
        took = base.timed
        told = base.told.model_copy(
            update={
                "what": "reference",
                "model": TUNED,
                "cached": 0,
                "tokens": None if tokens is None else tokens.all,
                "seconds": None
                if took is None or base.told.cached
                else self._seconds(took, base.told.samples, reads=base.told.reads),
            }
        )
        return Planned(told, None, tokens, 0, base.size)

    def _embedded(self, corpus: Corpus, models: Path) -> Planned:
        encoder, key = embeddings.wanted(models, embeddings.model_of(self.config.measuring))
        spec, cache = spec_of(encoder, key, self.machine), SignalCache(self.home, key)
        return self._other("embedding", corpus, cache, spec, _texts, embeddings.WORKER)

    def _rewarded(self, corpus: Corpus, models: Path) -> Planned:
        model, key = rewards.wanted(models, self.config.measuring, self.machine.devices)
        spec, cache = spec_of(model, key, self.machine), SignalCache(self.home, key)
        return self._other("rewarding", corpus, cache, spec, _conversations, rewards.WORKER)

    def _other(
        self,
        what: str,
        corpus: Corpus,
        cache: SignalCache,
        spec: WorkerSpec,
        samples: Callable[[Corpus, Sequence[int]], list[dict[str, Any]]],
        worker: Sequence[str],
    ) -> Planned:
        """A pass of another model than the proxy, the tokens of which nothing here counts."""
        index = corpus.sample_index().filter(pl.col("duplicate_of").is_null())
        known = cache.status(index["sample_id"])
        missing = index.join(known, on="sample_id", how="anti", maintain_order="left")
        took: Timed | None = None
        if len(missing):
            self.progress.stage(f"trying a few rows: {what}", None, "samples")
            rows, sizes = _columns(missing)
            about, sent = (rows, sizes // _CHARACTERS_OF_TOKEN), partial(samples, corpus)
            took = timed(spec, about, sent, self._folder(), self.machine, self.progress, worker)
        told = Pass(
            what=what,
            model=cache.key.model,
            parameters=parameters(Path(spec.folder)),
            reads="forward",
            samples=len(index),
            cached=len(known),
            seconds=self._seconds(took, len(missing), reads="forward"),
        )
        return Planned(told, took, None, cache.held_bytes(known["sample_id"]), _size(took))

    def _fitted(self, base: Planned, wanted: frozenset[str]) -> Iterator[Planned]:
        """LiSSA, which is not timed: what it reads forward and backward is all samples twice."""
        if not any(about[0] == "lissa_influence" for about in map(corpus_settings, wanted) if about):
            return
        tokens = None if base.tokens is None else base.tokens.all.times(2)
        told = base.told.model_copy(
            update={
                "what": "influence",
                "reads": "forward and backward",
                "cached": 0,
                "tokens": tokens,
                "seconds": None,
            }
        )
        yield Planned(told, None, None, 0, Expected.counted(0))

    def _folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.scratch))


def tuning(config: RunConfig) -> str | None:
    """How long the tuning of a reference model may take, in words; None where nothing is tuned."""
    asked = config.measuring
    if asked.reference != TUNED:
        return None
    seconds, steps = asked.tune_seconds or TUNE_SECONDS, asked.tune_steps or TUNE_STEPS
    return f"tuning the reference model, {steps:,} steps and at most {seconds:,g} s, comes on top"


def _found(home: Path, corpus: Corpus, wanted: Measuring) -> tuple[pl.DataFrame, SignalCache, pl.DataFrame]:
    """The samples of a corpus, the cache that a run would use for them, and those that are in it."""
    samples = corpus.sample_index().filter(pl.col("duplicate_of").is_null())
    if wanted.fuller is not None:
        fuller = SignalCache(home, wanted.fuller)
        known = fuller.status(samples["sample_id"])
        if len(known) == len(samples):
            return samples, fuller, known
    cache = SignalCache(home, wanted.key)
    return samples, cache, cache.status(samples["sample_id"])


def _cached_tokens(cache: SignalCache, ids: pl.Series) -> Tokens:
    if ids.is_empty():
        return Tokens(Expected.counted(0), Expected.counted(0), np.empty(0, np.int64))
    names = ["n_tokens", "n_response_tokens"]
    counts = cache.columns(ids.to_list(), names)
    read, responses = (Expected.counted(int(counts[name].sum())) for name in names)
    return Tokens(read, responses, counts["n_tokens"].to_numpy())


def _size(took: Timed | None) -> Expected:
    return Expected.counted(0) if took is None else took.size


def _columns(samples: pl.DataFrame) -> Columns:
    """Rows and their characters."""
    return samples["row"].to_numpy(), samples["n_chars"].to_numpy() + _OF_TEMPLATE


def _texts(corpus: Corpus, rows: Sequence[int]) -> list[dict[str, Any]]:
    """What an embedding process is sent of these rows: those that have text."""
    return [
        {"id": sample_id, "text": text}
        for _, ids, chunk in texts.sample_texts(corpus, "all", rows)
        for sample_id, text in zip(ids, chunk, strict=True)
        if text.strip()
    ]


def _conversations(corpus: Corpus, rows: Sequence[int]) -> list[dict[str, Any]]:
    """What other measuring processes are sent of these rows."""
    return [sample for samples in cut(corpus, rows) for sample in samples]
