"""What a caller asks for becomes a job with all that it needs, or an error that leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from datapruner.catalog import migrations
from datapruner.catalog.models import (
    Dataset,
    Export,
    Job,
    Project,
    Run,
    Token,
    Upload,
    Version,
    new_id,
    utcnow,
)
from datapruner.errors import (
    ConflictError,
    DataprunerError,
    DeniedError,
    NotFoundError,
    QuotaError,
    UsageError,
)
from datapruner.schemas.datasets import NewDataset, NewVersion
from datapruner.schemas.exports import NewExport
from datapruner.schemas.runs import NewRun, RunRequest
from datapruner.service import submission
from datapruner.service.instance import Service
from datapruner.service.stopping import Stopping
from datapruner.service.tokens import Caller
from datapruner.service.uploads import Incoming, inline
from datapruner.settings import Settings

ROWS = [{"instruction": "Say one.", "output": "one"}, {"instruction": "Say two.", "output": "two"}]
CALLER = Caller("tok_1", "prj_1", frozenset({"write"}), "req_1")
SEVERAL = 5


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """One that reads files below `sources` and nothing else, with a project and nobody who works."""
    roots = tmp_path / "sources"
    roots.mkdir()
    settings = Settings(
        home=tmp_path / "home", sql_warm=0, import_roots=[roots], allow_hub=False, max_attempts=SEVERAL
    )
    migrations.upgrade(settings.database)
    service = Service.open(settings, Stopping())
    with service.db.write() as session:
        session.add(Project(id="prj_1", name="ours"))
        session.flush()
        session.add(Token(id="tok_1", project_id="prj_1", name="t", digest="d", scopes=["write"]))
    yield service
    service.close()


def job_of(service: Service, job_id: str) -> Job:
    with service.db.read() as session:
        return session.get_one(Job, job_id)


def count(service: Service) -> dict[str, int]:
    """How much there is that a submission could have left."""
    tables = (Dataset, Upload, Job, Run, Export)
    with service.db.read() as session:
        rows = {
            table.__tablename__: session.scalar(select(func.count()).select_from(table)) for table in tables
        }
    files = sum(1 for stored in service.storage.listing("projects/prj_1") if "/uploads/" in stored.key)
    return {**rows, "files": files}


NOTHING = {"datasets": 0, "uploads": 0, "jobs": 0, "runs": 0, "exports": 0, "files": 0}


def published(service: Service, name: str, versions: int) -> str:
    """A dataset with published versions; their files are nobody's concern here."""
    with service.db.write() as session:
        made = Dataset(id=new_id("ds"), project_id="prj_1", name=name, mapping={"prompt": "q"})
        session.add(made)
        session.flush()
        counts = dict.fromkeys(("rows", "accepted", "rejected", "duplicates", "new_rows", "bytes"), 1)
        for number in range(1, versions + 1):
            about = {"key": "corpus.duckdb", "corpus_hash": "", "report": {}, **counts}
            session.add(Version(id=f"ver_{name}_{number}", dataset_id=made.id, number=number, **about))
    return made.id


def a_run(
    service: Service, *, keep: float | None, is_published: bool = True, rewrite: str | None = None
) -> str:
    """A run that has been done."""
    dataset_id = published(service, "measured", 1)
    with service.db.write() as session:
        session.add(Job(id="job_1", project_id="prj_1", kind="run", payload={}, state="failed"))
        session.flush()
        amount = None if keep is None else {"share": keep}
        config: dict[str, Any] = {"methods": [{"name": "ppl"}], "keep": amount}
        config |= {} if rewrite is None else {"rewrite": {"method": rewrite}}
        moment = utcnow() if is_published else None
        session.add(
            Run(
                id="run_1", project_id="prj_1", dataset_id=dataset_id, version_id="ver_measured_1",
                job_id="job_1", config=config, published_at=moment,
            )
        )  # fmt: skip
    return "run_1"


# Datasets and versions


def test_rows_are_stored_and_their_job_says_where_they_are_and_who_asked(service: Service) -> None:
    submitted = submission.dataset(service, CALLER, NewDataset(name="words", rows=ROWS))
    job = job_of(service, submitted.job.id)
    assert (job.kind, job.state, job.max_attempts) == ("ingest", "queued", SEVERAL)
    assert (job.project_id, job.token_id, job.request_id) == ("prj_1", "tok_1", "req_1")
    ingest = job.payload["ingest"]
    assert (ingest["dataset_id"], ingest["mode"]) == (submitted.made, "create")
    with service.db.read() as session:
        upload = session.get_one(Upload, ingest["source"]["upload_id"])
    assert len(service.storage.local(upload.key).read_bytes().splitlines()) == len(ROWS)


