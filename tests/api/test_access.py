"""Every route, by the OpenAPI document: who is let in, and that projects see nothing of each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.served import SELDOM, Server

OPEN = ("get_health", "get_readiness")
SEEN_ALONE = {"run_sql": 422, "save_query": 200, "delete_saved_query": 200}
"""What a stranger is not answered 404: a query is saved, and then deleted, in their own project."""
ADMIN = ("tokens", "projects")
SCOPES = {"read", "write", "sql", "admin"}


@dataclass(frozen=True)
class Operation:
    id: str
    method: str
    path: str
    """With real ids of the default project in place of its parameters."""
    bound: bool
    """Whether the path names something of a project."""

    @property
    def scope(self) -> str:
        """As the routes' contract has it."""
        resource = self.path.split("/")[2]
        if resource in ADMIN or self.id == "get_metrics":
            return "admin"
        if resource == "sql":
            return "sql"
        return "read" if self.method == "GET" else "write"


@pytest.fixture(scope="module")
def ids(server: Server) -> dict[str, str]:
    """One of each thing, in the default project: what a path parameter of that name may be."""
    rows = [{"instruction": f"Say {n}.", "output": f"Here is {n}, as you said."} for n in range(6)]
    asked = {
        "rows": rows,
        "name": "walked",
        "method": "length",
        "keep": 0.5,
        "measuring": {"model": server.model, "max_length": 64},
    }
    started = server.client.post("/v1/prune", json=asked)
    assert started.status_code == 202, started.text
    job = server.wait(started.headers["Location"])
    assert job["state"] == "succeeded", job
    schedule = server.client.post(
        "/v1/schedules",
        json={
            "dataset": "walked",
            "cron": SELDOM,
            "run": {"method": "length", "keep": 0.5, "measuring": asked["measuring"]},
        },
    )
    assert schedule.status_code == 201, schedule.text
    saved = server.client.put("/v1/sql/saved/walked_query", json={"sql": "SELECT 1"})
    assert saved.status_code == 200, saved.text
    found = job["result"]
    # What becomes of it does not matter: nothing but the rows that it would train on is held out.
    evaluated = server.client.post(
        f"/v1/runs/{found['run_id']}/evaluations", json={"held_out": {"walked": "walked"}}
    )
    assert evaluated.status_code == 202, evaluated.text
    server.wait(evaluated.headers["Location"])
    shown = server.client.get(f"/v1/runs/{found['run_id']}/evaluations").json()["items"]
    return {
        "dataset": found["dataset_id"],
        "number": str(found["version"]),
        "run": found["run_id"],
        "other": found["run_id"],
        "sample": "0",
        "export": found["export_id"],
        "evaluation": shown[0]["id"],
        "job": job["id"],
        "schedule": schedule.json()["id"],
        "query": "walked_query",
        "method": "length",
        "project": "default",
        "token": server.client.get("/v1/tokens").json()["items"][0]["id"],
    }


@pytest.fixture(scope="module")
def operations(server: Server, ids: dict[str, str]) -> list[Operation]:
    document = server.client.get("/openapi.json").json()
    return [
        Operation(about["operationId"], method.upper(), path.format(**ids), "{" in path)
        for path, methods in document["paths"].items()
        for method, about in methods.items()
    ]


@pytest.fixture(scope="module")
def bodies(ids: dict[str, str]) -> dict[str, Any]:
    """For each operation that takes one, a valid body that names what is the default project's."""
    run = {"method": "length", "keep": 0.5}
    return {
        "create_run": {"dataset": ids["dataset"], **run},
        "create_export": {"run": ids["run"]},
        "create_evaluation": {"held_out": {"walked": "walked"}},
        "create_schedule": {"dataset": ids["dataset"], "cron": SELDOM, "run": run},
        "add_version": {"rows": [{"instruction": "Hi", "output": "Hello."}]},
        "change_dataset": {"keep_runs": 1},
        "change_schedule": {"paused": True},
        "change_project": {"quota_rows": 1},
        "create_token": {"name": "thief", "project": "default"},
        "create_project": {"name": "thief"},
        "run_sql": {"sql": "SELECT * FROM walked.samples"},
        "save_query": {"sql": "SELECT 'a stranger was here'"},
    }


@pytest.fixture(scope="module")
def stranger(server: Server) -> Iterator[httpx.Client]:
    """Holds every scope but admin, in another project."""
    with server.as_token(server.new_token("read", "write", "sql", project="strangers")) as client:
        yield client


def test_every_route_is_known_by_the_walk(operations: list[Operation]) -> None:
    assert len(operations) >= 40
    assert len({one.id for one in operations}) == len(operations)


def test_without_a_token_every_route_answers_401(server: Server, operations: list[Operation]) -> None:
    with server.as_token(None) as anonymous:
        for one in operations:
            status = anonymous.request(one.method, one.path).status_code
            assert status == (200 if one.id in OPEN else 401), (one, status)


def test_without_its_scope_every_route_answers_403(
    server: Server, operations: list[Operation], bodies: dict[str, Any]
) -> None:
    clients = {scope: server.as_token(server.new_token(*SCOPES - {scope})) for scope in SCOPES}
    for one in operations:
        if one.id in OPEN:
            continue
        answer = clients[one.scope].request(one.method, one.path, json=bodies.get(one.id, {}))
        assert answer.status_code == 403, (one, answer.text)
        assert answer.json()["type"] == "/problems/missing-scope"
        assert f"scope {one.scope}" in answer.json()["detail"]
    for client in clients.values():
        client.close()


def test_another_project_sees_and_changes_nothing(
    server: Server,
    operations: list[Operation],
    bodies: dict[str, Any],
    stranger: httpx.Client,
    ids: dict[str, str],
) -> None:
    before = server.client.get(f"/v1/datasets/{ids['dataset']}").json()
    walked = 0
    for one in operations:
        if one.id in OPEN or one.id == "get_method" or not (one.bound or one.id in bodies):
            continue
        answer = stranger.request(one.method, one.path, json=bodies.get(one.id))
        expected = {403} if one.scope == "admin" else {SEEN_ALONE.get(one.id, 404)}
        assert answer.status_code in expected, (one, answer.status_code, answer.text)
        walked += 1
    assert walked >= 30
    assert server.client.get(f"/v1/datasets/{ids['dataset']}").json() == before
    assert server.client.get(f"/v1/schedules/{ids['schedule']}").json()["paused"] is False
    saved = server.client.get("/v1/sql/saved").json()["items"]
    assert [(one["name"], one["sql"]) for one in saved] == [("walked_query", "SELECT 1")]
    assert stranger.get("/v1/sql/saved").json()["items"] == []


def test_the_listings_of_another_project_are_empty(
    operations: list[Operation], stranger: httpx.Client
) -> None:
    for one in operations:
        of_a_project = one.id.startswith("list_") and one.scope == "read" and one.id != "list_methods"
        if of_a_project and not one.bound:
            assert stranger.get(one.path).json() == {"items": [], "next": None}, one
    schema = stranger.get("/v1/sql/schema").text
    assert "walked" not in schema


def test_the_owner_gets_everything_that_can_be_read(server: Server, operations: list[Operation]) -> None:
    for one in operations:
        if one.method == "GET":
            answer = server.client.get(one.path)
            assert answer.status_code == 200, (one, answer.text)
