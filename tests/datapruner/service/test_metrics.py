"""Figures that are read from the database, on both kinds of it."""

from __future__ import annotations

from datetime import timedelta

from prometheus_client.parser import text_string_to_metric_families

from datapruner.catalog import projects
from datapruner.catalog.database import Database
from datapruner.catalog.models import Dataset, Job, Run, Version, new_id, utcnow
from datapruner.service.metrics import Metrics

MANY = 5_000_000_000  # more than 32 bits hold


def figures(metrics: Metrics) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_an_empty_database_gives_zeros(database: Database) -> None:
    found = figures(Metrics(database))
    assert found[("datapruner_jobs", "queued")] == 0
    assert found[("datapruner_queue_age_seconds",)] == 0
    assert found[("datapruner_measured_tokens",)] == 0
    assert found[("datapruner_cache_hit_ratio",)] == 0


def test_the_figures_are_those_of_the_jobs_and_runs(database: Database) -> None:
    now = utcnow()
    with database.write() as session:
        project = projects.create_project(session, "busy").id
        about = {"project_id": project, "kind": "run", "payload": {}}
        progress = {"stage": "measuring", "rows": 7, "tokens": MANY, "tokens_per_second": 12.5}
        for state, shown in (("running", progress), ("succeeded", progress), ("succeeded", None)):
            session.add(Job(id=new_id("job"), state=state, progress=shown, **about))
        for waits in (timedelta(seconds=90), timedelta(seconds=5), -timedelta(hours=1)):
            session.add(Job(id=new_id("job"), run_after=now - waits, **about))
        job = Job(id=new_id("job"), state="failed", **about)
        dataset = Dataset(id=new_id("ds"), project_id=project, name="rows")
        session.add_all([job, dataset])
        session.flush()
        counts = {"rows": 12, "accepted": 10, "rejected": 2, "duplicates": 0, "new_rows": 10, "bytes": 1}
        version = Version(
            id=new_id("ver"), dataset_id=dataset.id, number=1, key="k", corpus_hash="h", report={}, **counts
        )
        session.add(version)
        session.flush()
        of_run = {"project_id": project, "dataset_id": dataset.id, "job_id": job.id, "config": {}}
        for measured, published in ((10, now), (0, now), (None, None)):
            session.add(
                Run(
                    id=new_id("run"),
                    version_id=version.id,
                    measured=measured,
                    published_at=published,
                    **of_run,
                )
            )
    found = figures(Metrics(database))
    assert {state: found[("datapruner_jobs", state)] for state in ("queued", "running", "succeeded")} == {
        "queued": 3,
        "running": 1,
        "succeeded": 2,
    }
    assert 90 <= found[("datapruner_queue_age_seconds",)] <= 90 + (utcnow() - now).total_seconds()
    assert found[("datapruner_measured_rows",)] == 14
    assert found[("datapruner_measured_tokens",)] == 2 * MANY
    assert found[("datapruner_measured_tokens_per_second",)] == 12.5
    assert found[("datapruner_cache_hit_ratio",)] == 0.5


def test_answers_are_counted_by_operation_and_status(database: Database) -> None:
    metrics = Metrics(database)
    for status in (200, 404, 503):
        metrics.began()
        metrics.ended("GET", "get_run", status, 0.25)
    found = figures(metrics)
    assert found[("datapruner_http_answers_total", "GET", "get_run", "404")] == 1
    assert found[("datapruner_http_request_seconds_sum", "GET", "get_run")] == 0.75
    assert found[("datapruner_http_errors_total",)] == 1
    assert found[("datapruner_http_open_requests",)] == 0
