"""Evaluations over a real socket: asked for, refused, listed, shown; by recipe, schedule and command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import datapruner
from datapruner import cli
from datapruner.schemas.evaluations import Evaluation
from tests.served import SELDOM, WAIT, Server

ROWS = [{"instruction": f"What is {n} plus 1?", "output": f"It is {n + 1}, of course."} for n in range(12)]
HELD_OUT = [{"instruction": f"And {n} plus 2?", "output": f"That comes to {n + 2}."} for n in range(6)]
QUICK = {"tuning": "full", "seeds": 1}


@pytest.fixture(scope="module")
def server(server: Server) -> Iterator[Server]:
    """The service, asked by somebody of a project of this file's own, with rows and rows to hold out."""
    token = server.new_token("read", "write", "sql", "admin", project="evaluations")
    mine = replace(server, token=token)
    for name, rows in (("sums", ROWS), ("held", HELD_OUT)):
        answer = mine.client.post("/v1/datasets", json={"name": name, "rows": rows}, headers=WAIT)
        assert answer.status_code == 201, answer.text
    yield mine
    mine.client.close()


def start(server: Server, **asked: Any) -> str:
    """The id of a finished run."""
    body = {"dataset": "sums", "measuring": {"model": server.model}} | asked
    answer = server.client.post("/v1/runs", json=body, headers=WAIT)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@pytest.fixture(scope="module")
def run(server: Server) -> str:
    return start(server, method="random", keep=0.5)


@pytest.fixture(scope="module")
def evaluated(server: Server, run: str) -> dict[str, Any]:
    """The run's evaluation."""
    body = {"held_out": {"sums": "held"}} | QUICK
    answer = server.client.post(f"/v1/runs/{run}/evaluations", json=body, headers=WAIT)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def test_a_run_is_evaluated_on_a_dataset_at_the_version_of_now(
    server: Server, run: str, evaluated: dict[str, Any]
) -> None:
    assert (evaluated["state"], evaluated["run_id"]) == ("succeeded", run)
    assert evaluated["settings"]["held_out"] == {"sums": "held@1"}
    assert evaluated["settings"]["seconds"] == 3600  # what the service allows
    document = Evaluation.model_validate_json(json.dumps(evaluated["evaluation"]))
    assert (document.run, document.verdict) == (run, "no difference")
    assert document.held_out[0].rows == len(HELD_OUT)
    job = server.client.get(f"/v1/jobs/{evaluated['job_id']}").json()
    assert (job["kind"], job["result"]["evaluation_id"]) == ("evaluate", evaluated["id"])
    assert server.client.get(job["links"]["evaluation"]).json() == evaluated


def test_evaluations_are_listed_and_their_verdict_is_the_run_s(
    server: Server, run: str, evaluated: dict[str, Any]
) -> None:
    assert server.client.get(f"/v1/runs/{run}/evaluations").json()["items"] == [evaluated]
    assert server.client.get(f"/v1/runs/{run}").json()["verdict"] == "no difference"
    verdicts = {each["id"]: each["verdict"] for each in server.client.get("/v1/runs").json()["items"]}
    assert verdicts[run] == "no difference"
    other = start(server, method="random", keep=0.25)
    compared = server.client.get(f"/v1/runs/{other}/compare/{run}").json()
    assert compared["evaluations"] == [evaluated["evaluation"]]
    dry = server.client.delete(f"/v1/runs/{run}?dry_run=true").json()
    assert {"kind": "evaluations", "count": 1} in dry["dependents"]
    assert server.client.delete(f"/v1/runs/{run}").status_code == 409


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"held_out": {}}, 422, "held_out"),
        ({"held_out": {"sums": "nothing"}}, 404, None),
        ({"held_out": {"sums": "held@7"}}, 404, None),
        ({"held_out": {"sums": "held@x"}}, 422, "held_out"),
        ({"seconds": 3601}, 422, "seconds"),
        ({"seconds": 0}, 422, "seconds"),
        ({"seeds": 101}, 422, "seeds"),
        ({"tuning": "qlora"}, 422, "tuning"),
        ({"model": "/etc/passwd"}, 403, "model"),
        ({"colour": "blue"}, 422, "colour"),
    ],
)
def test_what_cannot_be_is_refused_before_there_is_a_job(
    server: Server, run: str, change: dict[str, Any], status: int, field: str | None
) -> None:
    before = server.newest_job()
    body = {"held_out": {"sums": "held"}} | QUICK | change
    refused = server.client.post(f"/v1/runs/{run}/evaluations", json=body)
    assert refused.status_code == status, refused.text
    if field is not None:
        assert field in refused.text
    assert server.newest_job() == before