def test_a_source_is_kept_with_the_dataset_and_read_again_for_a_version(service: Service) -> None:
    (service.settings.import_roots[0] / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    source = {"kind": "path", "path": "rows.jsonl"}
    made = submission.dataset(service, CALLER, NewDataset.model_validate({"name": "read", "source": source}))
    job = submission.version(service, CALLER, "read", NewVersion(only_new=True))
    first, second = (job_of(service, each).payload["ingest"] for each in (made.job.id, job.id))
    assert first == {"dataset_id": made.made, "source": source, "mode": "create"}
    assert second == {"dataset_id": made.made, "source": source, "mode": "append_new"}


@pytest.mark.parametrize(
    "wanted",
    [
        {"rows": None},
        {"rows": ROWS, "source": {"kind": "hub", "name": "owner/rows"}},
        {"rows": ROWS, "mapping": {"no_role": "column"}},
        {"source": {"kind": "path", "path": "../outside.jsonl"}},
        {"source": {"kind": "hub", "name": "owner/rows"}},
        {"rows": ROWS, "name": "taken"},
    ],
)
def test_a_dataset_that_is_refused_leaves_nothing(service: Service, wanted: dict[str, object]) -> None:
    published(service, "taken", 0)
    before = count(service)
    assert before == {**NOTHING, "datasets": 1}
    with pytest.raises(DataprunerError):
        submission.dataset(service, CALLER, NewDataset.model_validate({"name": "words"} | wanted))
    assert count(service) == before


def test_a_file_beside_rows_is_one_too_many(service: Service) -> None:
    published(service, "words", 1)
    before = count(service)
    with pytest.raises(UsageError, match="either rows or a source"):
        submission.dataset(service, CALLER, NewDataset(name="other", rows=ROWS), inline(ROWS))
    with pytest.raises(UsageError, match="both rows and a source"):
        submission.version(service, CALLER, "words", NewVersion(rows=ROWS), inline(ROWS))
    assert count(service) == before


def test_data_that_is_not_what_its_digest_says_leaves_nothing(service: Service) -> None:
    data = Incoming("rows.jsonl", 2, [b"{}"], sha256="0" * 64)
    with pytest.raises(UsageError, match="SHA-256"):
        submission.dataset(service, CALLER, NewDataset(name="words"), data)
    assert count(service) == NOTHING


def test_a_full_project_takes_no_rows(service: Service) -> None:
    with service.db.write() as session:
        session.get_one(Project, "prj_1").quota_rows = 1
    with pytest.raises(QuotaError):
        submission.dataset(service, CALLER, NewDataset(name="words", rows=ROWS))
    assert count(service) == NOTHING


def test_a_version_of_what_there_is_not_is_refused(service: Service) -> None:
    with pytest.raises(NotFoundError):
        submission.version(service, CALLER, "words", NewVersion(rows=ROWS))
    published(service, "words", 1)
    with pytest.raises(UsageError, match="no source to read again"):
        submission.version(service, CALLER, "words", NewVersion())


# Runs


def test_a_run_is_pinned_to_the_version_that_is_the_latest_now(service: Service) -> None:
    published(service, "words", 2)
    request = {"dataset": "words", "method": "random", "keep": 0.5}
    latest = submission.run(service, CALLER, NewRun.model_validate(request))
    first = submission.run(service, CALLER, NewRun.model_validate(request | {"version": 1}))
    versions = [job_of(service, each.job.id).payload["run"]["version_id"] for each in (latest, first)]
    assert versions == ["ver_words_2", "ver_words_1"]
    with service.db.read() as session:
        run = session.get_one(Run, latest.made)
    assert (run.version_id, run.job_id) == ("ver_words_2", latest.job.id)
    assert run.config["mapping"] == {"prompt": "q"}
    assert run.config == job_of(service, latest.job.id).payload["run"]["config"]


def test_the_target_of_a_run_is_pinned_too(service: Service) -> None:
    published(service, "words", 1)
    aim = published(service, "aim", 2)
    request = {"dataset": "words", "method": "target-cosine", "keep": 0.5, "target": aim}
    submitted = submission.run(service, CALLER, NewRun.model_validate(request))
    assert job_of(service, submitted.job.id).payload["run"]["config"]["target"] == "aim@2"
    several = request | {"target": {"a": aim, "b": "words"}, "task_column": "kind"}
    config = job_of(service, submission.run(service, CALLER, NewRun.model_validate(several)).job.id).payload[
        "run"
    ]["config"]
    assert config["target"] == {"a": "aim@2", "b": "words@1"}
    assert config["task_column"] == "kind"


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        ({"dataset": "nothing"}, NotFoundError),
        ({"version": 7}, NotFoundError),
        ({"dataset": "empty"}, ConflictError),
        ({"method": "no_method"}, UsageError),
        ({"method": "target-cosine", "target": "nothing"}, NotFoundError),
        ({"method": "target-cosine", "target": {"a": "words", "b": "nothing"}}, NotFoundError),
        ({"measuring": {"model": "/etc"}}, DeniedError),
    ],
)
def test_a_run_that_is_refused_leaves_nothing(
    service: Service, wanted: dict[str, object], error: type[DataprunerError]
) -> None:
    published(service, "words", 1)
    published(service, "empty", 0)
    before = count(service)
    request = {"dataset": "words", "method": "random", "keep": 0.5} | wanted
    with pytest.raises(error):
        submission.run(service, CALLER, NewRun.model_validate(request))
    assert count(service) == before


