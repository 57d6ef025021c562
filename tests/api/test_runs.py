"""Runs over a real socket: pruned and scored like the library does, explained, compared, deleted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

import datapruner
from datapruner.result import Result
from tests.served import WAIT, Server
from tests.tiny_model import LINES, MEASURED, REJECTED

Run = dict[str, Any]


def start(server: Server, **asked: Any) -> Run:
    """A finished run of the dataset `motley` as it was first, with the tiny model."""
    body = {"dataset": "motley", "version": 1, "measuring": {"model": server.model}} | asked
    answer = server.client.post("/v1/runs", json=body, headers=WAIT)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


@pytest.fixture(scope="module")
def server(server: Server) -> Iterator[Server]:
    """The service, asked by somebody of a project of this file's own."""
    token = server.new_token("read", "write", "sql", "admin", project="runs")
    mine = replace(server, token=token)
    yield mine
    mine.client.close()


@pytest.fixture(scope="module")
def motley(server: Server, corpus_file: Path) -> dict[str, Any]:
    """The dataset with the rows of `tests.tiny_model.LINES`."""
    with corpus_file.open("rb") as file:
        answer = server.client.post(
            "/v1/datasets", data={"name": "motley"}, files={"file": file}, headers=WAIT
        )
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


@pytest.fixture(scope="module")
def pruned(server: Server, motley: dict[str, Any]) -> Run:
    """The run that measured the dataset; the library's `first_run` on the service."""
    return start(server, method="qtuning", keep=0.5)


@pytest.fixture(scope="module")
def scored(server: Server, pruned: Run) -> Run:
    return start(server, methods=["donod", "ppl", "el2n"], options={"el2n": {"cut_hardest": 0.1}})


@pytest.fixture(scope="module")
def stranger(server: Server) -> Iterator[httpx.Client]:
    """Somebody of another project, with every scope but admin."""
    with server.as_token(server.new_token("read", "write", "sql", project="elsewhere")) as client:
        yield client


def test_a_run_measures_and_accounts_for_every_row(server: Server, pruned: Run) -> None:
    assert pruned["state"] == "succeeded"
    assert (pruned["dataset"], pruned["version"]) == ("motley", 1)
    report = pruned["report"]
    parts = [report[name] for name in ("kept", "pruned", "rejected", "errored")]
    assert (report["ingested"], sum(parts)) == (len(LINES), len(LINES))
    assert report["rejected"] == len(REJECTED)
    assert pruned["measured"] >= len(MEASURED)
    job = server.client.get(f"/v1/jobs/{pruned['job_id']}").json()
    assert (job["kind"], job["result"]["run_id"]) == ("run", pruned["id"])


def test_without_waiting_the_answer_is_the_job(server: Server, motley: dict[str, Any]) -> None:
    body = {"dataset": motley["id"], "method": "random", "keep": 3, "measuring": {"model": server.model}}
    answer = server.client.post("/v1/runs", json=body)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == job["links"]["self"] == f"/v1/jobs/{job['id']}"
    done = server.wait(answer.headers["location"])
    assert done["state"] == "succeeded", done
    assert server.client.get(done["links"]["run"]).json()["report"]["kept"] == 3


def test_pruning_again_at_another_ratio_measures_nothing(server: Server, pruned: Run) -> None:
    again = start(server, method="qtuning", keep=0.25)
    assert again["measured"] == 0
    assert again["report"]["kept"] < pruned["report"]["kept"]
    assert again["id"] != pruned["id"]
    same = start(server, method="qtuning", keep=0.5)
    assert (same["measured"], same["content_id"]) == (0, pruned["content_id"])


def test_several_methods_score_and_nothing_is_pruned(server: Server, scored: Run) -> None:
    assert scored["measured"] == 0
    assert (scored["report"]["pruned"], scored["config"]["keep"]) == (0, None)
    sample = server.client.get(f"/v1/runs/{scored['id']}/samples/4").json()
    assert {"don", "nod", "donod", "ppl", "el2n"} <= set(sample["scores"])
    assert (sample["status"], {piece["state"] for piece in sample["turns"][1]["pieces"]}) == (
        "scored",
        {"scored"},
    )
    refused = server.client.get(f"/v1/runs/{scored['id']}/masks")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/conflict")


