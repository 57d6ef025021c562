"""Evaluations of runs: what is asked for, what there is. How they come about is in `service.evaluating`."""

from __future__ import annotations

from datapruner.catalog import evaluations, runs
from datapruner.errors import UsageError
from datapruner.request.config import RunConfig
from datapruner.request.evaluating import EvaluationSettings, check_evaluated
from datapruner.schemas.evaluations import EvaluationAnswer
from datapruner.service.allowed_models import check_model
from datapruner.service.instance import Service
from datapruner.service.tokens import Caller
from datapruner.settings import Settings, variable


def allowed(settings: Settings, config: RunConfig, wanted: EvaluationSettings) -> EvaluationSettings:
    """What may be done of what is asked for about a run of this configuration: within the longest time.

    Raises UsageError for more time, and for a run that there is nothing to compare of; as `check_model`.
    """
    check_evaluated(config)
    if wanted.model is not None:
        check_model(settings, wanted.model, field="model")
    longest = settings.evaluation_seconds
    if wanted.seconds is not None and wanted.seconds > longest:
        raise UsageError(
            f"an evaluation may take {longest:g} seconds here, not {wanted.seconds:g}",
            remedy=f"ask for less, or have whoever runs the service set {variable('evaluation_seconds')}",
            field="seconds",
        )
    return wanted.model_copy(update={"seconds": wanted.seconds or longest})


def listing(
    service: Service, caller: Caller, run: str, *, limit: int, before: str | None = None
) -> list[EvaluationAnswer]:
    """The newest `limit` evaluations of a run, those older than the id `before` if it is given.

    Raises NotFoundError when there is no such run.
    """
    with service.db.read() as session:
        found = runs.find(session, caller.project_id, run)
        shown = evaluations.listing(session, found.id, limit=limit, before=before)
    return [_answer(each) for each in shown]


def show(service: Service, caller: Caller, run: str, evaluation: str) -> EvaluationAnswer:
    """Raises NotFoundError."""
    with service.db.read() as session:
        found = runs.find(session, caller.project_id, run)
        return _answer(evaluations.show(session, found.id, evaluation))


def _answer(shown: evaluations.Shown) -> EvaluationAnswer:
    row = shown.evaluation
    columns = {name: getattr(row, name) for name in EvaluationAnswer.model_fields if hasattr(row, name)}
    return EvaluationAnswer(**columns, state=shown.state, evaluation=evaluations.document(row))
