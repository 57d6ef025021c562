"""Workers killed at every stage of a job, and the whole service: nothing acknowledged is lost, nothing that
was finished is done again, and the result is that of an undisturbed run, byte for byte."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from datapruner.catalog import datasets, migrations
from datapruner.catalog.database import Database
from datapruner.catalog.models import Export, Job, Project, Run, Upload, Version
from datapruner.request.config import Measuring, MethodChoice, RunConfig
from datapruner.request.keep import Keep
from datapruner.request.parts import Rewrite
from datapruner.service import queue
from datapruner.service.storage import open_storage
from datapruner.settings import Settings
from tests.datapruner.client.unruly import Behaviour, Handler, unruly_server
from tests.datapruner.rewriting.lessons import EASY, THINKING, judged
from tests.datapruner.service.dying_worker import HALTS, begun
from tests.datapruner.service.queues import LEASE, pass_time
from tests.datapruner.teacher.scripted import says
from tests.forked import Forked
from tests.served import Server, serving
from tests.waiting import until

ROWS = 700
"""Three tasks of measuring, the last one short."""
POINTS = {
    "ingesting": (0, 0, 0),
    "half through ingesting": (0, 0, 0),
    "storing corpus": (0, 0, 0),
    "corpus stored": (0, 0, 0),
    "half measured": (1, 0, 0),
    "writing": (1, 0, 0),
    "storing run file": (1, 0, 0),
    "run file stored": (1, 0, 0),
    "run document stored": (1, 0, 0),
    "exporting": (1, 1, 0),
    "half through exporting": (1, 1, 0),
    "storing export": (1, 1, 0),
    "export stored": (1, 1, 0),
    "done": (1, 1, 1),
}
"""Where a worker is stopped and killed, and how many versions, runs and exports are visible then."""


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    lines = [
        {"prompt": f"Count to {i}.", "completion": "one two three four " * (i % 7 + 1) + str(i)}
        for i in range(ROWS)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


class Place:
    """A home with one prune job in its queue, to be closed. By default its database and files are in it."""

    def __init__(
        self, home: Path, model: Path, rows: Path, database: str = "", storage: str = "", **config: Any
    ) -> None:
        home.mkdir()
        self._workers: list[Forked] = []
        self.settings = Settings(
            home=home,
            database_url=database,
            storage=storage,
            import_roots=[model],
            devices="cpu",
            threads=1,
            lease_seconds=LEASE,
        )
        migrations.upgrade(self.settings.database)
        self.db = Database(self.settings.database)
        self.storage = open_storage(self.settings.files, home / "cache")
        upload = home / "upload"
        upload.write_bytes(rows.read_bytes())
        size = self.storage.publish(upload, "projects/prj_1/uploads/upl_1")
        asked = {"methods": [MethodChoice(name="qtuning")], "keep": Keep(share=0.5)} | config
        wanted = RunConfig(measuring=Measuring(model=str(model)), **asked)
        with self.db.write() as session:
            session.add(Project(id="prj_1", name="default"))
            session.flush()
            session.add(
                Upload(
                    id="upl_1",
                    project_id="prj_1",
                    key="projects/prj_1/uploads/upl_1",
                    name=rows.name,
                    bytes=size,
                    sha256="",
                )
            )
            target = datasets.create(session, "prj_1", "counted").id
            source = {"kind": "upload", "upload_id": "upl_1"}
            payload = {
                "ingest": {"dataset_id": target, "source": source, "mode": "create"},
                "run": {"dataset_id": target, "version_id": None, "config": wanted.model_dump(mode="json")},
                "export": {"format": "parquet"},
            }
            self.job_id = queue.submit(
                session, project_id="prj_1", kind="prune", payload=payload, max_attempts=len(POINTS) + 1
            ).id

    def close(self) -> None:
        """End the workers that still stand somewhere."""
        for worker in self._workers:
            worker.kill()
        self.db.close()

    def begin(self, point: str) -> Forked:
        """Start a worker that halts at the point."""
        names = ("home", "database_url", "storage", "devices", "threads", "lease_seconds")
        given = {name: getattr(self.settings, name) for name in names}
        [root] = self.settings.import_roots
        said = self.settings.home / f"worker-{len(self._workers)}.log"
        self._workers.append(begun(point, said, import_roots=root, **given))
        return self._workers[-1]

    def halted(self, point: str) -> Forked:
        """A worker that stands at the point."""
        worker = self.begin(point)

        def stands() -> bool:
            said = worker.said.read_text() if worker.said.exists() else ""
            assert worker.poll() is None, f"it ended before {point}: {said}"
            return f"{HALTS}{point}\n" in said

        until(stands)
        return worker

    def finish(self) -> None:
        """Have a worker do what there is to do."""
        worker = self.begin("calm")
        assert worker.wait() == 0, worker.said.read_text()

    def kill(self, worker: Forked) -> None:
        """End the worker where it is, so long ago that others may take its job."""
        worker.kill()
        pass_time(self.db, self.job_id)

    def published(self) -> tuple[int, int, int]:
        """How many versions, runs and exports are visible."""
        with self.db.read() as session:
            return (
                session.query(Version).count(),
                session.query(Run).filter(Run.published_at.is_not(None)).count(),
                session.query(Export).filter(Export.published_at.is_not(None)).count(),
            )

    def shards(self) -> dict[str, int]:
        """Files of signals on this machine: one that is measured again is another file of the same name."""
        signals = self.storage.folder("projects/prj_1/signals")
        return {str(path): path.stat().st_ino for path in signals.glob("*/[!.]*.parquet")}

    def result(self) -> tuple[bytes, bytes, dict[str, Any]]:
        """The export, the run file, and the report of the finished job, as another machine reads them."""
        with self.db.read() as session:
            assert session.get_one(Job, self.job_id).state == "succeeded", session.get_one(
                Job, self.job_id
            ).error
            run, export = session.query(Run).one(), session.query(Export).one()
        assert export.key is not None
        assert run.report is not None
        elsewhere = open_storage(self.settings.files, self.settings.home / "cache-elsewhere")
        made = elsewhere.local(f"{run.key}/run.json").read_bytes()
        return elsewhere.local(export.key).read_bytes(), made, run.report | {"measured": run.measured}

    def scratch(self) -> list[Path]:
        """What jobs have left where they build their files."""
        return [path for path in (self.settings.home / "work").iterdir() if path.is_dir()]


@pytest.fixture
def place_at(tmp_path: Path, tiny_folder: Path) -> Iterator[Callable[..., Place]]:
    """Makes a place: `place_at(name, rows, ...)`."""
    with ExitStack() as stack:

        def made(name: str, rows: Path, **given: Any) -> Place:
            return stack.enter_context(closing(Place(tmp_path / name, tiny_folder, rows, **given)))

        yield made


@pytest.fixture(params=["SQLite and a folder", "PostgreSQL and S3"])
def shared(request: pytest.FixtureRequest) -> dict[str, str]:
    """Database and storage of a service, each pair in turn."""
    if request.param == "SQLite and a folder":
        return {}
    return {
        "database": request.getfixturevalue("postgres_url"),
        "storage": request.getfixturevalue("s3_url"),
    }


@pytest.fixture(scope="module")
def calm(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, rows_file: Path
) -> tuple[bytes, bytes, dict[str, Any]]:
    """What an undisturbed worker makes of the rows."""
    with closing(Place(tmp_path_factory.mktemp("calm") / "home", tiny_folder, rows_file)) as place:
        place.finish()
        return place.result()


@pytest.mark.slow
def test_a_job_whose_worker_is_killed_at_every_stage_ends_as_if_nothing_had_happened(
    place_at: Callable[..., Place],
    rows_file: Path,
    calm: tuple[bytes, bytes, dict[str, Any]],
    shared: dict[str, str],
) -> None:
    place = place_at("home", rows_file, **shared)
    shards: dict[str, int] = {}
    for point, visible in POINTS.items():
        worker = place.halted(point)
        assert place.published() == visible, point  # while it stands there
        place.kill(worker)
        assert place.published() == visible, point
        assert shards.items() <= place.shards().items(), point  # what was measured is not measured again
        shards = place.shards()
    place.finish()
    assert place.shards() == shards
    assert place.result() == calm
    assert place.scratch() == []
    with place.db.read() as session:
        assert session.get_one(Job, place.job_id).attempt == len(POINTS) + 1


@pytest.mark.slow
def test_a_worker_killed_amid_a_rewrite_with_nothing_in_store_loses_only_what_was_not_answered(
    place_at: Callable[..., Place],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    postgres_url: str,
    s3_url: str,
) -> None:
    lessons = tmp_path / "lessons.jsonl"
    lines = [
        {"question": f"What is 3 * 4 + 2, {n}?", "thinking": THINKING, "answer": "It is \\boxed{14}."}
        for n in range(12)
    ]
    lessons.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rewriting = {
        "methods": [],
        "keep": None,
        "rewrite": Rewrite(method="dap", options={"retries": 0}),
    }

    def answers(count: int) -> Behaviour:
        """To so many requests; whoever asks beyond that is kept waiting."""
        left = threading.Semaphore(count)

        def behave(handler: Handler) -> None:
            if left.acquire(blocking=False):
                says(judged("easy", EASY))(handler)
            else:
                handler.unruly.over.wait()

        return behave

    with unruly_server() as teacher:
        for name, value in {"BASE_URL": f"{teacher.url}/v1", "MODEL": "m", "CONCURRENCY": "4"}.items():
            monkeypatch.setenv(f"DATAPRUNER_TEACHER_{name}", value)
        calm = place_at("calm", lessons, **rewriting)
        teacher.will(answers(len(lines)))
        calm.finish()
        assert len(teacher.seen) == len(lines)
        killed = place_at("home", lessons, database=postgres_url, storage=s3_url, **rewriting)

        def stored() -> int:
            store = killed.settings.home / "teacher" / "prj_1.sqlite"
            if not store.exists():
                return 0
            with closing(sqlite3.connect(store)) as connection:
                return int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])

        for known in (0, 5):
            teacher.will(answers(known))
            worker = killed.begin("calm")
            until(lambda: len(teacher.seen) > known and stored() == known)  # noqa: B023
            assert killed.published() == (1, 0, 0)
            killed.kill(worker)
        teacher.will(answers(len(lines)))
        killed.finish()
        assert len(teacher.seen) == len(lines) - 5
    assert killed.result() == calm.result()
    assert killed.result()[2]["stages"]["rewrite"]["rewritten"] == len(lines)
    assert killed.scratch() == []


@pytest.mark.slow
def test_the_whole_service_killed_while_it_measures_goes_on_where_it_stood(
    tmp_path: Path, tiny_folder: Path, rows_file: Path
) -> None:
    home = tmp_path / "home"
    asked = {"method": "qtuning", "keep": "0.5", "model": str(tiny_folder)}

    def start(server: Server, name: str) -> str:
        with rows_file.open("rb") as file:
            answer = server.client.post("/v1/prune", files={"file": file}, data=asked | {"name": name})
        assert answer.status_code == 202, answer.text
        return str(answer.headers["location"])

    with serving(home, tiny_folder, lease_seconds=2) as server:
        first = start(server, "first")
        second = start(server, "second")
        until(lambda: list(home.rglob("signals/*/*.parquet")), lambda: server.client.get(first).text)
        service = psutil.Process(server.process.pid)
        family = [service, *service.children(recursive=True)]
        for process in family:
            process.kill()
        server.process.wait()
    shards = {path: path.stat().st_mtime_ns for path in home.rglob("signals/*/*.parquet")}
    with serving(home, tiny_folder, lease_seconds=2) as server:
        jobs_done = [server.wait(job) for job in (first, second)]
        assert [job["state"] for job in jobs_done] == ["succeeded", "succeeded"]
        assert {path: path.stat().st_mtime_ns for path in shards} == shards
        subsets = [server.client.get(job["links"]["subset"]).content for job in jobs_done]
    assert subsets[0] == subsets[1]  # the second was never disturbed, though it measured nothing
    assert shards
