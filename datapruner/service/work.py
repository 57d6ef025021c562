"""What a job does: ingest, run, export, evaluate, in this order, as its payload says; or deliver a webhook.

Notable choices:
- every step first looks whether an earlier attempt has published its result, so a job that is taken up again
  repeats nothing but the step it died in, and of measuring no more than the shards in flight;
- files come first and their rows after, in a transaction that begins by checking that the lease still holds;
  the keys of files carry the attempt, so one that lost its lease can overwrite nothing; a file whose row was
  not committed is invisible and swept later, never deleted in doubt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from datapruner.catalog import datasets, exports, projects, runs
from datapruner.catalog.models import Export, Run, Version
from datapruner.corpora.corpus import Corpus
from datapruner.errors import ConflictError, StorageError
from datapruner.measuring import embeddings, passes, rewards
from datapruner.measuring.measure import Machine, find_model
from datapruner.measuring.signal_cache import ProxyKey
from datapruner.measuring.targets import TargetSet
from datapruner.measuring.tuned import Tuned
from datapruner.outputs import exports as writing
from datapruner.outputs.trainers.registry import TRAINERS, file_of
from datapruner.progress import Progress
from datapruner.request.config import TUNED, RunConfig
from datapruner.request.needs import needs, reads_reward
from datapruner.rows import row_files
from datapruner.rows.formats import is_plain
from datapruner.runs import folders, pipeline, published, stages
from datapruner.schemas.jobs import JobResult
from datapruner.service import (
    comparison_sets,
    evaluating,
    intake,
    queue,
    retention,
    small_shards,
    trainer_file,
    webhooks,
)
from datapruner.service.allowed_models import check_models
from datapruner.service.context import Context
from datapruner.service.scratch import working
from datapruner.service.sharing import Sharing, signals_prefix
from datapruner.service.tracked import done, tracked
from scorers.signals.columns import SENTENCE_EMBEDDING


def perform(context: Context, lease: queue.Lease, progress: Progress) -> JobResult:
    """Do the job. Raises DataprunerError, LeaseLostError, and what `progress` raises to stop it."""
    payload = lease.job.payload
    if "webhook" in payload:
        webhooks.deliver(context, lease)
        return JobResult()
    result = JobResult()
    with working(context.scratch, lease.job_id) as scratch:
        if "ingest" in payload:
            version, new_rows = intake.bring_in(context, lease, payload["ingest"], scratch, progress)
            result.dataset_id, result.version_id = version.dataset_id, version.id
            result.version, result.new_rows = version.number, new_rows
        run = None
        if "run" in payload:
            run = _run_of(context, lease, payload["run"], result)
            if run.published_at is None:
                run = _run(context, lease, run, scratch, progress)
            result.dataset_id, result.version_id = run.dataset_id, run.version_id
            result.run_id = run.id
            result.measured = run.measured if run.job_id == lease.job_id else 0
        if "export" in payload:
            export = _export_of(context, lease, payload["export"], run)
            if export.published_at is None:
                export = _export(context, lease, export, scratch, progress)
            result.run_id, result.export_id = export.run_id, export.id
        if "evaluate" in payload:
            evaluation = evaluating.perform(context, lease, payload["evaluate"], run, progress)
            result.run_id, result.evaluation_id = evaluation.run_id, evaluation.id
    if result.dataset_id is not None:
        retention.apply(context.db, context.storage, result.dataset_id)
    return result


def _run_of(context: Context, lease: queue.Lease, payload: dict[str, Any], result: JobResult) -> Run:
    """The job's run, pinned to a version; of a schedule that would only repeat its last run, that one."""
    with context.db.write() as session:
        queue.guard(session, lease)
        run = runs.of_job(session, lease.job_id)
        version_id = (run and run.version_id) or payload.get("version_id") or result.version_id
        if version_id is None:
            latest = datasets.latest(session, payload["dataset_id"])
            if latest is None:
                raise ConflictError("the dataset has no version yet", remedy="wait for its ingest job")
            version_id = latest.id
        if run is not None:
            run.version_id = version_id
            return run
        config = comparison_sets.pinned(session, lease.job.project_id, RunConfig(**payload["config"]))
        if lease.job.schedule_id is not None and not result.new_rows:
            before = runs.of_schedule(
                session, lease.job.schedule_id, version_id, config.model_dump(mode="json")
            )
            if before is not None:
                return before
        return runs.create(
            session,
            project_id=lease.job.project_id,
            dataset_id=payload["dataset_id"],
            version_id=version_id,
            job_id=lease.job_id,
            config=config,
        )


