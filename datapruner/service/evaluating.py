"""The evaluation of a run by a job: trainings here, what came of them in the catalog.

Each training is in storage when it is done, or soon after, so that a job that is taken up again goes on with
the next one, on another machine too.
"""

from __future__ import annotations

from typing import Any

from datapruner.catalog import evaluations, runs
from datapruner.catalog.models import Evaluation, Run, Version
from datapruner.measuring.measure import proxy_for
from datapruner.measuring.signal_cache import ProxyKey
from datapruner.progress import Progress
from datapruner.request.evaluating import EvaluationSettings
from datapruner.runs import published
from datapruner.schemas.evaluations import Evaluation as Document
from datapruner.service import comparison_sets, queue, tracked
from datapruner.service.allowed_models import check_model
from datapruner.service.context import Context
from datapruner.service.sharing import Sharing, signals_prefix
from datapruner.tracking import following


def perform(
    context: Context, lease: queue.Lease, payload: dict[str, Any], run: Run | None, progress: Progress
) -> Evaluation:
    """The evaluation of the job's run, or of the run that it was asked for: done, unless it was before.

    Raises DataprunerError, LeaseLostError, and what `progress` raises to stop it.
    """
    evaluation = _of_job(context, lease, EvaluationSettings(**payload), run)
    if evaluation.published_at is not None:
        return evaluation
    settings = EvaluationSettings(**evaluation.settings)
    with context.db.read() as session:
        of_run = runs.find_published(session, evaluation.project_id, evaluation.run_id)
        corpus = session.get_one(Version, of_run.version_id)
        held_out = comparison_sets.held_out_versions(session, evaluation.project_id, settings)
    document = _evaluated(context, of_run, corpus, held_out, settings, progress)
    with context.db.write() as session:
        queue.guard(session, lease)
        made = evaluations.published(session, session.get_one(Evaluation, evaluation.id), document)
    following.log_evaluations(context.settings.log_to, [document], tracked.warn)
    return made


def _of_job(
    context: Context, lease: queue.Lease, settings: EvaluationSettings, run: Run | None
) -> Evaluation:
    """The job's evaluation or, of a run that was evaluated so before, as a schedule's may be, that one."""
    with context.db.write() as session:
        queue.guard(session, lease)
        found = evaluations.of_job(session, lease.job_id)
        if found is not None:
            return found
        assert run is not None, lease.job_id  # one without a run in its job has its row from the start
        pinned = comparison_sets.pinned_held_out(session, run.project_id, settings)
        return evaluations.of_run(session, run.id, pinned) or evaluations.create(
            session, project_id=run.project_id, run_id=run.id, job_id=lease.job_id, settings=pinned
        )


def _evaluated(
    context: Context,
    run: Run,
    corpus: Version,
    held_out: dict[str, tuple[str, Version]],
    settings: EvaluationSettings,
    progress: Progress,
) -> Document:
    from datapruner.evaluation.evaluate import evaluate  # which needs torch

    if settings.model is not None:
        check_model(context.settings, settings.model, field="model")
    project, storage, models = f"projects/{run.project_id}", context.storage, context.settings.home
    assert run.key is not None, run.id
    storage.local(f"{run.key}/run.duckdb")
    made = published.read(storage.local(f"{run.key}/run.json").parent)
    machine = context.here
    progress.stage("finding the model", None, "steps")
    measuring = made.config.measuring
    if settings.model is not None:
        measuring = measuring.model_copy(update={"model": settings.model})
    tokens = proxy_for(measuring, models, machine.devices).tokens_only().key
    shared = [f"{project}/evaluations", signals_prefix(run.project_id, tokens)]
    for prefix in shared:
        storage.pull(prefix)
    if (
        settings.model is not None
    ):  # its tokens may be others, into which the masks of the proxy's are carried
        storage.pull(signals_prefix(run.project_id, ProxyKey(**made.lineage["proxy"])))
    try:
        [document] = evaluate(
            [made],
            storage.local(corpus.key),
            {name: (source, storage.local(version.key)) for name, (source, version) in held_out.items()},
            settings,
            storage.folder(project),
            machine,
            Sharing(progress, context, shared),
        )
    finally:
        for prefix in shared:  # what was trained stays, whatever became of the rest
            storage.push(prefix)
    return document.model_copy(update={"run": run.id})
