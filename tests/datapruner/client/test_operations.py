"""That the client has every operation of the service, and every field of its requests."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import datapruner
from datapruner import client as package
from datapruner.client import AsyncClient, Client, _operations, _options
from datapruner.client._binding import Call, Iteration, Resource
from datapruner.client._request import Request
from datapruner.schemas import datasets, evaluations, projects, prune, runs, schedules

OPENAPI = Path(__file__).parents[3] / "openapi.json"
OPERATIONS = {
    name: function
    for name, function in inspect.getmembers(_operations, inspect.isfunction)
    if function.__module__ == _operations.__name__ and not name.startswith("_") and name != "given"
}

ARGUMENTS: dict[str, dict[str, Any]] = {
    "prune": {"data": [{"a": 1}], "method": "qtuning", "keep": 0.5},
    "create_dataset": {"name": "alpaca", "data": [{"a": 1}]},
    "create_run": {"dataset": "alpaca", "method": "qtuning", "keep": 0.5},
    "create_schedule": {"dataset": "alpaca", "cron": "0 2 * * *", "run": {"method": "qtuning", "keep": 0.5}},
    "create_project": {"name": "team"},
    "save_query": {"statement": "SELECT 1"},
    "create_evaluation": {"held_out": {"questions": "questions"}},
}


@pytest.fixture(scope="module")
def documented() -> dict[str, tuple[str, str, dict[str, Any]]]:
    """What openapi.json says: method, path and description of each operation."""
    paths = json.loads(OPENAPI.read_text(encoding="utf-8"))["paths"]
    return {
        about["operationId"]: (method.upper(), path, about)
        for path, methods in paths.items()
        for method, about in methods.items()
    }


def described(name: str) -> Request[Any]:
    """The request of an operation, with every name in its path standing for itself in braces."""
    function = OPERATIONS[name]
    wanted = {
        each.name: f"{{{each.name}}}"
        for each in inspect.signature(function).parameters.values()
        if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD
    }
    request: Request[Any] = function(**wanted | ARGUMENTS.get(name, {}))
    return request


def test_every_documented_operation_is_there_and_no_other(documented: dict[str, Any]) -> None:
    assert set(OPERATIONS) == set(documented)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_an_operation_goes_where_the_document_says(name: str, documented: dict[str, Any]) -> None:
    method, path, about = documented[name]
    request = described(name)
    assert request.method == method
    assert f"/v1{request.path}".replace("%7B", "{").replace("%7D", "}") == path
    parameters = inspect.signature(OPERATIONS[name]).parameters
    in_query = {each["name"] for each in about.get("parameters", []) if each["in"] == "query"}
    assert in_query - {"limit", "cursor"} <= set(parameters)
    assert ("cursor" in in_query) == ("Page[" in str(inspect.signature(OPERATIONS[name]).return_annotation))


def test_every_operation_is_a_method_of_the_clients() -> None:
    used: set[str] = set()
    for kind in (Client, *_resources()):
        for _, method in inspect.getmembers(kind, lambda each: isinstance(each, Call | Iteration)):
            used.add(inspect.unwrap(method._function).__name__)
    streamed = {"download_export", "watch_job", "run_sql"}
    assert set(OPERATIONS) - used == streamed


def _resources() -> list[type]:
    with Client("http://127.0.0.1:9", "secret") as client:
        return [type(each) for each in vars(client).values() if isinstance(each, Resource)]


def test_both_clients_have_the_same_resources_and_tell_their_parameters() -> None:
    blocking, other = Client("http://127.0.0.1:9", "x"), AsyncClient("http://127.0.0.1:9", "x")
    with blocking:
        names = [name for name, each in vars(blocking).items() if isinstance(each, Resource)]
        assert names == [name for name, each in vars(other).items() if isinstance(each, Resource)]
        for client in (blocking, other):
            assert "dataset" in inspect.signature(client.runs.create).parameters
            assert "session" not in inspect.signature(client.runs.create).parameters
            assert list(inspect.signature(client.runs.get).parameters) == ["run"]
            assert client.runs.get.__doc__ == "A run."
    assert inspect.iscoroutinefunction(other.runs.get)
    assert inspect.isasyncgenfunction(other.runs.list)


@pytest.mark.parametrize(
    ("options", "model", "named"),
    [
        (_options.RunOptions, runs.RunRequest, set()),
        (_options.RunOptions, runs.NewRun, {"dataset", "version"}),
        (_options.RunOptions, prune.NewPrune, {"rows", "name", "mapping"}),
        (_options.EvaluationOptions, evaluations.NewEvaluation, set()),
        (_options.DatasetOptions, datasets.NewDataset, {"name", "rows", "source"}),
        (_options.Retention, datasets.Retention, set()),
        (_options.ScheduleOptions, schedules.NewSchedule, {"dataset", "cron", "run"}),
        (_options.ScheduleChanges, schedules.ChangedSchedule, set()),
        (_options.TokenOptions, projects.NewToken, {"name"}),
        (_options.Quotas, projects.Quotas, set()),
    ],
)
def test_options_are_the_fields_of_the_request(options: Any, model: Any, named: set[str]) -> None:
    assert set(options.__annotations__) | named == set(model.model_fields)


def test_the_package_says_all_that_it_has() -> None:
    public = {name for name in vars(package) if not name.startswith("_") and name != "annotations"}
    assert sorted(package.__all__) == package.__all__
    assert set(package.__all__) == public
    assert {"Client", "AsyncClient"} <= set(datapruner.__all__)


def test_importing_datapruner_or_its_client_is_light() -> None:
    heavy = ("torch", "transformers", "polars", "pyarrow", "duckdb", "fastapi", "sqlalchemy", "httpx")
    code = (
        "import sys, datapruner\n"
        f"assert not [m for m in {heavy} if m in sys.modules]\n"
        "datapruner.Client('http://127.0.0.1:9')\n"
        f"assert [m for m in {heavy} if m in sys.modules] == ['httpx']\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
