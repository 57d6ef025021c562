"""What jobs do, in this process: the real queue, storage, corpora and the tiny proxy model."""

from __future__ import annotations

import os
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datapruner.catalog import datasets, exports, runs
from datapruner.catalog.models import Project, Version
from datapruner.errors import (
    ConflictError,
    DeniedError,
    InputError,
    NotFoundError,
    QuotaError,
    StorageError,
    UsageError,
)
from datapruner.measuring import embeddings
from datapruner.measuring.signal_cache import ProxyKey
from datapruner.progress import Silent
from datapruner.request.config import MethodChoice, RunConfig
from datapruner.request.keep import Keep
from datapruner.schemas.jobs import JobResult
from datapruner.service import comparison_sets, queue
from datapruner.service.context import Context
from datapruner.service.storage import open_storage
from datapruner.service.work import perform
from scorers.methods import registry
from tests.datapruner.service.jobs_here import (
    StoppedError,
    StopsAt,
    again,
    dataset,
    ingest,
    taken,
    upload,
    work,
)
from tests.datapruner.service.queues import LEASE
from tests.tiny_encoder import save_tiny_encoder
from tests.tiny_model import COPIES, LINES, REJECTED, write_corpus
from tests.towards import Towards


def test_one_job_ingests_runs_and_exports_what_the_library_would(
    context: Context, config: RunConfig, tmp_path: Path, corpus_file: Path, first_run: Any, prune: Any
) -> None:
    target = dataset(context)
    config = config.model_copy(update={"source": str(corpus_file)})  # as the library notes it
    run = {"dataset_id": target.id, "version_id": None, "config": config.model_dump(mode="json")}
    result = work(
        context, ingest=ingest(target, upload(context, corpus_file)), run=run, export={"format": "parquet"}
    )
    assert result.version == 1
    assert result.new_rows == len(LINES)
    expected = prune("qtuning", 0.5, token_keep=0.5)
    with context.db.read() as session:
        assert result.run_id is not None
        assert result.export_id is not None
        made = runs.find_published(session, "prj_1", result.run_id)
        export = exports.find_published(session, "prj_1", result.export_id)
    assert made.content_id == expected.run.run_id  # the same configuration and lineage as the library's run
    expected.export(tmp_path / "library.parquet")
    table, library = (
        pq.read_table(context.storage.local(export.key)),
        pq.read_table(tmp_path / "library.parquet"),
    )
    assert table.equals(library)
    assert export.rows == library.num_rows


def test_a_second_attempt_repeats_nothing_that_was_published(
    context: Context, config: RunConfig, corpus_file: Path
) -> None:
    target = dataset(context)
    run = {"dataset_id": target.id, "version_id": None, "config": config.model_dump(mode="json")}
    payload = {
        "ingest": ingest(target, upload(context, corpus_file)),
        "run": run,
        "export": {"format": "parquet"},
    }
    lease = taken(context, **payload)
    first = perform(context, lease, Silent())
    stored = {item.key: item.modified for item in context.storage.listing("projects")}
    assert perform(context, again(context, lease), Silent()) == first
    assert {item.key: item.modified for item in context.storage.listing("projects")} == stored


def test_a_lost_lease_publishes_nothing(context: Context, config: RunConfig, corpus_file: Path) -> None:
    target = dataset(context)
    lease = taken(context, ingest=ingest(target, upload(context, corpus_file)))
    queue.release(context.db, lease)
    assert queue.claim(context.db, "other", LEASE) is not None
    with pytest.raises(queue.LeaseLostError):
        perform(context, lease, Silent())
    with context.db.read() as session:
        assert session.query(Version).all() == []


