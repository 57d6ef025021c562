"""A run: ingest -> measure -> score -> mask -> rewrite -> publish. Everything a user asks for passes through
here, and so do the stages of a recipe (`datapruner.runs.stages`); one without methods only rewrites.

Files below the home folder: `corpora/{hash}.duckdb`, `signals/{key}/`, and in `runs/{id}/` `run.duckdb`,
`token_scores.parquet` and `run.json`. A run's id is a hash of all that decides its result, so asking again
replaces it with the same content; `run.json` holds configuration, lineage and report, and replays the run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from datapruner.corpora.corpus import Corpus
from datapruner.corpora.store import ingest_to
from datapruner.errors import ModelError, NothingSurvivedError
from datapruner.judging.ratings import Ratings
from datapruner.measuring import compaction
from datapruner.measuring.ahead import Ahead
from datapruner.measuring.measure import Machine
from datapruner.measuring.passes import Plans, Views, first, measure_views
from datapruner.measuring.targets import TargetSet
from datapruner.progress import Progress
from datapruner.request.config import RunConfig
from datapruner.request.needs import needs
from datapruner.request.targets import by_task
from datapruner.runs import folders, judged, rewriting_stage, stages, tables
from datapruner.runs.cautions import mostly_short
from datapruner.runs.published import Report, Run, signal_folders
from datapruner.runs.reasons import OF_SINGLE_ROWS
from datapruner.runs.selection import Scored, kept_tokens, score
from datapruner.system import blocks
from datapruner.system.files import clear_unfinished, unfinished, write_json
from scorers.models import fingerprint
from scorers.models.sources import ModelSourceError, ProxyFolder
from scorers.signals.columns import Signals

_PACKAGES = ("datapruner", "torch", "transformers", "tokenizers", "numpy")


def run(
    config: RunConfig,
    rows: Any,
    home: Path,
    machine: Machine,
    progress: Progress,
    target: Any = None,
    teacher: Any = None,
) -> Run:
    """Do what `config` says to `rows` (a path, Hub name, table or iterable of rows) and publish it.

    `target`: likewise, rows to select towards, for methods that do, or a mapping of several such sets by
    their tasks. The mapping is not theirs. `teacher` is
    for what rewrites by one, by default that of the environment: an asynchronous context manager as in
    `datapruner.teacher`.

    Raises DataprunerError: InputError, ModelError, UsageError, NothingSurvivedError, WorkerError, or what
    stops a teacher.
    """
    stages.check(config, has_target=target is not None)
    teacher = stages.needed_teacher(config, teacher)
    with closing(_ahead(config, home, machine)) as ahead:
        path = ingest_to(rows, config.mapping, home, progress, ahead.see)
        sets = {} if target is None else by_task(target)
        aims = {task: ingest_to(each, {}, home, progress) for task, each in sets.items()}
        with ExitStack() as stack:
            corpus = stack.enter_context(Corpus(path))
            targets = [TargetSet(task, stack.enter_context(Corpus(aim))) for task, aim in aims.items()]
            made = run_on(corpus, config, home, ahead.machine, progress, targets=targets, teacher=teacher)
    if made.measured:
        with suppress(OSError):  # a full disk, say: the run is done all the same
            for folder in sorted(home / "signals" / name for name in signal_folders(made.lineage)):
                compaction.merge(folder)
                for shard in compaction.superseded(folder):
                    shard.unlink(missing_ok=True)
    return made


def _ahead(config: RunConfig, home: Path, machine: Machine) -> Ahead:
    """What starts the processes that measure the corpus first, if any do."""
    if not stages.reads_signals(config):
        return Ahead(None, home, machine)
    models = machine.models or home
    return Ahead(
        first(config, models, machine.devices, reads_model=stages.reads_model(config)), home, machine
    )


def _as_named(source: str) -> Any:
    """The rows of a path or Hub name are found by it."""
    return source


def run_on(
    corpus: Corpus,
    config: RunConfig,
    home: Path,
    machine: Machine,
    progress: Progress,
    out: Path | None = None,
    plans: Plans | None = None,
    targets: Sequence[TargetSet] = (),
    evaluations: stages.Evaluations = _as_named,
    teacher: Any = None,
) -> Run:
    """`run` on published corpora. The run's folder is made in `out`, by default in `home`'s runs.

    evaluations: how to read an evaluation set by its source's name, by default a path or Hub name. teacher:
    as `stages.needed_teacher` gives it.
    """
    config = config.model_copy(update={"engine": None})  # which decides nothing of the result
    dropped = stages.drop(corpus, config, evaluations, progress)
    index = corpus.sample_index()
    measures = stages.reads_signals(config)
    without = dropped.reasons.keys() if measures else index["sample_id"].to_list()
    by_model = stages.reads_model(config)
    views = measure_views(
        corpus, targets, config, home, machine, progress, plans, without, reads_model=by_model
    )
    # Without what reads signals it is the rewriting that says what becomes of a sample that has none.
    errors = views.errors if config.methods or stages.judges_signals(config) else {}
    gone = [*errors, *dropped.reasons]
    chosen = index.filter(pl.col("duplicate_of").is_null() & ~pl.col("sample_id").is_in(gone))
    if chosen.is_empty():
        example = next(iter((errors or dropped.reasons).values()))
        what = f"none of {len(gone)} samples could be measured" if errors else "no sample is left"
        raise NothingSurvivedError(what, remedy=f"the first: {example}")
    left_out: dict[str, pl.DataFrame] = {}
    if config.gate is not None and config.gate.reads_model:
        signals = views.signals(chosen["sample_id"], tables.SCALARS)
        measured = tables.measured_columns(signals, views.truncated(signals), {})
        chosen, left_out["gate"] = stages.passed(corpus, config, chosen, measured, views.base)
    ratings = judged.asked(config)
    early = judged.before_filter(config) if config.filter is not None else config.methods
    rated = Ratings()
    if early == config.methods:
        chosen, rated = judged.rated(corpus, chosen, ratings, teacher, progress)
    progress.stage("selecting", None, "samples")
    wanted = needs(config.methods, config.combine) - ratings
    if views.base.cache.key.has_signals:
        wanted |= tables.SCALARS
    read = chosen.filter(~pl.col("sample_id").is_in(list(views.errors)))["sample_id"]
    signals = views.signals(read, wanted) if measures and len(read) else tables.UNMEASURED
    signals = rated.onto(signals)
    if config.filter is not None:
        scores = score(signals, early, None, config.seed).samples
        measured = tables.measured_columns(signals, views.truncated(signals), scores)
        chosen, left_out["filter"] = stages.filtered(config, chosen, measured)
        if early != config.methods:
            chosen, rated = judged.rated(corpus, chosen, ratings, teacher, progress)
        signals = rated.onto(views.signals(chosen["sample_id"], wanted))
    errors = {**errors, **rated.errors}
    selected = score(
        signals,
        config.methods,
        config.keep,
        config.seed,
        combine=config.combine,
        coverage=config.coverage,
    )
    scored, after = stages.narrowed(selected, signals, views.base, config, machine, progress)
    signals = tables.needed_still(signals)
    counts = stages.dropped_by(corpus, config, dropped, left_out, selected, after)
    lineage = _lineage(corpus, targets, views)
    if dropped.evaluations:
        lineage["contamination"] = dropped.evaluations
    if teacher is not None:
        lineage["teacher"] = teacher.settings.model
    if ratings:
        lineage["rubrics"] = judged.document(ratings)
    found = _Found(views, errors, dropped, index, chosen, signals, scored, left_out, counts)
    return _publish(corpus, config, found, lineage, teacher, out or home / "runs", progress)


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known of a run's samples before it is written. `signals` and `scored` are of those of `chosen`
    that were measured: with methods, all of them."""

    views: Views
    errors: dict[str, str]
    dropped: stages.Dropped
    index: pl.DataFrame
    chosen: pl.DataFrame
    signals: Signals
    scored: Scored
    left_out: dict[str, pl.DataFrame]
    counts: dict[str, dict[str, int]]


