"""An entry as a run of MLflow: where MLFLOW_TRACKING_URI says, in the experiment that its settings name.

The client is used, not the fluent functions, so that a run which the caller has open goes on as it was; ours
is then shown below it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from datapruner.tracking.entry import PROJECT, Entry

if TYPE_CHECKING:
    from mlflow import MlflowClient

_KEY, _PARAM, _TAG = 250, 6000, 5000
"""Longest texts that its stores take."""
_MOST_PARAMS, _MOST_METRICS = 100, 1000
"""Of one request."""
_TRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_FEW = "3"
"""Times that a request is tried again: MLflow's own 7 take four minutes, and the run is done by then."""


def log(entry: Entry) -> None:
    """Raises what MLflow does when its store cannot be used."""
    with _few_tries():
        _log(entry)


@contextmanager
def _few_tries() -> Iterator[None]:
    """Have requests tried again a few times, where the environment does not say how often."""
    if _TRIES in os.environ:
        yield
        return
    os.environ[_TRIES] = _FEW
    try:
        yield
    finally:
        del os.environ[_TRIES]


def _log(entry: Entry) -> None:
    import mlflow
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    client, now = MlflowClient(), int(time.time() * 1000)
    tags = {name[:_KEY]: value[:_TAG] for name, value in entry.tags.items()} | {"datapruner.kind": entry.kind}
    if (around := mlflow.active_run()) is not None:
        tags["mlflow.parentRunId"] = around.info.run_id
    run = client.create_run(_experiment(client), tags=tags, run_name=entry.name).info.run_id
    status = "FAILED"
    try:
        params = [Param(name[:_KEY], value[:_PARAM]) for name, value in entry.params.items()]
        for at in range(0, len(params), _MOST_PARAMS):
            client.log_batch(run, params=params[at : at + _MOST_PARAMS])
        metrics = [Metric(name[:_KEY], value, now, 0) for name, value in entry.metrics.items()]
        for at in range(0, len(metrics), _MOST_METRICS):
            client.log_batch(run, metrics=metrics[at : at + _MOST_METRICS])
        client.log_artifacts(run, str(entry.folder))
        status = "FINISHED"
    finally:
        client.set_terminated(run, status)


def _experiment(client: MlflowClient) -> str:
    """The id of the experiment that the environment names, which is made if need be."""
    from mlflow.exceptions import MlflowException

    if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
    if (found := client.get_experiment_by_name(name)) is not None:
        return str(found.experiment_id)
    try:
        return client.create_experiment(name)
    except MlflowException:  # somebody else made it meanwhile
        if (found := client.get_experiment_by_name(name)) is None:
            raise
        return str(found.experiment_id)
