"""Recipes over a real socket: as text and as fields, in a run, a one-call prune and a schedule."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datapruner import cli
from tests.served import SELDOM, WAIT, Server

ROWS = [{"instruction": f"What is {n} plus 1?", "output": f"It is {n + 1}, of course."} for n in range(12)]
ROWS += [
    {"instruction": "Explain rain.", "output": "Water rises as vapour, cools, and falls again in drops."},
    {"instruction": "Explain rain.", "output": "Water rises as vapour, cools, and falls again in drops!"},
    {
        "instruction": "Add.",
        "output": "<think>\nFirst one.\n\nThen two.\n\nSo three.\n</think>\nIt is three.",
    },
]
BENCHMARK = [{"instruction": "Weather", "output": "Water rises as vapour, cools, and falls again in drops."}]


@pytest.fixture(scope="module")
def server(server: Server) -> Iterator[Server]:
    """The service, asked by somebody of a project of this file's own, with two datasets."""
    token = server.new_token("read", "write", "sql", "admin", project="recipes")
    mine = replace(server, token=token)
    for name, rows in (("sums", ROWS), ("quiz", BENCHMARK)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        answer = mine.client.post(
            "/v1/datasets", data={"name": name}, files={"file": ("rows.jsonl", text)}, headers=WAIT
        )
        assert answer.status_code == 201, answer.text
    yield mine
    mine.client.close()


@pytest.fixture(scope="module")
def recipe(server: Server) -> str:
    return f"""\
measuring: {{model: {server.model}}}
dedup: {{threshold: 0.9}}
contamination: {{against: {{quiz: quiz}}, convention: 8-gram}}
filter: n_response_tokens > 4
methods: [ppl, donod]
combine: {{ppl: {{direction: low}}, donod: {{direction: high}}}}
coverage: {{bins: 4, hard_prune: 0}}
keep: 100%
rewrite: {{method: asap, options: {{max_token_ratio: 0.5}}}}
"""


@pytest.fixture(scope="module")
def run(server: Server, recipe: str) -> dict[str, Any]:
    answer = server.client.post("/v1/runs", json={"dataset": "sums", "recipe": recipe}, headers=WAIT)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def test_a_run_does_what_the_recipe_says_and_keeps_it(run: dict[str, Any]) -> None:
    assert run["state"] == "succeeded"
    assert run["config"]["contamination"]["against"] == {"quiz": "quiz@1"}
    assert run["config"]["filter"] == "n_response_tokens > 4"
    report = run["report"]
    assert (report["ingested"], report["kept"], report["pruned"]) == (15, 13, 2)
    assert report["reasons"]["holds text of quiz"] == 2
    assert report["stages"]["rewrite"]["rewritten"] == 1
    assert run["lineage"]["contamination"]["quiz"]["rows"] == 1


def test_the_same_fields_make_the_same_run(server: Server, run: dict[str, Any]) -> None:
    fields = {name: value for name, value in run["config"].items() if name not in ("source", "mapping")}
    again = server.client.post("/v1/runs", json={"dataset": "sums", "recipe": fields}, headers=WAIT)
    assert again.status_code == 201, again.text
    assert again.json()["content_id"] == run["content_id"]
    assert again.json()["measured"] == 0


def test_sql_reads_what_was_rewritten(server: Server, run: dict[str, Any]) -> None:
    asked = {"sql": f"SELECT count(*) AS rows FROM {run['id']}.rewrites WHERE status = 'rewritten'"}
    answer = server.client.post("/v1/sql", json=asked)
    assert answer.status_code == 200, answer.text
    described = server.client.get("/v1/sql/schema", params={"schema": run["id"]})
    assert described.status_code == 200, described.text
    tables = {table["table"] for table in described.json()["tables"]}
    assert "rewrites" in tables


def test_a_rewritten_sample_shows_the_fate_of_its_steps(server: Server, run: dict[str, Any]) -> None:
    shown = server.client.get(f"/v1/runs/{run['id']}/samples/{len(ROWS) - 1}").json()
    assert {step["kept"] for step in shown["steps"]} == {True, False}
    assert all(step["text"] in ROWS[-1]["output"] and step["why"] for step in shown["steps"])
    plain = server.client.get(f"/v1/runs/{run['id']}/samples/0").json()
    assert plain["steps"] == []


@pytest.mark.parametrize("format_", ["parquet", "plain-jsonl"])
def test_the_subset_holds_the_rewritten_rows(server: Server, run: dict[str, Any], format_: str) -> None:
    asked = {"run": run["id"], "format": format_}
    made = server.client.post("/v1/exports", json=asked, headers=WAIT)
    assert made.status_code == 201, made.text
    assert made.json()["rows"] == 13
    content = server.client.get(f"/v1/exports/{made.json()['id']}/file").content
    if format_ == "plain-jsonl":
        names = {frozenset(json.loads(line)) for line in content.splitlines()}
        assert names == {frozenset({"messages", "original_instruction", "original_output"})}
        last = json.loads(content.splitlines()[-1])["messages"][-1]["content"]
        assert last.endswith("It is three.")
        assert len(last) < len(ROWS[-1]["output"])


def test_a_recipe_may_rewrite_and_nothing_else(server: Server, run: dict[str, Any]) -> None:
    recipe = {"measuring": run["config"]["measuring"], "rewrite": run["config"]["rewrite"]}
    answer = server.client.post("/v1/runs", json={"dataset": "sums", "recipe": recipe}, headers=WAIT)
    assert answer.status_code == 201, answer.text
    alone = answer.json()
    assert (alone["config"]["methods"], alone["config"]["keep"]) == ([], None)
    assert (alone["report"]["kept"], alone["report"]["stages"]["rewrite"]["rewritten"]) == (len(ROWS), 1)
    asked = {"run": alone["id"], "format": "plain-jsonl"}
    made = server.client.post("/v1/exports", json=asked, headers=WAIT)
    assert (made.status_code, made.json()["rows"]) == (201, len(ROWS)), made.text
    shown = server.client.get(f"/v1/runs/{alone['id']}/samples/{len(ROWS) - 1}").json()
    assert (shown["status"], shown["reason"]) == ("kept", "rewritten: least surprising steps removed")
    assert {piece["state"] for piece in shown["turns"][-1]["pieces"]} == {"kept", "pruned"}
    masks = server.client.get(f"/v1/runs/{alone['id']}/masks")
    assert (masks.status_code, "selected nothing" in masks.json()["detail"]) == (409, True)


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ("methods: [magic]\nkeep: 0.5\n", "recipe:1:11: methods.0.name: unknown method 'magic'"),
        ("methods: [ppl]\nkeep: 0.5\nfilter: ppl <\n", "recipe:3:9: filter: the filter: syntax error"),
        ("methods: [ppl]\nkeep: 0.5\ndata: /etc/passwd\n", "recipe:3:1: data: a service's dataset"),
        ({"methods": ["ppl"], "keep": 0.5, "dedup": {"threshold": 7}}, "recipe: dedup.threshold: must be"),
        ({"methods": ["ppl"], "keep": 0.5, "filter": "true); SELECT (true"}, "recipe: filter: the filter: "),
    ],
)
def test_what_is_wrong_with_a_recipe_is_told_before_there_is_a_job(
    server: Server, recipe: object, told: str
) -> None:
    before = server.newest_job()
    answer = server.client.post("/v1/runs", json={"dataset": "sums", "recipe": recipe})
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == "recipe"
    assert answer.json()["detail"].startswith(told), answer.text
    assert server.newest_job() == before