def _publish(
    corpus: Corpus,
    config: RunConfig,
    found: _Found,
    lineage: dict[str, Any],
    teacher: Any,
    out: Path,
    progress: Progress,
) -> Run:
    views, signals, scored = found.views, found.signals, found.scored
    document = {"config": config.model_dump(mode="json"), "lineage": lineage}
    run_id = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
    folder = out / run_id
    folder.mkdir(parents=True, exist_ok=True)
    clear_unfinished(folder)
    temporary, tokens = (unfinished(folder / name) for name in (folders.DATABASE, folders.TOKENS))
    errors, counts, rewritten = found.errors, dict(found.counts), frozenset[str]()
    truncated = views.truncated(signals)
    kept = None if scored.selection is None else kept_tokens(signals, scored.selection)
    made: rewriting_stage.Rewriting | None = None
    try:
        blocks.create(temporary, found.index)
        if config.rewrite is not None:
            rows = found.chosen
            if scored.selection is not None:
                rows = rows.filter(pl.Series(scored.selection.keep))
            made = rewriting_stage.rewrite(
                temporary, corpus, config, views.base, rows["row"].to_list(), teacher, progress
            )
            counts["rewrite"] = rewriting_stage.rewriting_counts(temporary)
            rewritten = frozenset(made.tokens)
            if scored.selection is not None:
                scored, failed = rewriting_stage.after_rewriting(scored, signals, made.outcomes)
                assert scored.selection is not None
                kept = rewriting_stage.exported_tokens(signals, truncated, scored.selection.keep, made.tokens)
                errors = errors | failed
        progress.stage("writing", None, "samples")
        judged = tables.measured_columns(signals, truncated, scored.samples)
        if made is not None and not config.methods:
            judged = tables.rewritten_samples(judged, made.outcomes)
        else:
            judged = tables.scored_samples(judged, scored.selection, kept)
        scores = tables.sample_scores(
            found.index,
            corpus.rejects(),
            errors,
            judged,
            config,
            left_out=list(found.left_out.values()),
            dropped=found.dropped.reasons,
        )
        numbers = found.chosen["row"].to_numpy().astype(np.int64)
        chunks = tables.token_scores(views.base.cache, signals, scored, numbers, rewritten=rewritten)
        schema = tables.token_schema(scored)
        group = tables.row_group(judged)
        summed = tables.write(
            temporary, tokens, scores, group, schema, chunks if config.methods else iter(())
        )
        warnings = [] if views.tuned is None else views.tuned.warnings
        warnings += _warnings(summed, scored, made)
        if views.target is not None:
            warnings += views.target.warnings()
        report = _report(corpus, summed, scored, counts, warnings)
        tokens.replace(folders.tokens(folder))
        temporary.replace(folders.database(folder))
    finally:
        for each in (temporary, tokens):
            each.unlink(missing_ok=True)
    write_json(folder / folders.DOCUMENT, {"run": run_id, **document, "report": asdict(report)})
    if report.kept == 0:
        raise NothingSurvivedError(
            f"nothing survived: {report.ingested} rows in, none kept",
            remedy=f"mostly: {next(iter(report.reasons))}",
        )
    return Run(run_id, folder, config, lineage, report, views.measured, views.seconds)