def test_masks_are_those_of_the_library(server: Server, pruned: Run, first_run: Result) -> None:
    """The library ran in this process, in another home, on its own measurements."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        asked = {"limit": 5} | ({} if cursor is None else {"cursor": cursor})
        page = server.client.get(f"/v1/runs/{pruned['id']}/masks", params=asked).json()
        found += page["items"]
        if (cursor := page["next"]) is None:
            break
    assert (
        found
        == first_run.masks.select("row", "sample_id", "kept_tokens", "kept_spans", "token_weight").to_dicts()
    )
    ours = first_run.run.config.model_dump(mode="json")
    assert pruned["config"] == ours | {"source": None}  # rows that were sent have no path
    assert pruned["lineage"]["proxy"] == first_run.run.lineage["proxy"]
    assert pruned["lineage"]["corpus"] == first_run.run.lineage["corpus"]


def test_the_report_replays_the_run(
    server: Server, pruned: Run, first_run: Result, corpus_file: Path, tmp_path: Path, home: Path
) -> None:
    answer = server.client.get(f"/v1/runs/{pruned['id']}/report")
    document = answer.json()
    assert document["report"] == pruned["report"]
    (tmp_path / "served.run.json").write_bytes(answer.content)
    replayed = datapruner.replay(tmp_path / "served.run.json", corpus_file, home=home, device="cpu")
    assert replayed.run.measured == 0
    assert replayed.report == first_run.report


def test_the_full_report_is_that_of_the_library_and_its_page_is_sent_with_its_policy(
    server: Server, pruned: Run, first_run: Result
) -> None:
    path = f"/v1/runs/{pruned['id']}/report"
    document = server.client.get(f"{path}.json").raise_for_status().json()
    here = json.loads(datapruner.report(first_run).model_dump_json())
    other = ("run", "published_at", "config", "lineage", "replay", "by_source", "rejects")
    assert {name: value for name, value in document.items() if name not in other} == {
        name: value for name, value in here.items() if name not in other
    }
    assert document["run"] == pruned["id"]
    assert "replay" not in document
    page = server.client.get(f"{path}.html").raise_for_status()
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert policy.endswith("; frame-ancestors 'none'; sandbox allow-scripts")
    assert f"run {pruned['id']}</title>" in page.text
    with server.as_token(server.new_token("sql", project="runs")) as unable:
        assert unable.get(f"{path}.html").status_code == 403


def test_a_sample_is_explained_by_row_and_by_id(server: Server, pruned: Run, first_run: Result) -> None:
    by_row = server.client.get(f"/v1/runs/{pruned['id']}/samples/4").json()
    by_id = server.client.get(f"/v1/runs/{pruned['id']}/samples/{by_row['sample_id']}").json()
    assert by_id == by_row | {"copies": [20, 21]}
    line = first_run.scores.row(4, named=True)
    assert (by_row["status"], by_row["reason"], by_row["quadrant"]) == (
        line["status"],
        line["reason"],
        line["quadrant"],
    )
    assert by_row["scores"]["ppl"] == pytest.approx(line["ppl"], rel=1e-12)
    assert by_row["thresholds"] == pytest.approx(first_run.report.thresholds)
    assert 1 <= by_row["ranks"]["ppl"] <= by_row["ranked"] == len(MEASURED)
    assert [turn["role"] for turn in by_row["turns"]] == ["user", "assistant"]
    assert "".join(piece["text"] for piece in by_row["turns"][1]["pieces"]) == LINES[4]["output"]
    spelled = [LINES[4]["output"][token["start"] : token["end"]] for token in by_row["tokens"]]
    assert spelled == [token["text"] for token in by_row["tokens"]]
    assert LINES[4]["instruction"] in by_row["prompt"]
    assert by_row["prompt"].endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("sample", ["31", "f" * 64, "no-such", "%2e%2e", "1e400", "9" * 30])
def test_a_sample_that_is_not_there_is_not_found(server: Server, pruned: Run, sample: str) -> None:
    answer = server.client.get(f"/v1/runs/{pruned['id']}/samples/{sample}")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")


def test_two_runs_are_compared(server: Server, pruned: Run, first_run: Result) -> None:
    other = start(server, method="ppl", keep=0.25)
    found = server.client.get(f"/v1/runs/{pruned['id']}/compare/{other['id']}").json()
    ours = {mask["sample_id"] for mask in masks(server, pruned)}
    theirs = {mask["sample_id"] for mask in masks(server, other)}
    known = set(first_run.scores["sample_id"].drop_nulls())
    assert found["common_samples"] == len(known)
    assert (found["kept_by_both"], found["kept_by_first_only"]) == (len(ours & theirs), len(ours - theirs))
    assert (found["kept_by_second_only"], found["kept_by_neither"]) == (
        len(theirs - ours),
        len(known - ours - theirs),
    )
    assert found["jaccard"] == len(ours & theirs) / len(ours | theirs)
    assert found["kept_by_both_at_random"] == pytest.approx(len(ours) * len(theirs) / len(known))
    correlations = {each["column"]: each for each in found["correlations"]}
    assert correlations["ppl"] == {"column": "ppl", "samples": len(MEASURED), "spearman": 1.0}


def masks(server: Server, run: Run) -> list[dict[str, Any]]:
    return list(server.client.get(f"/v1/runs/{run['id']}/masks?limit=200").json()["items"])


def test_runs_of_different_versions_are_compared(server: Server, pruned: Run) -> None:
    more = {"rows": [{"instruction": "One more.", "output": "Here it is."}]}
    added = server.client.post("/v1/datasets/motley/versions", json=more, headers=WAIT)
    assert added.status_code == 201, added.text
    newer = start(server, method="qtuning", keep=0.5, version=None)
    assert (newer["version"], newer["measured"], newer["report"]["ingested"]) == (2, 1, len(LINES) + 1)
    found = server.client.get(f"/v1/runs/{pruned['id']}/compare/{newer['id']}").json()
    same = server.client.get(f"/v1/runs/{pruned['id']}/compare/{pruned['id']}").json()
    assert found["common_samples"] == same["common_samples"]
    correlations = {each["column"]: each["spearman"] for each in found["correlations"]}
    assert correlations["ppl"] == 1.0


def test_runs_are_listed_the_newest_first_page_by_page(server: Server, pruned: Run, scored: Run) -> None:
    whole = server.client.get("/v1/runs", params={"limit": 200}).json()["items"]
    ids = [run["id"] for run in whole]
    assert ids == sorted(ids, reverse=True)
    assert {pruned["id"], scored["id"]} <= set(ids)
    found, cursor = [], None
    while True:
        page = server.client.get("/v1/runs", params={"limit": 2, "dataset": "motley"} | (cursor or {})).json()
        found += page["items"]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert found == whole


# What is refused


@pytest.mark.parametrize(
    ("asked", "status", "field"),
    [
        ({"dataset": "nothing"}, 404, None),
        ({"version": 99}, 404, None),
        ({"version": 0}, 422, "version"),
        ({"version": 10**30}, 422, "version"),
        ({"method": "magic"}, 422, "method"),
        ({"keep": None}, 422, "keep"),
        ({"keep": 0}, 422, "keep"),
        ({"keep": 1}, 422, "keep"),
        ({"keep": "1"}, 422, "keep"),
        ({"keep": True}, 422, "keep"),
        ({"keep": {"count": 0}}, 422, "keep"),
        ({"method": ["ppl", "length"]}, 422, "methods"),
        ({"method": []}, 422, "method"),
        ({"keep": "lots"}, 422, "keep"),
        ({"keep": 10**400}, 422, "keep"),
        ({"keep": 0.5, "keep_tokens": 3}, 422, "keep"),
        ({"preset": "magic"}, 422, "preset"),
        ({"options": {"no_such": 1}}, 422, "options"),
        ({"options": {"token_keep": "many"}}, 422, "options"),
        ({"method": None, "methods": ["ppl"], "options": {"ppl": 3}}, 422, "options"),
        ({"methods": ["ppl"]}, 422, "methods"),
        ({"seed": -1}, 422, "seed"),
        ({"measuring": {"model": "/etc"}}, 403, "measuring.model"),
        ({"measuring": {"model": "../../etc/passwd"}}, 403, "measuring.model"),
        ({"measuring": {"model": "x\u0000"}}, 422, "measuring.model"),
        ({"measuring": {"device": "cuda"}}, 422, "measuring.device"),
        ({"measuring": {"reference": "smollm2-135m"}}, 422, "measuring.reference"),
        ({"method": "rho"}, 422, "measuring.reference"),
        ({"method": "rho", "measuring": {"reference": "/etc"}}, 403, "measuring.reference"),
        ({"target": "motley"}, 422, "target"),
        ({"unknown": 1}, 422, "unknown"),
    ],
)
def test_what_cannot_be_run_is_refused_before_there_is_a_job(
    server: Server, motley: dict[str, Any], asked: dict[str, Any], status: int, field: str | None
) -> None:
    before = server.newest_job()
    body = {"dataset": "motley", "method": "qtuning", "keep": 0.5, "measuring": {"model": server.model}}
    answer = server.client.post("/v1/runs", json=body | asked)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["field"] == field
    assert server.newest_job() == before


def test_a_plain_one_is_refused_with_both_ways_to_say_it(server: Server, motley: dict[str, Any]) -> None:
    body = {"dataset": "motley", "method": "qtuning", "keep": 1, "measuring": {"model": server.model}}
    refused = server.client.post("/v1/runs", json=body).json()
    assert refused["detail"] == "keep: 1 may mean one sample or all of them"
    assert '{"count": 1}' in refused["remedy"]
    assert '{"share": 1}' in refused["remedy"]
    nested = {"dataset": "motley", "cron": "0 2 * * *", "run": {"method": "qtuning", "keep": 1}}
    assert server.client.post("/v1/schedules", json=nested).json()["field"] == "run.keep"


def test_one_sample_or_all_of_them_are_kept_by_name(server: Server, pruned: Run) -> None:
    assert start(server, method="ppl", keep={"count": 1})["report"]["kept"] == 1
    assert start(server, methods=["ppl"], keep={"share": 1})["report"]["kept"] == len(MEASURED)


def test_what_does_not_say_how_much_to_keep_scores_in_either_spelling(server: Server, pruned: Run) -> None:
    for asked in ({"method": "ppl"}, {"methods": "ppl"}, {"method": ["ppl"]}, {"methods": ["ppl"]}):
        run = start(server, **asked)
        assert (run["config"]["keep"], run["report"]["pruned"]) == (None, 0)
        assert [choice["name"] for choice in run["config"]["methods"]] == ["ppl"]


def test_a_dataset_without_a_version_is_not_run(server: Server) -> None:
    source = {"kind": "path", "path": f"{server.model}/model.safetensors"}
    made = server.client.post("/v1/datasets", json={"name": "hollow", "source": source}, headers=WAIT)
    assert made.status_code == 422, made.text
    answer = server.client.post("/v1/runs", json={"dataset": "hollow", "method": "random", "keep": 0.5})
    assert (answer.status_code, answer.json()["field"]) == (409, "dataset")
    assert "add a version" in answer.json()["remedy"]


def test_a_model_that_cannot_be_loaded_fails_the_job_and_leaves_no_result(
    server: Server, motley: dict[str, Any]
) -> None:
    gone = f"{Path(server.model).parent}/gone"
    body = {"dataset": "motley", "method": "ppl", "keep": 0.5, "measuring": {"model": gone}}
    answer = server.client.post("/v1/runs", json=body, headers=WAIT)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/model-unavailable")
    run = server.client.get("/v1/runs?limit=1").json()["items"][0]
    assert (run["state"], run["report"], run["published_at"]) == ("failed", None, None)
    for what in ("report", "masks", "samples/0", f"compare/{run['id']}"):
        refused = server.client.get(f"/v1/runs/{run['id']}/{what}")
        assert refused.status_code == 409, refused.text
        assert "its job is failed" in refused.json()["detail"]
    assert server.client.delete(f"/v1/runs/{run['id']}").status_code == 200


def test_a_run_of_another_project_is_not_there(
    server: Server, stranger: httpx.Client, pruned: Run, scored: Run
) -> None:
    path = f"/v1/runs/{pruned['id']}"
    for method, what in [
        ("GET", ""),
        ("DELETE", "?cascade=true"),
        ("DELETE", "?dry_run=true"),
        ("POST", "/cancel"),
        ("GET", "/report"),
        ("GET", "/report.json"),
        ("GET", "/report.html"),
        ("GET", "/masks"),
        ("GET", "/samples/0"),
        ("GET", f"/compare/{scored['id']}"),
    ]:
        assert stranger.request(method, path + what).status_code == 404, what
    assert stranger.get("/v1/runs").json()["items"] == []
    assert stranger.get("/v1/runs?dataset=motley").status_code == 404
    body = {"dataset": pruned["dataset_id"], "method": "random", "keep": 0.5}
    assert stranger.post("/v1/runs", json=body).status_code == 404


def test_reading_needs_the_scope_to_read_and_changing_the_one_to_write(server: Server, pruned: Run) -> None:
    with server.as_token(server.new_token("read", project="runs")) as reader:
        assert reader.get(f"/v1/runs/{pruned['id']}").status_code == 200
        for method, path in [("POST", "/cancel"), ("DELETE", "")]:
            assert reader.request(method, f"/v1/runs/{pruned['id']}{path}").status_code == 403
    with server.as_token(server.new_token("write", project="runs")) as writer:
        assert writer.get(f"/v1/runs/{pruned['id']}").status_code == 403


# Cancelled and deleted


def test_a_run_that_waits_is_cancelled_at_once_and_one_that_has_ended_stays(
    server: Server, motley: dict[str, Any]
) -> None:
    body = {"dataset": "motley", "method": "random", "keep": 2, "measuring": {"model": server.model}}
    server.change("UPDATE projects SET quota_jobs = 0 WHERE name = 'runs'")  # so that all of them wait
    started = [server.client.post("/v1/runs", json=body).json()["id"] for _ in range(2)]
    last, first = server.client.get("/v1/runs?limit=2").json()["items"]
    assert [last["job_id"], first["job_id"]] == started[::-1]
    path = f"/v1/runs/{last['id']}"
    refused = server.client.delete(f"{path}?cascade=true")
    assert refused.status_code == 409
    assert "is in use: its job is queued" in refused.json()["detail"]
    assert server.client.post(f"{path}/cancel").json()["state"] == "cancelled"
    assert server.client.get(path).json()["state"] == "cancelled"
    assert server.client.delete(path).status_code == 200
    server.change("UPDATE projects SET quota_jobs = NULL WHERE name = 'runs'")
    done = server.wait(started[0])
    again = server.client.post(f"/v1/runs/{done['result']['run_id']}/cancel")
    assert (again.status_code, again.json()) == (200, done)


def test_a_run_with_exports_is_deleted_only_with_them(server: Server, pruned: Run) -> None:
    run = start(server, method="random", keep=4)
    path = f"/v1/runs/{run['id']}"
    made = server.client.post("/v1/exports", json={"run": run["id"]}, headers=WAIT).json()
    expected = [{"kind": "exports", "count": 1}, {"kind": "evaluations", "count": 0}]
    assert server.client.delete(f"{path}?dry_run=true").json() == {"deleted": False, "dependents": expected}
    refused = server.client.delete(path)
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/conflict")
    assert "cascade=true" in refused.json()["remedy"]
    assert server.client.get(made["download"]).status_code == 200

    folders = [
        next(server.home.glob(f"files/projects/*/{name}")) for name in (path[4:], f"exports/{made['id']}")
    ]
    done = server.client.delete(f"{path}?cascade=true")
    assert done.json() == {"deleted": True, "dependents": expected}
    assert not any(folder.exists() for folder in folders)
    for gone in (path, f"/v1/exports/{made['id']}", made["download"]):
        assert server.client.get(gone).status_code == 404
    assert server.client.delete(path).status_code == 404
