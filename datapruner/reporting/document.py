"""The report of a run as one document, put together of its tables, its corpus and its evaluations."""

from __future__ import annotations

import math
import shlex
from datetime import UTC, datetime
from pathlib import Path

from datapruner.reporting import counts, groups, refused
from datapruner.reporting.distributions import categories, distributions
from datapruner.reporting.examples import examples
from datapruner.reporting.plane import plane
from datapruner.reporting.rewriting import rewriting
from datapruner.reporting.tables import opened
from datapruner.runs import evaluations, folders, forecasts, named, published
from datapruner.schemas.evaluations import Evaluation
from datapruner.schemas.reports import RunReport


def report(target: str, home: Path) -> RunReport:
    """The report of a run in `home`, named as in `runs.named.find`, which raises as this does; besides,
    InputError when an evaluation of it cannot be read."""
    run = named.find(target, home)
    return of_published(run, published.corpus_path(run, home))


def of_published(run: published.Run, corpus_file: Path) -> RunReport:
    """The report of a published run with all that lies beside it. Raises InputError as `report_of`, and when
    an evaluation cannot be read."""
    file = run.folder / folders.DOCUMENT
    moment = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    missing = "" if run.config.source is not None else " SOURCE"
    if "target" in run.lineage and run.config.target is None:
        missing += " --target DATA"
    replay = f"datapruner replay {shlex.quote(str(file))}{missing}"
    found = evaluations.of(run.folder)
    return report_of(run, corpus_file, moment, found, replay)


def report_of(
    run: published.Run,
    corpus_file: Path,
    published_at: datetime,
    evaluated: list[Evaluation],
    replay: str | None = None,
) -> RunReport:
    """The report of a published run whose corpus is `corpus_file`. evaluated: its evaluations, the newest
    first. replay: the command that does it again.

    What hangs on a corpus that is gone is left out, and a note says so. Raises InputError when the run's
    tables are gone.
    """
    said, config = run.report, run.config
    with opened(run, corpus_file) as (tables, notes):
        found = distributions(tables, said.thresholds)
        known = {each.column: each for each in found}
        return RunReport(
            run=run.run_id,
            title=config.title,
            published_at=published_at,
            notes=notes or None,
            warnings=said.warnings or None,
            truncated_sources=said.truncated_sources or None,
            counts=counts.counts(said, tables),
            tokens=counts.tokens(said, config),
            at_random=counts.at_random(tables),
            funnel=counts.funnel(tables, config),
            stages=said.stages or None,
            thresholds={name: at if math.isfinite(at) else None for name, at in said.thresholds.items()}
            or None,
            distributions=found or None,
            categories=categories(tables) or None,
            plane=plane(tables, known, said.thresholds),
            examples=examples(tables, said.scores, known, said.thresholds),
            by_source=groups.by_source(tables),
            by_shape=groups.by_shape(tables),
            by_length=groups.by_length(tables),
            rejects=refused.rejects(tables),
            failures=counts.failures(tables),
            duplicates=refused.duplicates(tables),
            rewriting=None if config.rewrite is None else rewriting(tables),
            evaluations=evaluated or None,
            forecast=forecasts.read(run.folder),
            config=config.model_dump(mode="json"),
            lineage=run.lineage,
            replay=replay,
        )