def _warnings(scores: pl.DataFrame, scored: Scored, rewriting: rewriting_stage.Rewriting | None) -> list[str]:
    """What to mind of a result. The length of a kept row is that of what is exported."""
    kept = scores.filter(keep=True)
    lengths = kept["n_response_tokens" if rewriting is None else "n_kept_tokens"].drop_nulls()
    short = mostly_short(lengths, scores["n_response_tokens"].drop_nulls())
    return [*scored.warnings, *short, *(() if rewriting is None else rewriting.warnings)]


def _report(
    corpus: Corpus,
    scores: pl.DataFrame,
    scored: Scored,
    stage_counts: dict[str, dict[str, int]],
    warnings: list[str],
) -> Report:
    counts = corpus.counts()
    by_status = dict(scores["status"].value_counts().iter_rows())
    kept = by_status.get("kept", 0) + by_status.get("scored", 0)
    report = Report(
        ingested=counts.rows,
        kept=kept,
        pruned=by_status.get("pruned", 0),
        rejected=by_status.get("rejected", 0),
        errored=by_status.get("error", 0),
        duplicates=counts.duplicates,
        response_tokens=int(scores["n_response_tokens"].sum()),
        kept_tokens=int(scores["n_kept_tokens"].sum()),
        truncated_tokens=int(scores["n_truncated"].sum()),
        shapes=corpus.provenance.shapes,
        reasons=_counts(scores, "reason"),
        quadrants=_counts(scores, "quadrant") if "quadrant" in scores.columns else {},
        thresholds={} if scored.selection is None else dict(scored.selection.thresholds),
        stages=stage_counts,
        scores=list(scored.own),
        warnings=warnings,
        truncated_sources=corpus.truncated_sources(),
    )
    total = report.kept + report.pruned + report.rejected + report.errored
    assert total == report.ingested, f"{report.ingested} rows in, {total} accounted for"
    return report


def _counts(scores: pl.DataFrame, column: str) -> dict[str, int]:
    """How often each value occurs, the commonest first; what is said of single rows is summed up."""
    found = scores[column].drop_nulls().value_counts()
    if column == "reason":
        for one, many in OF_SINGLE_ROWS:
            found = found.with_columns(pl.col(column).str.replace(one, many))
        found = found.group_by(column).sum()
    found = found.sort(["count", column], descending=[True, False])
    return dict(found.head(30).iter_rows())


def _tokenizer(proxy: ProxyFolder) -> fingerprint.Fingerprint:
    """What the token ids of the run's subset mean. Raises ModelError."""
    try:
        return fingerprint.of_folder(proxy.path)
    except ModelSourceError as error:
        raise ModelError(str(error)) from error


def _lineage(corpus: Corpus, targets: Sequence[TargetSet], views: Views) -> dict[str, Any]:
    lineage: dict[str, Any] = {
        "corpus": corpus.path.stem,
        "corpus_hash": corpus.provenance.corpus_hash,
        "sources": corpus.provenance.sources,
        "proxy": views.base.cache.key.document(),
        "proxy_source": views.base.proxy.source,
        "tokenizer": _tokenizer(views.base.proxy),
        "packages": {name: version(name) for name in _PACKAGES},
    }
    if views.others:
        lineage["views"] = {
            view: {"proxy": each.cache.key.document(), "proxy_source": each.proxy.source}
            for view, each in sorted(views.others.items())
        }
    if views.embedded is not None:
        lineage["embedder"] = views.embedded.cache.key.document()
    if views.rewarded is not None:
        lineage["reward_model"] = views.rewarded.cache.key.document()
    if targets:
        lineage["target"] = [
            {
                **({"task": each.task} if each.task else {}),
                "corpus": each.corpus.path.stem,
                "corpus_hash": each.corpus.provenance.corpus_hash,
                "sources": each.corpus.provenance.sources,
                **views.of_target(number),
            }
            for number, each in enumerate(targets)
        ]
    if views.tuned is not None:
        lineage["tuned"] = views.tuned.lineage
    return lineage