@pytest.mark.parametrize(
    ("asked", "status", "field"),
    [
        ({"method": "ppl"}, 422, "recipe"),
        ({"seed": 3}, 422, "recipe"),
        (
            {"recipe": {"methods": ["ppl"], "keep": 0.5, "measuring": {"model": "/etc"}}},
            403,
            "measuring.model",
        ),
        (
            {"recipe": {"methods": ["ppl"], "keep": 0.5, "contamination": {"against": {"x": "nothing"}}}},
            404,
            None,
        ),
        (
            {"recipe": {"methods": ["ppl"], "keep": 0.5, "contamination": {"against": {"x": "quiz@7"}}}},
            404,
            None,
        ),
    ],
)
def test_what_a_recipe_cannot_be_given_with_is_refused(
    server: Server, recipe: str, asked: dict[str, Any], status: int, field: str | None
) -> None:
    answer = server.client.post("/v1/runs", json={"dataset": "sums", "recipe": recipe} | asked)
    assert answer.status_code == status, answer.text
    if field is not None:
        assert answer.json()["field"] == field


def test_rows_and_a_file_can_be_pruned_by_a_recipe_in_one_call(server: Server, recipe: str) -> None:
    body = {"rows": ROWS, "recipe": recipe, "name": "by_rows"}
    answer = server.client.post("/v1/prune", json=body, headers=WAIT | {"Accept": "application/x-ndjson"})
    assert answer.status_code == 200, answer.text
    assert len(answer.text.splitlines()) == 13
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    sent = server.client.post(
        "/v1/prune",
        data={"recipe": recipe, "name": "by_file"},
        files={"file": ("rows.jsonl", text)},
        headers=WAIT | {"Accept": "application/x-ndjson"},
    )
    assert sent.status_code == 200, sent.text
    assert sent.text == answer.text