def test_only_new_rows_are_added_and_measured(
    context: Context, config: RunConfig, tmp_path: Path, corpus_file: Path
) -> None:
    folder = tmp_path / "imports"
    folder.mkdir()
    write_corpus(folder / "rows.jsonl")
    source = {"kind": "path", "path": "rows.jsonl"}
    target = dataset(context)
    run = {"dataset_id": target.id, "version_id": None, "config": config.model_dump(mode="json")}
    first = work(context, ingest=ingest(target, source), run=run)
    assert first.measured is not None
    assert first.measured > 10
    with (folder / "rows.jsonl").open("a") as file:
        file.write('{"instruction": "Name a planet.", "output": "Mars."}\n')
    second = work(context, ingest=ingest(target, source, "append_new"), run=run)
    assert (second.version, second.new_rows, second.measured) == (2, 1, 1)
    third = work(context, ingest=ingest(target, source, "append_new"))
    assert (third.version, third.new_rows) == (2, 0)
    with context.db.read() as session:
        versions = datasets.versions(session, target.id, limit=10)
    assert [(one.number, one.rows, one.new_rows) for one in versions] == [
        (2, len(LINES) + 1, 1),
        (1, len(LINES), len(LINES)),
    ]


def test_two_additions_at_once_both_end_up_in_the_dataset(context: Context, tmp_path: Path) -> None:
    """The second one finds that the version it built upon is no longer the latest, and builds again."""
    files = [tmp_path / f"{name}.jsonl" for name in "abc"]
    for file in files:
        file.write_text(f'{{"instruction": "From {file.stem}?", "output": "Yes."}}\n')
    target = dataset(context)
    work(context, ingest=ingest(target, upload(context, files[0])))
    slow = taken(context, ingest=ingest(target, upload(context, files[1]), "append"))

    class Meanwhile(Silent):
        """While the slow job adds, another one finishes."""

        def note(self, text: str) -> None:
            if text.startswith("1 new rows") and not done:
                done.append(work(context, ingest=ingest(target, upload(context, files[2]), "append")))

    done: list[JobResult] = []
    result = perform(context, slow, Meanwhile())
    assert done[0].version == 2
    assert result.version == 3
    with context.db.read() as session:
        newest = datasets.latest(session, target.id)
    assert newest is not None
    assert newest.rows == 3


def test_an_addition_that_is_overtaken_before_the_first_version_is_added_to_it(
    context: Context, tmp_path: Path
) -> None:
    """Both jobs begin on an empty dataset; the slower one has stored its file when it learns of the other."""
    files = [tmp_path / f"{name}.jsonl" for name in "ab"]
    for file in files:
        file.write_text(f'{{"instruction": "From {file.stem}?", "output": "Yes."}}\n')
    target = dataset(context)
    slow = taken(context, ingest=ingest(target, upload(context, files[0])))

    class Meanwhile(Silent):
        """After the slow job has read its rows, another one finishes."""

        def note(self, text: str) -> None:
            if text.startswith("1 rows") and not done:
                done.append(work(context, ingest=ingest(target, upload(context, files[1]), "append")))

    done: list[JobResult] = []
    result = perform(context, slow, Meanwhile())
    assert (done[0].version, result.version) == (1, 2)
    with context.db.read() as session:
        newest = datasets.latest(session, target.id)
        stored = {version.key for version in datasets.versions(session, target.id, limit=9)}
    assert newest is not None
    assert newest.rows == 2
    assert {stored.key for stored in context.storage.listing("projects/prj_1/corpora")} == stored


def test_objects_below_an_allowed_prefix_are_read_and_nothing_else(context: Context) -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file("/bucket/rows/a.jsonl", b'{"instruction": "A?", "output": "Yes."}\n')
    files.pipe_file("/bucket/rows/sub/b.jsonl", b'{"instruction": "B?", "output": "Yes."}\n')
    files.pipe_file("/bucket/rows/readme.txt", b"not rows")
    settings = context.settings.model_copy(update={"import_urls": ["memory://bucket"]})
    context = replace(context, settings=settings)
    source = {"kind": "url", "url": "memory://bucket/rows"}
    assert work(context, ingest=ingest(dataset(context), source)).new_rows == 2
    gone = ingest(dataset(context, "other"), {"kind": "url", "url": "memory://bucket/elsewhere"})
    with pytest.raises(InputError, match="elsewhere: "):
        work(context, ingest=gone)


