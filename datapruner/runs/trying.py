"""What a run would keep, from what is measured: nothing is written, nothing is measured, no model is fetched.

It may be a published one at another ratio, or one that is not started yet. The samples that it selects from
are held, so that each further ratio costs the scoring alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl

from datapruner.corpora.corpus import Corpus
from datapruner.errors import ConflictError
from datapruner.measuring.measure import Machine
from datapruner.measuring.passes import Views, measure_views
from datapruner.measuring.targets import TargetSet
from datapruner.progress import Silent
from datapruner.request.config import TUNED, MethodChoice, RunConfig
from datapruner.request.keep import Keep
from datapruner.request.needs import needs
from datapruner.runs import stages
from datapruner.runs.published import Run
from datapruner.runs.selection import kept_tokens, score
from datapruner.schemas.trying import Tried
from scorers.signals.columns import SENTENCE_EMBEDDING, Signals, corpus_settings

MOST_TOKENS = 20_000_000
"""Response tokens of the samples that are held, of which each takes up to about 20 bytes."""
_START = "start a run with the other ratio"
_BEFORE_AND_AFTER = ("gate", "dedup", "contamination", "filter", "rewrite", "calibrate")
"""Stages that say more of the rows than the methods do."""


class UnmeasuredError(ConflictError):
    """`samples` are to be measured first."""

    def __init__(self, samples: int) -> None:
        super().__init__(f"{samples:,} samples are not measured any more", remedy=_START)
        self.samples = samples


class _NothingToMeasure:
    """A plan that is kept only where something would be measured, which is refused."""

    def rows(self) -> list[int] | None:
        return None

    def keep(self, rows: list[int]) -> None:
        raise UnmeasuredError(len(rows))


def _nothing_to_measure(_: str) -> _NothingToMeasure:
    return _NothingToMeasure()


@dataclass(frozen=True, slots=True)
class Trial:
    """The measured samples that a run selects from."""

    config: RunConfig
    signals: Signals

    @classmethod
    def of(
        cls, run: Run, corpus_file: Path, targets: Mapping[str, Path], home: Path, machine: Machine
    ) -> Trial:
        """Read what the run's methods need.

        targets: files of the target sets, by task. home: with the cached signals. Raises ConflictError where
        a ratio cannot be tried: for runs that select nothing by a method, need more than cached signals,
        or are too large.
        """
        if run.report.response_tokens > MOST_TOKENS:
            raise _too_many(run.report.response_tokens)
        wanted = wanted_of(run.config)
        if run.config.rewrite is not None or run.config.calibrate is not None:
            raise ConflictError("the run changes what it keeps afterwards", remedy=_START)
        with duckdb.connect(str(run.database), read_only=True) as connection:
            chosen = connection.sql(
                "SELECT sample_id FROM sample_scores SEMI JOIN scored USING (row) ORDER BY row"
            ).pl()["sample_id"]
            others = connection.sql(
                "SELECT DISTINCT sample_id FROM sample_scores ANTI JOIN scored USING (row) "
                "WHERE sample_id IS NOT NULL AND sample_id NOT IN "
                "(SELECT sample_id FROM sample_scores SEMI JOIN scored USING (row))"
            ).pl()["sample_id"]
        # The signals of the run are of this type, whatever this machine would measure in.
        measuring = run.config.measuring.model_copy(update={"dtype": run.lineage["proxy"]["dtype"]})
        config = run.config.model_copy(update={"measuring": measuring})
        without = others.to_list()
        with _measured(config, corpus_file, targets, home, machine, without) as (_, views):
            return cls(config, views.signals(chosen, wanted))

    @classmethod
    def before(
        cls,
        config: RunConfig,
        corpus_file: Path,
        targets: Mapping[str, Path],
        home: Path,
        machine: Machine,
    ) -> Trial:
        """Likewise, of a run that is not started, without stages before or after its method.

        Raises UnmeasuredError while any sample of the corpus or of the target sets is not measured,
        ModelError when a model is not there, and ConflictError as `of`.
        """
        wanted = wanted_of(config)
        if any(getattr(config, stage) is not None for stage in _BEFORE_AND_AFTER):
            raise ConflictError("the run has stages that drop or change rows besides", remedy="start it")
        with _measured(config, corpus_file, targets, home, machine, ()) as (corpus, views):
            index = corpus.sample_index()
            chosen = index.filter(
                pl.col("duplicate_of").is_null() & ~pl.col("sample_id").is_in(list(views.errors))
            )["sample_id"]
            counts = views.base.cache.columns(chosen.to_list(), ["n_response_tokens"])
            tokens = int(counts["n_response_tokens"].sum())
            if tokens > MOST_TOKENS:
                raise _too_many(tokens)
            return cls(config, views.signals(chosen, wanted))

    def at(self, share: float, options: Mapping[str, Any]) -> Tried:
        """What would be kept of the samples. options: of the method that selects, beside those of the run.

        Raises UsageError as the method does.
        """
        config = self.config.model_copy(update={"keep": Keep(share=share)})
        if options:
            [choice] = config.methods
            methods = [MethodChoice.of(choice.name, {**choice.options, **options})[0]]
            config = config.model_copy(update={"methods": methods})
        return self.by(config)

    def by(self, config: RunConfig) -> Tried:
        """What would be kept of the samples by a configuration that reads the same signals of them.

        Raises UsageError as its method does.
        """
        signals = self.signals
        scored = score(
            signals,
            config.methods,
            config.keep,
            config.seed,
            combine=config.combine,
            coverage=config.coverage,
        )
        selection = scored.selection
        assert selection is not None, "a share was asked for"
        quadrants = {}
        if "quadrant" in scored.samples:
            names, at = np.unique(scored.samples["quadrant"], return_inverse=True)
            kept = np.bincount(at, weights=selection.keep, minlength=len(names)).astype(int)
            quadrants = dict(zip(names.tolist(), kept.tolist(), strict=True))
        return Tried(
            samples=len(signals),
            kept=int(selection.keep.sum()),
            tokens=int(signals.lengths.sum()),
            kept_tokens=int(kept_tokens(signals, selection).sum()),
            thresholds={name: at for name, at in selection.thresholds.items() if np.isfinite(at)},
            quadrants=quadrants,
            warnings=list(scored.warnings),
        )


@contextmanager
def _measured(
    config: RunConfig,
    corpus_file: Path,
    targets: Mapping[str, Path],
    home: Path,
    machine: Machine,
    without: Collection[str],
) -> Iterator[tuple[Corpus, Views]]:
    """A corpus, but the samples `without`, and what is measured of it. Raises UnmeasuredError, ModelError."""
    with ExitStack() as stack:
        corpus = stack.enter_context(Corpus(corpus_file))
        sets = [TargetSet(task, stack.enter_context(Corpus(file))) for task, file in targets.items()]
        views = measure_views(
            corpus,
            sets,
            config,
            home,
            machine,
            Silent(),
            plans=_nothing_to_measure,
            without=without,
            reads_model=stages.reads_model(config),
            fetch=False,
        )
        yield corpus, views


def wanted_of(config: RunConfig) -> frozenset[str]:
    """What the methods of a run need, for it to be tried.

    Raises ConflictError where that is nothing, or more than cached signals.
    """
    if config.keep is None or not config.methods:
        raise ConflictError("the run selects nothing by a method", remedy="start one that does")
    if config.measuring.reference == TUNED:
        raise ConflictError("the run compares with a model tuned for it", remedy=_START)
    wanted = needs(config.methods, config.combine)
    if SENTENCE_EMBEDDING in wanted or any(corpus_settings(need) is not None for need in wanted):
        raise ConflictError("the run needs more than the signals of the proxy model", remedy=_START)
    return wanted


def _too_many(tokens: int) -> ConflictError:
    return ConflictError(
        f"the run has {tokens:,} response tokens, over the {MOST_TOKENS:,} that are tried at once",
        remedy=_START,
    )