def test_a_run_that_only_scores_cannot_be_evaluated(server: Server) -> None:
    scored = start(server, method="length")
    refused = server.client.post(f"/v1/runs/{scored}/evaluations", json={"held_out": {"sums": "held"}})
    assert (refused.status_code, "selected nothing" in refused.json()["detail"]) == (422, True)


def test_asking_needs_write_and_other_projects_see_nothing(
    server: Server, run: str, evaluated: dict[str, Any]
) -> None:
    path = f"/v1/runs/{run}/evaluations"
    with server.as_token(server.new_token("read", project="evaluations")) as reader:
        assert reader.get(f"{path}/{evaluated['id']}").json() == evaluated
        assert reader.post(path, json={"held_out": {"sums": "held"}}).status_code == 403
    with server.as_token(server.new_token("read", "write", project="elsewhere")) as stranger:
        for answer in (
            stranger.get(path),
            stranger.get(f"{path}/{evaluated['id']}"),
            stranger.post(path, json={"held_out": {"sums": "held"}}),
        ):
            assert answer.status_code == 404


def test_a_schedule_s_recipe_evaluates_each_run_and_leaves_its_id_as_it_is(server: Server) -> None:
    plain = f"measuring: {{model: {server.model}}}\nmethod: random\nkeep: 50%\n"
    wanted = f"{plain}evaluate: {{held_out: {{sums: held}}, tuning: full, seeds: 1}}\n"
    made = server.client.post(
        "/v1/schedules", json={"dataset": "sums", "cron": SELDOM, "name": "told", "run": {"recipe": wanted}}
    )
    assert made.status_code == 201, made.text
    assert made.json()["evaluation"]["held_out"] == {"sums": "held"}
    fired = server.client.post("/v1/schedules/told/fire")
    result = server.wait(fired.headers["location"])["result"]
    run = server.client.get(f"/v1/runs/{result['run_id']}").json()
    assert run["verdict"] == "no difference"
    assert "evaluate" not in run["config"]
    body = {"dataset": "sums", "recipe": plain}
    without = server.client.post("/v1/runs", json=body, headers=WAIT).json()
    assert (without["content_id"], without["verdict"]) == (run["content_id"], None)


def test_the_command_sends_rows_that_are_a_file_here(
    server: Server,
    run: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATAPRUNER_TOKEN", server.token)
    monkeypatch.setenv("DATAPRUNER_URL", server.url)
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in HELD_OUT), encoding="utf-8")
    settings = ["--held-out", str(path), "-x", "known=held", "--full", "--seeds", "1"]
    assert cli.main(["evaluate", run, *settings, "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)["evaluations"]
    assert (found["run"], [each["name"] for each in found["held_out"]]) == (run, ["questions", "known"])
    assert found["held_out"][0]["source"].startswith("set_")
    assert cli.main(["runs"]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith(run)]
    assert line.split()[-2:] == ["no", "difference"]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"data: sums\nmeasuring: {{model: {server.model}}}\nmethod: random\nkeep: 50%\n"
        "evaluate: {held_out: {questions: questions.jsonl}, tuning: full, seeds: 1}\n"
    )
    assert cli.main(["run", str(recipe), "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    [of_recipe] = done["evaluations"]
    assert of_recipe["run"] == done["run"]
    assert of_recipe["held_out"][0]["source"] == found["held_out"][0]["source"]


def test_the_client_waits_for_the_verdict(server: Server, run: str) -> None:
    with datapruner.Client(server.url, server.token) as client:
        made = client.evaluations.create(run, held_out={"sums": "held"}, tuning="full", seeds=1)
        assert made.verdict == "no difference"
        assert made.evaluation is not None
        assert client.evaluations.get(run, made.id).evaluation == made.evaluation
        assert next(iter(client.evaluations.list(run))).id == made.id