# Exports


def test_an_export_and_its_job_are_made_together(service: Service) -> None:
    run = a_run(service, keep=0.5)
    submitted = submission.export(service, CALLER, NewExport(run=run, format="csv"))
    assert job_of(service, submitted.job.id).payload == {"export": {"format": "csv"}}
    with service.db.read() as session:
        export = session.get_one(Export, submitted.made)
    assert (export.run_id, export.job_id, export.format) == (run, submitted.job.id, "csv")


@pytest.mark.parametrize(("keep", "is_published"), [(None, True), (0.5, False)])
def test_a_run_without_a_subset_is_not_exported(
    service: Service, keep: float | None, is_published: bool
) -> None:
    run = a_run(service, keep=keep, is_published=is_published)
    before = count(service)
    with pytest.raises(ConflictError):
        submission.export(service, CALLER, NewExport(run=run))
    assert count(service) == before


@pytest.mark.parametrize("limit", [{}, {"max_length": 40, "too_long": "drop"}])
def test_rows_for_a_trainer_are_asked_for_with_their_limit(service: Service, limit: dict[str, Any]) -> None:
    submitted = submission.export(
        service, CALLER, NewExport(run=a_run(service, keep=0.5), format="trl", **limit)
    )
    with service.db.read() as session:
        export = session.get_one(Export, submitted.made)
    assert (export.format, export.max_length) == ("trl", limit.get("max_length"))
    assert export.too_long == limit.get("too_long", "cut")


def test_rows_that_are_packed_are_not_asked_for_without_a_length(service: Service) -> None:
    run = a_run(service, keep=0.5)
    before = count(service)
    with pytest.raises(UsageError, match="packed to a length") as refused:
        submission.export(service, CALLER, NewExport(run=run, format="megatron"))
    assert (refused.value.field, count(service)) == ("max_length", before)
    submission.export(service, CALLER, NewExport(run=run, format="megatron", max_length=64))


def test_a_run_that_rewrote_has_no_rows_for_trainers_but_other_exports(service: Service) -> None:
    run = a_run(service, keep=0.5, rewrite="asap")
    before = count(service)
    with pytest.raises(ConflictError, match=r"rewrote reasoning.*plain-jsonl"):
        submission.export(service, CALLER, NewExport(run=run, format="trl"))
    assert count(service) == before
    submission.export(service, CALLER, NewExport(run=run, format="plain-jsonl"))
    assert count(service)["exports"] == 1


# All in one


def test_to_prune_rows_is_one_job_with_a_dataset_a_run_and_an_export(service: Service) -> None:
    wanted = RunRequest.model_validate({"method": "random", "keep": 0.5})
    submitted = submission.prune(
        service, CALLER, wanted, inline(ROWS), name=None, mapping={}, format="plain-jsonl"
    )
    assert count(service) == {"datasets": 1, "uploads": 1, "jobs": 1, "runs": 1, "exports": 1, "files": 1}
    payload = job_of(service, submitted.job.id).payload
    assert list(payload) == ["ingest", "run", "export"]
    with service.db.read() as session:
        export = session.get_one(Export, submitted.made)
        run = session.get_one(Run, export.run_id)
        dataset = session.get_one(Dataset, run.dataset_id)
    assert {run.job_id, export.job_id} == {submitted.job.id}
    assert {payload[step]["dataset_id"] for step in ("ingest", "run")} == {dataset.id}
    assert run.version_id is None
    assert dataset.name.startswith("prune_")


def test_rows_are_not_pruned_by_who_does_not_say_how_much_to_keep(service: Service) -> None:
    wanted = RunRequest.model_validate({"method": "random"})
    with pytest.raises(UsageError, match="how much"):
        submission.prune(service, CALLER, wanted, inline(ROWS), name="n", mapping={}, format="parquet")
    assert count(service) == NOTHING