def _run(context: Context, lease: queue.Lease, run: Run, scratch: Path, progress: Progress) -> Run:
    folder = f"projects/{run.project_id}/runs/{run.id}/{lease.attempt}"
    with tracked(context, run, folder, progress) as followed:
        row = _made(context, lease, run, folder, scratch, followed.progress)
        done(context, followed, row)
    return row


def _made(
    context: Context, lease: queue.Lease, run: Run, folder: str, scratch: Path, progress: Progress
) -> Run:
    config = RunConfig(**run.config)
    check_models(context.settings, config.measuring)
    with context.db.read() as session:
        version = session.get_one(Version, run.version_id)
        benchmarks = comparison_sets.evaluation_versions(session, run.project_id, config)
        aims = comparison_sets.target_versions(session, run.project_id, config)
    home, models = context.storage.folder(f"projects/{run.project_id}"), context.settings.home
    machine = context.machine(config.engine)
    find_model(config.measuring, models, progress)
    # Projects share no answers, as they share no signals.
    answers = models / "teacher" / f"{run.project_id}.sqlite"
    tuned = _tuned(context, run, config, list(aims.values()), home, machine, progress)
    found = passes.passes(
        config, models, machine.devices, reads_model=stages.reads_model(config), tuned=tuned
    )
    keys = [key for each in found.values() for key in (each.key, each.fuller) if key is not None]
    if SENTENCE_EMBEDDING in needs(config.methods):
        keys.append(embeddings.wanted(models, embeddings.model_of(config.measuring))[1])
    if reads_reward(needs(config.methods)):
        keys.append(rewards.wanted(models, config.measuring, machine.devices)[1])
    signals = sorted({signals_prefix(run.project_id, key) for key in keys})
    for prefix in signals:
        context.storage.pull(prefix)
    sharing = Sharing(progress, context, signals)
    plans = {view: _plan(context, run, view, scratch) for view in passes.planned(found, len(aims))}
    with ExitStack() as stack:
        corpus = stack.enter_context(Corpus(context.storage.local(version.key)))
        targets = [
            TargetSet(task, stack.enter_context(Corpus(context.storage.local(aim.key))))
            for task, aim in aims.items()
        ]

        def evaluation(name: str) -> Any:
            return comparison_sets.evaluation_rows(
                name, stack.enter_context(Corpus(context.storage.local(benchmarks[name].key)))
            )

        try:
            made = pipeline.run_on(
                corpus,
                config,
                home,
                machine,
                sharing,
                out=scratch,
                plans=plans.__getitem__,
                targets=targets,
                evaluations=evaluation,
                teacher=stages.needed_teacher(config, store=answers),
            )
        finally:
            for prefix in signals:  # what was measured stays measured, whatever became of the run
                context.storage.push(prefix)
    if made.measured:
        small_shards.merge(context.storage, signals)
    progress.stage("publishing", None, "files")
    files = (folders.DATABASE, folders.TOKENS, folders.DOCUMENT)
    size = sum((made.folder / name).stat().st_size for name in files)
    with context.db.read() as session:
        projects.check_quota(session, run.project_id, bytes=size)
    try:
        for name in files:
            context.storage.publish(made.folder / name, f"{folder}/{name}")
    except StorageError:
        context.storage.delete(folder)
        raise
    with context.db.write() as session:
        queue.guard(session, lease)
        row = runs.published(
            session,
            session.get_one(Run, run.id),
            version_id=version.id,
            key=folder,
            content_id=made.run_id,
            lineage=made.lineage,
            report=asdict(made.report),
            measured=made.measured,
            seconds=made.seconds,
            size=size,
        )
    for plan in plans.values():
        plan.forget()
    return row


