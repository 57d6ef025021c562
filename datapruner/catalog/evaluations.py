"""Evaluations of runs in the catalog: made with their job, published with their document, listed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Row, Select, select
from sqlalchemy.orm import Session

from datapruner.catalog.models import OPEN, Evaluation, Job, new_id, utcnow
from datapruner.catalog.pages import newest
from datapruner.errors import NotFoundError
from datapruner.request.evaluating import EvaluationSettings
from datapruner.schemas.evaluations import Evaluation as Document


@dataclass(frozen=True, slots=True)
class Shown:
    """An evaluation and the state of its job; a published one has succeeded."""

    evaluation: Evaluation
    state: str


def create(
    session: Session, *, project_id: str, run_id: str, job_id: str, settings: EvaluationSettings
) -> Evaluation:
    """An evaluation that `job_id` is to do; the held-out sets of `settings` have their versions."""
    made = Evaluation(
        id=new_id("evl"),
        project_id=project_id,
        run_id=run_id,
        job_id=job_id,
        settings=settings.model_dump(mode="json"),
    )
    session.add(made)
    session.flush()
    return made


def of_job(session: Session, job_id: str) -> Evaluation | None:
    """The evaluation that a job does, if it has one."""
    return session.scalars(select(Evaluation).where(Evaluation.job_id == job_id)).one_or_none()


def of_run(session: Session, run_id: str, settings: EvaluationSettings) -> Evaluation | None:
    """The last published evaluation of a run by these settings."""
    query = select(Evaluation).where(Evaluation.run_id == run_id, Evaluation.published_at.is_not(None))
    found = session.scalars(query.order_by(Evaluation.id.desc()))
    return next((each for each in found if each.settings == settings.model_dump(mode="json")), None)


def latest(session: Session, run_id: str) -> Evaluation | None:
    """The last published evaluation of a run that came to a verdict, else the last of all."""
    query = select(Evaluation).where(Evaluation.run_id == run_id, Evaluation.published_at.is_not(None))
    query = query.order_by(Evaluation.verdict.is_(None), Evaluation.id.desc())
    return session.scalars(query.limit(1)).one_or_none()


def verdicts(session: Session, run_ids: Sequence[str]) -> dict[str, str | None]:
    """What `latest` says of each of these runs that has one."""
    query = select(Evaluation.run_id, Evaluation.verdict)
    query = query.order_by(Evaluation.verdict.is_not(None), Evaluation.id)
    query = query.where(Evaluation.run_id.in_(run_ids), Evaluation.published_at.is_not(None))
    return dict(session.execute(query).all())


def document(evaluation: Evaluation) -> Document | None:
    """What came of it, None until it is published."""
    if evaluation.document is None:
        return None
    return Document.model_validate_json(json.dumps(evaluation.document))


def show(session: Session, run_id: str, evaluation_id: str) -> Shown:
    """An evaluation of the run. Raises NotFoundError."""
    query = _shown().where(Evaluation.run_id == run_id, Evaluation.id == evaluation_id)
    found = session.execute(query).one_or_none()
    if found is None:
        raise NotFoundError(
            f"run {run_id} has no evaluation {evaluation_id}",
            remedy=f"see GET /v1/runs/{run_id}/evaluations",
            field="evaluation",
        )
    return _as_shown(found)


def listing(session: Session, run_id: str, *, limit: int, before: str | None = None) -> Sequence[Shown]:
    """Evaluations of the run, the newest first: at most `limit` of those older than the id `before`."""
    query = _shown().where(Evaluation.run_id == run_id)
    return [_as_shown(found) for found in session.execute(newest(query, Evaluation.id, limit, before))]


def open_of(session: Session, run_ids: Sequence[str]) -> Sequence[Evaluation]:
    """Evaluations of these runs whose jobs wait or run."""
    query = select(Evaluation).join(Job, Job.id == Evaluation.job_id)
    return session.scalars(query.where(Evaluation.run_id.in_(run_ids), Job.state.in_(OPEN))).all()


def published(session: Session, evaluation: Evaluation, document: Document) -> Evaluation:
    """Store what came of it. The caller holds the lease."""
    evaluation.document = document.model_dump(mode="json")
    evaluation.verdict = document.verdict
    evaluation.published_at = utcnow()
    session.flush()
    return evaluation


def _shown() -> Select[Evaluation, str]:
    return select(Evaluation, Job.state).join(Job, Job.id == Evaluation.job_id)


def _as_shown(found: Row[Evaluation, str]) -> Shown:
    evaluation, state = found
    return Shown(evaluation, "succeeded" if evaluation.published_at is not None else state)