def test_a_schedule_runs_a_recipe(server: Server, recipe: str) -> None:
    body = {"dataset": "sums", "cron": SELDOM, "name": "cooked", "run": {"recipe": recipe}}
    made = server.client.post("/v1/schedules", json=body)
    assert made.status_code == 201, made.text
    assert made.json()["run"]["contamination"]["against"] == {"quiz": "quiz"}  # each fire pins its version
    fired = server.client.post("/v1/schedules/cooked/fire")
    job = server.wait(fired.headers["location"])
    assert job["state"] == "succeeded", job
    run = server.client.get(f"/v1/runs/{job['result']['run_id']}").json()
    assert run["config"]["contamination"]["against"] == {"quiz": "quiz@1"}
    assert run["report"]["kept"] == 13


def test_the_command_line_has_a_service_run_a_recipe(
    server: Server, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATAPRUNER_TOKEN", server.token)
    path, plain = tmp_path / "recipe.yaml", tmp_path / "plain.jsonl"
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    path.write_text(recipe + "data: sums\n", encoding="utf-8")
    for source in ([], [str(rows)]):
        arguments = ["run", str(path), *source, "--plain", str(plain), "--url", server.url, "--quiet"]
        assert cli.main(arguments) == 0
        assert len(plain.read_text().splitlines()) == 13
        plain.unlink()


def test_evaluation_and_target_sets_that_are_files_are_sent_to_the_service_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATAPRUNER_TOKEN", server.token)
    (tmp_path / "quiz.jsonl").write_text(json.dumps({"fact": BENCHMARK[0]["output"], "id": 3}) + "\n")
    for name, some in (("aim", ROWS[:3]), ("other", ROWS[3:5])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    (tmp_path / "recipe.yaml").write_text(
        f"""\
data: sums
measuring: {{model: {server.model}}}
contamination: {{against: {{facts: quiz.jsonl, known: quiz}}, convention: 8-gram}}
target: {{few: aim.jsonl, fewer: other.jsonl}}
method: rds
keep: 100%
"""
    )

    def sets() -> set[str]:
        """Datasets made of files that nobody named."""
        known = server.client.get("/v1/datasets", params={"unnamed": True}).json()["items"]
        return {f"{dataset['name']}@1" for dataset in known if dataset["name"].startswith("set_")}

    before, runs = sets(), []
    for _ in range(2):
        arguments = ["run", str(tmp_path / "recipe.yaml"), "--url", server.url, "--json"]
        assert cli.main(arguments) == 0
        runs.append(json.loads(capsys.readouterr().out))
    config = runs[0]["config"]
    assert config == runs[1]["config"]
    assert config["contamination"]["against"]["known"] == "quiz@1"
    assert runs[0]["report"]["reasons"]["holds text of facts"] == 2
    sent = {*config["target"].values(), config["contamination"]["against"]["facts"]}
    assert list(config["target"]) == ["few", "fewer"]
    assert len(sent) == 3
    reasons = {each for each in runs[0]["report"]["reasons"] if each.startswith("RDS+: taken in a turn")}
    assert reasons == {f"RDS+: taken in a turn of task {task}" for task in ("few", "fewer")}
    assert sets() - before == sent
    listed = {dataset["name"] for dataset in server.client.get("/v1/datasets").json()["items"]}
    assert not {name for name in listed if name.startswith("set_")}


def test_a_schedule_made_of_a_recipe_with_files_compares_with_them(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATAPRUNER_TOKEN", server.token)
    (tmp_path / "facts.csv").write_text("fact\nWater rises and falls.\n")
    recipe = f"""\
measuring: {{model: {server.model}}}
contamination: {{against: {{facts: facts.csv}}}}
method: ppl
keep: 50%
"""
    (tmp_path / "recipe.yaml").write_text(recipe)
    arguments = ["schedules", "create", "sums", SELDOM, "--name", "facts", "--url", server.url, "--json"]
    assert cli.main([*arguments, "--recipe", str(tmp_path / "recipe.yaml")]) == 0
    made = json.loads(capsys.readouterr().out)
    name, _, version = made["run"]["contamination"]["against"]["facts"].partition("@")
    assert version == "1"
    assert server.client.get(f"/v1/datasets/{name}").json()["latest"]["rows"] == 1
