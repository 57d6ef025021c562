"""What a run would keep at another ratio, from what is measured: nothing is written, and nothing is measured.

The samples that a run selects from are held, so that each further ratio costs the scoring alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from datapruner.corpora.corpus import Corpus
from datapruner.errors import ConflictError
from datapruner.measuring.measure import Machine
from datapruner.measuring.passes import measure_views
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


class _NothingToMeasure:
    """A plan that is kept only where something would be measured, which is refused."""

    def rows(self) -> list[int] | None:
        return None

    def keep(self, rows: list[int]) -> None:
        raise ConflictError(f"{len(rows):,} samples are not measured any more", remedy=_START)


def _nothing_to_measure(_: str) -> _NothingToMeasure:
    return _NothingToMeasure()


@dataclass(frozen=True, slots=True)
class Trial:
    """The measured samples that a published run selects from."""

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
        wanted = _checked(run)
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
                without=others.to_list(),
                reads_model=stages.reads_model(config),
            )
        return cls(config, views.signals(chosen, wanted))

    def at(self, share: float, options: Mapping[str, Any]) -> Tried:
        """What would be kept of the samples. options: of the method that selects, beside those of the run.

        Raises UsageError as the method does.
        """
        config, signals = self.config, self.signals
        methods = config.methods
        if options:
            [choice] = methods
            methods = [MethodChoice.of(choice.name, {**choice.options, **options})[0]]
        scored = score(
            signals,
            methods,
            Keep(share=share),
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


def _checked(run: Run) -> frozenset[str]:
    """What the run's methods need. Raises ConflictError where a ratio cannot be tried."""
    config = run.config
    if config.keep is None or not config.methods:
        raise ConflictError(f"run {run.run_id} selected nothing by a method", remedy="start one that does")
    if config.rewrite is not None or config.calibrate is not None:
        raise ConflictError(f"run {run.run_id} changes what it keeps afterwards", remedy=_START)
    if run.report.response_tokens > MOST_TOKENS:
        raise ConflictError(
            f"run {run.run_id} has {run.report.response_tokens:,} response tokens, over the {MOST_TOKENS:,} "
            "that are tried at once",
            remedy=_START,
        )
    if config.measuring.reference == TUNED:
        raise ConflictError(f"run {run.run_id} compares with a model tuned for it", remedy=_START)
    wanted = needs(config.methods, config.combine)
    if SENTENCE_EMBEDDING in wanted or any(corpus_settings(need) is not None for need in wanted):
        raise ConflictError(f"run {run.run_id} needs more than the signals of the proxy model", remedy=_START)
    return wanted