def _tuned(
    context: Context,
    run: Run,
    config: RunConfig,
    aims: Sequence[Version],
    home: Path,
    machine: Machine,
    progress: Progress,
) -> Tuned | None:
    """The proxy model tuned on the target set, if the run reads that: from storage, where it is there."""
    if config.measuring.reference != TUNED:
        return None
    kept = f"projects/{run.project_id}/tuned"
    context.storage.pull(kept)
    with ExitStack() as stack:
        corpora = [stack.enter_context(Corpus(context.storage.local(aim.key))) for aim in aims]
        tuned = passes.tuned_for(config, corpora, home, machine, progress)
    context.storage.push(kept)
    return tuned


def _export_of(context: Context, lease: queue.Lease, payload: dict[str, Any], run: Run | None) -> Export:
    with context.db.write() as session:
        queue.guard(session, lease)
        export = exports.of_job(session, lease.job_id)
        if export is not None:
            return export
        assert run is not None, lease.job_id  # an export without a run in its job has its row from the start
        before = exports.of_run(session, run.id, payload["format"])
        return before or exports.create(
            session,
            project_id=run.project_id,
            run_id=run.id,
            job_id=lease.job_id,
            format=payload["format"],
        )


def _export(
    context: Context, lease: queue.Lease, export: Export, scratch: Path, progress: Progress
) -> Export:
    with context.db.read() as session:
        run = runs.find_published(session, export.project_id, export.run_id)
        version = session.get_one(Version, run.version_id)
    assert run.key is not None, run.id
    context.storage.local(f"{run.key}/run.duckdb")
    made = published.read(context.storage.local(f"{run.key}/run.json").parent)
    progress.stage("exporting", made.report.kept, "samples")
    home = context.storage.folder(f"projects/{export.project_id}")
    if not is_plain(export.format):
        context.storage.pull(signals_prefix(export.project_id, ProxyKey(**made.lineage["proxy"])))
    path = scratch / f"subset{file_of(export.format)[0]}"
    counts = None
    if export.format in TRAINERS:
        counts = trainer_file.write(export, made, home, path, progress)
        rows = counts["written"]
    else:
        with Corpus(context.storage.local(version.key)) as corpus:
            plain = is_plain(export.format)
            wanted = writing.plain(made, corpus) if plain else writing.canonical(made, corpus, home)
            rows = row_files.write(path, wanted, progress.at)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    key = f"projects/{export.project_id}/exports/{export.id}/{lease.attempt}/{path.name}"
    with context.db.read() as session:
        projects.check_quota(session, export.project_id, bytes=size)
    context.storage.publish(path, key)
    with context.db.write() as session:
        queue.guard(session, lease)
        return exports.published(
            session,
            session.get_one(Export, export.id),
            key=key,
            rows=rows,
            size=size,
            sha256=digest,
            counts=counts,
        )


def _plan(context: Context, run: Run, view: str, scratch: Path) -> _StoredPlan:
    name = f"plan-{view}.npy" if view else "plan.npy"
    return _StoredPlan(context, f"projects/{run.project_id}/runs/{run.id}/{name}", scratch)


class _StoredPlan:
    """A `measure.Plan` in storage, so that whichever worker takes the job up again finds it."""

    def __init__(self, context: Context, key: str, scratch: Path) -> None:
        self._storage, self._key, self._scratch = context.storage, key, scratch

    def rows(self) -> list[int] | None:
        if not any(stored.key == self._key for stored in self._storage.listing(str(Path(self._key).parent))):
            return None
        found: list[int] = np.load(self._storage.local(self._key), allow_pickle=False).tolist()
        return found

    def keep(self, rows: list[int]) -> None:
        path = self._scratch / Path(self._key).name
        np.save(path, np.array(rows, dtype=np.int64), allow_pickle=False)
        self._storage.publish(path, self._key)

    def forget(self) -> None:
        """The result is published; nobody needs the plan any more."""
        self._storage.delete(self._key)