def test_a_file_whose_name_is_not_utf8_is_read_all_the_same(context: Context, tmp_path: Path) -> None:
    folder = tmp_path / "imports"
    folder.mkdir()
    name = os.fsdecode(b"caf\xe9.jsonl")
    (folder / name).write_text('{"instruction": "A?", "output": "Yes."}\n')
    assert work(context, ingest=ingest(dataset(context), {"kind": "path", "path": str(folder)})).new_rows == 1


def test_a_row_quota_stops_an_upload_while_it_is_read(context: Context, corpus_file: Path) -> None:
    with context.db.write() as session:
        session.get_one(Project, "prj_1").quota_rows = 5
    target = dataset(context)
    with pytest.raises(QuotaError, match="more than the 5 rows"):
        work(context, ingest=ingest(target, upload(context, corpus_file)))


def test_a_source_outside_of_the_import_roots_is_refused_by_the_worker_too(context: Context) -> None:
    with pytest.raises(DeniedError, match="import roots"):
        work(context, ingest=ingest(dataset(context), {"kind": "path", "path": "/etc/passwd"}))


def test_a_bomb_is_refused_once_it_unpacks_to_too_much(context: Context, tmp_path: Path) -> None:
    import gzip

    bomb = tmp_path / "bomb.jsonl.gz"
    with gzip.open(bomb, "wb") as file:
        file.write(b'{"instruction": "Hello?", "output": "Hello."}\n')
        for _ in range(64):
            file.write(b" " * (1 << 20) + b"\n")
    small = Context(
        context.settings.model_copy(update={"max_unpacked_bytes": 32 << 20}),
        context.db,
        context.storage,
        context.devices,
        context.idle,
    )
    with pytest.raises(InputError, match="unpacks to more than 33,554,432 bytes"):
        work(small, ingest=ingest(dataset(context), upload(context, bomb)))


def test_a_table_that_decodes_to_gigabytes_is_refused_once_it_takes_too_much_memory(
    context: Context, tmp_path: Path
) -> None:
    """One long text in a dictionary, and twenty thousand rows that are it: a kilobyte."""
    count = 20_000
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array(["x" * (8 << 20)]))
    bomb = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"prompt": ["Hi"] * count, "completion": texts}), bomb, compression="zstd")
    assert bomb.stat().st_size < 1 << 16
    before = resource.getrlimit(resource.RLIMIT_AS)
    lease = taken(context, ingest=ingest(dataset(context), upload(context, bomb)))
    with pytest.raises(InputError, match="more than 4,096 MiB of memory"):
        perform(context, lease, Silent())
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_a_gone_upload_says_so(context: Context, corpus_file: Path) -> None:
    source = upload(context, corpus_file)
    context.storage.delete(f"projects/prj_1/uploads/{source['upload_id']}")
    with pytest.raises(StorageError, match="gone from storage"):
        work(context, ingest=ingest(dataset(context), source))


# Runs that compare


def test_each_pass_of_a_run_is_taken_up_again_by_a_plan_of_its_own(
    context: Context, config: RunConfig, corpus_file: Path
) -> None:
    motley = dataset(context)
    work(context, ingest=ingest(motley, upload(context, corpus_file)))
    config = config.model_copy(update={"methods": [MethodChoice(name="ifd")]})
    run = {"dataset_id": motley.id, "version_id": None, "config": config.model_dump(mode="json")}
    lease = taken(context, run=run)
    with pytest.raises(StoppedError):
        perform(context, lease, StopsAt("measuring without prompts"))

    def plans() -> list[str]:
        stored = [item.key.rpartition("/")[2] for item in context.storage.listing("projects/prj_1/runs")]
        return sorted(name for name in stored if name.startswith("plan"))

    assert plans() == ["plan-free.npy", "plan.npy"]
    result = perform(context, again(context, lease), Silent())
    unique = len(LINES) - len(REJECTED) - len(COPIES)
    assert result.measured == 2 * unique
    assert plans() == []


