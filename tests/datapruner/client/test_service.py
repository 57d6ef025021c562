"""Both clients against the real service, over a real socket, with the tiny model."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from datapruner.client import AsyncClient, Client, Subset
from datapruner.errors import ConflictError, DeniedError, InputError, NotFoundError, UsageError
from datapruner.schemas.jobs import JobAnswer
from tests.datapruner.client.unruly import Unruly, forwards
from tests.served import SELDOM, Server
from tests.tiny_model import LINES, REJECTED

pytestmark = pytest.mark.slow
ROWS = [line for line in LINES[:8] if isinstance(line, dict)]


@pytest.fixture(scope="module")
def client(service: Server) -> Any:
    with Client(service.url, service.token) as client:
        yield client


@pytest.fixture(scope="module")
def told() -> list[JobAnswer]:
    return []


@pytest.fixture(scope="module")
def pruned(
    client: Client,
    service: Server,
    corpus_file: Path,
    told: list[JobAnswer],
    tmp_path_factory: pytest.TempPathFactory,
) -> Subset:
    """A file pruned through the service, as the dataset `motley`."""
    return client.prune(
        corpus_file,
        method="qtuning",
        keep=0.5,
        measuring={"model": service.model},
        name="motley",
        out=tmp_path_factory.mktemp("pruned") / "subset.parquet",
        progress=told.append,
    )


def test_a_file_comes_back_as_the_subset(pruned: Subset) -> None:
    assert pruned.path is not None
    assert pruned.content is None
    table = pq.read_table(pruned.path)
    assert pruned.run.report is not None
    assert table.num_rows == pruned.run.report["kept"] == pruned.export.rows > 0
    assert {"input_ids", "labels", "token_keep"} <= set(table.column_names)
    assert list(pruned.path.parent.iterdir()) == [pruned.path]
    assert repr(pruned) == f"Subset({table.num_rows} rows of {pruned.run.id}, in {str(pruned.path)!r})"
    assert len(repr(pruned.run)) < 500


def test_progress_is_told_from_queue_to_end(pruned: Subset, told: list[JobAnswer]) -> None:
    states = [job.state for job in told]
    assert states[-1] == "succeeded"
    assert set(states) <= {"queued", "running", "succeeded"}
    assert all(
        order.index(a) <= order.index(b)
        for order in [["queued", "running", "succeeded"]]
        for a, b in pairwise(states)
    )
    assert any(job.progress is not None and job.progress.stage for job in told)


def test_rows_come_back_as_they_were_through_the_other_client(pruned: Subset, service: Server) -> None:
    async def main() -> Subset:
        async with AsyncClient(service.url, service.token) as client:
            return await client.prune(
                ROWS, method="qtuning", keep=3, measuring={"model": service.model}, export="plain-jsonl"
            )

    subset = asyncio.run(main())
    assert subset.content is not None
    lines = [json.loads(line) for line in subset.content.splitlines()]
    assert len(lines) == 3
    assert all(line in ROWS for line in lines)
    assert subset.run.measured == 0  # they were all in the file


def test_a_lost_answer_starts_no_second_job(
    client: Client, pruned: Subset, service: Server, unruly: Unruly, corpus_file: Path
) -> None:
    before = len(list(client.jobs.list()))
    unruly.will(forwards(service.url, loses_answer=True), forwards(service.url))
    with Client(unruly.url, service.token) as far:
        job = far.datasets.start_create("once", corpus_file)
    assert len(unruly.seen) == 2
    assert len(list(client.jobs.list())) == before + 1
    made = client.jobs.wait(job.id)
    assert made.result is not None
    assert made.result.dataset_id == client.datasets.get("once").id
    client.datasets.delete("once")


def test_datasets_grow_are_looked_at_and_deleted(client: Client, pruned: Subset, corpus_file: Path) -> None:
    made = client.datasets.create("rows", ROWS[:4], keep_versions=3)
    assert made.latest is not None
    assert (made.latest.number, made.latest.rows, made.keep_versions) == (1, 4, 3)
    grown = client.datasets.append("rows", ROWS, only_new=True)
    assert (grown.number, grown.rows, grown.new_rows) == (2, len(ROWS), len(ROWS) - 4)
    assert [version.number for version in client.datasets.versions("rows")] == [2, 1]
    assert client.datasets.change("rows", keep_runs=2).keep_versions == 3
    assert [sample.row for sample in client.datasets.samples("rows", 1)] == [0, 1, 2, 3]
    assert [reject.row for reject in client.datasets.rejects("motley", 1)] == list(REJECTED)
    assert {"rows", "motley"} <= {dataset.name for dataset in client.datasets.list()}
    with pytest.raises(ConflictError, match="rows"):
        client.datasets.create("rows", ROWS)
    assert client.datasets.delete("rows", dry_run=True).deleted is False
    assert client.datasets.delete("rows").deleted is True
    with pytest.raises(NotFoundError) as caught:
        client.datasets.get("rows")
    assert caught.value.problem is not None
    assert caught.value.problem.status == 404
    with pytest.raises(ConflictError, match="cascade"):
        client.datasets.delete("motley")


def test_runs_are_made_explained_and_compared(client: Client, pruned: Subset, service: Server) -> None:
    run = client.runs.create(
        "motley", version=1, method="donod", keep="25%", measuring={"model": service.model}
    )
    assert run.report is not None
    assert run.measured == 0
    assert client.runs.report(run.id).report == run.report
    assert len(list(client.runs.masks(run.id))) == run.report["kept"]
    by_row = client.runs.explain(run.id, 0)
    assert by_row.sample_id is not None
    assert client.runs.explain(run.id, by_row.sample_id[:12]) == by_row
    compared = client.runs.compare(pruned.run.id, run.id)
    assert compared.kept_by_both + compared.kept_by_second_only > 0
    listed = [each.id for each in client.runs.list(dataset="motley")]
    assert listed[0] == run.id
    assert pruned.run.id in listed
    assert client.runs.cancel(run.id).state == "succeeded"
    assert client.runs.delete(run.id).deleted


def test_a_download_goes_on_from_what_is_there(client: Client, pruned: Subset, tmp_path: Path) -> None:
    assert pruned.path is not None
    assert pruned.export.sha256 is not None
    whole, out = pruned.path.read_bytes(), tmp_path / "again.parquet"
    part = out.with_name(f".{out.name}.{pruned.export.sha256[:16]}.part")
    part.write_bytes(whole[:1000])
    told: list[int] = []
    client.exports.download(pruned.export.id, out, progress=lambda done, total: told.append(done))
    assert out.read_bytes() == whole
    assert told[0] > 1000
    assert not part.exists()
    assert client.exports.read(pruned.export.id) == whole


def test_exports_in_another_format(client: Client, pruned: Subset) -> None:
    export = client.exports.create(pruned.run.id, "plain-jsonl")
    assert pruned.run.report is not None
    assert len(client.exports.read(export.id).splitlines()) == pruned.run.report["kept"]
    assert [each.id for each in client.exports.list(run=pruned.run.id)] == [export.id, pruned.export.id]
    client.exports.delete(export.id)


def test_jobs_are_listed_and_watched_after_their_end(client: Client, pruned: Subset, service: Server) -> None:
    job = client.jobs.get(pruned.run.job_id)
    assert [each.state for each in client.jobs.watch(job.id)] == ["succeeded"]
    assert client.jobs.cancel(job.id).state == "succeeded"
    assert job.id in [each.id for each in client.jobs.list(kind="prune", state="succeeded")]
    with pytest.raises(NotFoundError):
        next(client.jobs.watch("job_0"))

    async def main() -> JobAnswer:
        async with AsyncClient(service.url, service.token) as other:
            return await other.jobs.wait(job.id)

    assert asyncio.run(main()) == job


def test_a_job_fails_with_the_error_of_its_input(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(InputError, match=r"rows\.parquet"):
        client.datasets.create("broken", path)


def test_sql_gives_a_table_and_a_frame(client: Client, pruned: Subset, service: Server) -> None:
    found = client.sql("select count(*) as kept from motley.sample_scores where keep = $1", [True])
    assert pruned.run.report is not None
    assert found.table.to_pylist() == [{"kept": pruned.run.report["kept"]}]
    assert not found.truncated
    assert found.seconds > 0
    cut = client.sql("select row from motley.sample_scores order by row", max_rows=2)
    assert cut.truncated
    assert repr(cut) == "SqlResult(2 rows of 1 columns, and there are more)"
    assert cut.frame["row"].to_list() == [0, 1]
    assert client.sql("select $a + 1 as b", {"a": 1}).table.to_pydict() == {"b": [2]}
    with pytest.raises(UsageError, match="nowhere"):
        client.sql("select * from nowhere")
    assert "motley" in {table.schema_name for table in client.sql_schema().tables}
    assert {table.schema_name for table in client.sql_schema("motley").tables} == {"motley"}

    async def main() -> int:
        async with AsyncClient(service.url, service.token) as other:
            return (await other.sql("select 1")).table.num_rows

    assert asyncio.run(main()) == 1


def test_schedules_are_made_paused_and_deleted(client: Client, pruned: Subset, service: Server) -> None:
    made = client.schedules.create(
        "motley",
        SELDOM,
        {"method": "donod", "keep": 0.3, "measuring": {"model": service.model}},
        timezone="Europe/Berlin",
        name="nightly",
    )
    assert made.next_fire_at is not None
    assert made.next_fire_at > datetime.now(UTC)
    assert client.schedules.change("nightly", paused=True).paused
    assert [each.name for each in client.schedules.list()] == ["nightly"]
    assert client.schedules.get("nightly").cron == SELDOM
    job = client.jobs.wait(client.schedules.fire("nightly").id)
    assert job.schedule_id == made.id
    assert [(fire.outcome, fire.job_id) for fire in client.schedules.fires("nightly")] == [
        ("started", job.id)
    ]
    assert list(client.schedules.deliveries("nightly")) == []
    assert client.schedules.delete("nightly").deleted


def test_tokens_may_what_their_scopes_say_until_they_are_revoked(client: Client, service: Server) -> None:
    token = client.tokens.create("reader", scopes=["read"], expires_in_days=1)
    assert token.secret not in repr(client)
    with Client(service.url, token.secret) as reader:
        list(reader.datasets.list())
        with pytest.raises(DeniedError, match="scope write"):
            reader.datasets.start_create("rows", ROWS)
        with pytest.raises(DeniedError):
            list(reader.tokens.list())
        assert client.tokens.revoke(token.id).revoked_at is not None
        with pytest.raises(DeniedError):
            list(reader.datasets.list())
    assert token.id in [each.id for each in client.tokens.list()]


def test_projects_methods_and_figures(client: Client) -> None:
    made = client.projects.create("team", quota_rows=100, quota_jobs=2)
    changed = client.projects.change("team", quota_rows=None)
    assert (changed.quota_rows, changed.quota_jobs) == (None, 2)
    assert client.projects.get(made.id) == changed
    assert {"default", "team"} <= {project.name for project in client.projects.list()}
    assert client.methods.get("qtuning") in list(client.methods.list())
    assert client.health() == client.ready() == {"status": "ok"}
    assert "datapruner_" in client.metrics()
