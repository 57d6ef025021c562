"""Whether the service lives and can work, and what it says about itself."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

from prometheus_client.parser import text_string_to_metric_families

from tests.served import Server
from tests.waiting import PATIENCE, until


def figures(server: Server) -> dict[tuple[str, ...], float]:
    """Samples by name and label values."""
    answer = server.client.get("/v1/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_the_service_lives_and_is_ready(server: Server) -> None:
    with server.as_token(None) as anonymous:
        for path in ("/v1/health", "/v1/ready"):
            assert anonymous.get(path).json() == {"status": "ok"}


def test_it_is_not_ready_while_storage_cannot_be_written(server: Server) -> None:
    open_jobs = [("datapruner_jobs", "queued"), ("datapruner_jobs", "running")]  # of other tests
    until(lambda: [figures(server)[state] for state in open_jobs] == [0, 0])
    files, aside = server.home / "files", server.home / "files-aside"
    if files.exists():
        files.rename(aside)
    files.write_text("in the way")
    try:
        answer = server.unready()
        assert answer.status_code == 503
        assert answer.json()["type"] == "/problems/not-ready"
        assert str(server.home) not in answer.text  # anybody may ask
        assert server.client.get("/v1/health").status_code == 200
    finally:
        files.unlink()
        if aside.exists():
            aside.rename(files)
    assert server.client.get("/v1/ready").status_code == 200


def test_it_is_not_ready_with_a_database_of_another_version(server: Server) -> None:
    with closing(sqlite3.connect(server.home / "catalog.sqlite", timeout=PATIENCE)) as database, database:
        [(known,)] = database.execute("SELECT version_num FROM alembic_version").fetchall()
        database.execute("UPDATE alembic_version SET version_num = 'other'")
        database.commit()
        try:
            answer = server.unready()
        finally:
            database.execute("UPDATE alembic_version SET version_num = ?", (known,))
    assert answer.status_code == 503
    assert answer.json()["type"] == "/problems/not-ready"
    assert "db upgrade" in answer.json()["remedy"]
    assert answer.headers["Retry-After"]


def open_requests(server: Server) -> float:
    time.sleep(0.5)  # each look is a request, too: the one before is to be over
    return figures(server)[("datapruner_http_open_requests",)]


def test_requests_and_errors_are_counted_by_operation(server: Server) -> None:
    before = figures(server)
    server.client.get("/v1/methods/none")
    counted = [
        ("datapruner_http_answers_total", "GET", "get_method", "404"),
        ("datapruner_http_request_seconds_count", "GET", "get_method"),
    ]
    # A request is counted after its answer was sent, and streams of other tests may not have ended yet.
    until(lambda: [figures(server).get(name) for name in counted] == [before.get(n, 0) + 1 for n in counted])
    until(lambda: open_requests(server) == 1)  # the one that asks


def test_jobs_and_what_they_measured_are_read_from_the_database(server: Server) -> None:
    before = figures(server)
    body = {
        "rows": [{"instruction": f"Count {n}.", "output": f"That is {n}."} for n in range(4)],
        "method": "ppl",
        "keep": 0.5,
        "measuring": {"model": server.model, "max_length": 64},
    }
    started = server.client.post("/v1/prune", json=body)
    job = server.wait(started.headers["Location"])
    assert job["state"] == "succeeded", job
    after = figures(server)
    # Jobs of other tests may have ended meanwhile.
    assert after[("datapruner_jobs", "succeeded")] >= before[("datapruner_jobs", "succeeded")] + 1
    assert after[("datapruner_measured_rows",)] >= before[("datapruner_measured_rows",)] + 4
    assert after[("datapruner_measured_tokens",)] > before[("datapruner_measured_tokens",)]
    assert 0 <= after[("datapruner_cache_hit_ratio",)] <= 1
    assert after[("datapruner_queue_age_seconds",)] >= 0