def test_what_one_worker_embedded_no_other_embeds_again(
    context: Context, config: RunConfig, corpus_file: Path, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = context.settings.home / "encoder"
    encoder.mkdir()
    save_tiny_encoder(encoder)
    roots = [context.settings.home, *context.settings.import_roots]
    settings = context.settings.model_copy(update={"import_roots": roots})
    measuring = config.measuring.model_copy(update={"embedder": str(encoder)})
    method = MethodChoice(name="divprune", options={"embedding": "sentence_embedding"})
    motley = dataset(context)

    def on_machine(name: str, **payload: Any) -> JobResult:
        storage = open_storage(s3_url, context.settings.home / name)
        return work(replace(context, storage=storage, settings=settings), **payload)

    def divided(keep: float) -> dict[str, Any]:
        update = {"methods": [method], "measuring": measuring, "keep": Keep(share=keep)}
        wanted = config.model_copy(update=update)
        return {"dataset_id": motley.id, "version_id": None, "config": wanted.model_dump(mode="json")}

    first = replace(context, storage=open_storage(s3_url, context.settings.home / "first"))
    on_machine("first", ingest=ingest(motley, upload(first, corpus_file)), run=divided(0.5))
    monkeypatch.setattr(embeddings, "WORKER", ("-c", "raise SystemExit('nothing is to be embedded')"))
    assert on_machine("second", run=divided(0.25)).measured == 0


def test_a_target_set_is_a_dataset_at_the_version_that_was_the_latest(
    context: Context, config: RunConfig, corpus_file: Path, target_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "OWN", (*registry.OWN, Towards()))
    motley, aims = dataset(context), dataset(context, "aims")
    work(context, ingest=ingest(motley, upload(context, corpus_file)))
    work(context, ingest=ingest(aims, upload(context, target_file)))
    config = config.model_copy(update={"methods": [MethodChoice(name="towards")], "target": "aims"})
    run = {"dataset_id": motley.id, "version_id": None, "config": config.model_dump(mode="json")}
    lease = taken(context, run=run)
    with pytest.raises(StoppedError):
        perform(context, lease, StopsAt("measuring the target set"))
    work(context, ingest=ingest(aims, upload(context, corpus_file), "append"))
    result = perform(context, again(context, lease), Silent())
    with context.db.read() as session:
        assert result.run_id is not None
        made = runs.find_published(session, "prj_1", result.run_id)
    assert made.config["target"] == "aims@1"
    assert made.lineage is not None
    assert made.lineage["target"][0]["samples"] == 3


def test_a_run_tunes_its_proxy_model_on_the_target_set(
    context: Context, config: RunConfig, corpus_file: Path, target_file: Path
) -> None:
    motley, aims = dataset(context), dataset(context, "aims")
    work(context, ingest=ingest(motley, upload(context, corpus_file)))
    work(context, ingest=ingest(aims, upload(context, target_file)))
    measuring = config.measuring.model_copy(update={"reference": "tuned", "tune_steps": 2})
    update = {"methods": [MethodChoice(name="loss-drop")], "target": "aims", "measuring": measuring}
    wanted = config.model_copy(update=update).model_dump(mode="json")
    result = work(context, run={"dataset_id": motley.id, "version_id": None, "config": wanted})
    with context.db.read() as session:
        assert result.run_id is not None
        made = runs.find_published(session, "prj_1", result.run_id)
    assert made.lineage is not None
    assert made.lineage["tuned"]["steps"] == 2
    key = ProxyKey(**made.lineage["views"]["reference"]["proxy"])
    assert list(context.storage.listing(f"projects/prj_1/signals/{key.digest()}"))
    assert any(each.key.endswith("/tuned.json") for each in context.storage.listing("projects/prj_1/tuned"))


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ("nothing", NotFoundError, "no dataset 'nothing'"),
        ("motley@9", NotFoundError, "version 9"),
        ("motley@x", UsageError, "names no version"),
        ("motley@", UsageError, "names no version"),
        ("motley", ConflictError, "dataset motley has no version yet"),
    ],
)
def test_a_target_set_that_is_not_there_is_named(
    context: Context, config: RunConfig, target: str, error: type[Exception], message: str
) -> None:
    dataset(context)
    with context.db.read() as session, pytest.raises(error, match=message):
        comparison_sets.pinned(session, "prj_1", config.model_copy(update={"target": target}))
