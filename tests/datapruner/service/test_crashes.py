"""Workers killed at every stage of a job, and the whole service: nothing acknowledged is lost, nothing that
was finished is done again, and the result is that of an undisturbed run, byte for byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from datapruner.catalog import datasets, migrations
from datapruner.catalog.database import Database
from datapruner.catalog.models import Export, Job, Project, Run, Upload, Version
from datapruner.config import Measuring, MethodChoice, RunConfig
from datapruner.keep import Keep
from datapruner.service import jobs
from datapruner.settings import Settings
from datapruner.storage import FolderStorage
from tests.datapruner.service.queues import LEASE, pass_time
from tests.served import Server, serving
from tests.waiting import until

ROWS = 700
"""Three tasks of measuring, the last one short."""
POINTS = [
    "ingesting",
    "corpus stored",
    "measuring",
    "run half stored",
    "run stored",
    "exporting",
    "export stored",
]


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
    """A home with one prune job in its queue."""

    def __init__(self, home: Path, model: Path, rows: Path) -> None:
        home.mkdir()
        self.settings = Settings(
            home=home, import_roots=[model], devices="cpu", threads=1, lease_seconds=LEASE
        )
        migrations.upgrade(self.settings.database)
        self.db = Database(self.settings.database)
        self.storage = FolderStorage(Path(self.settings.files))
        upload = home / "upload"
        upload.write_bytes(rows.read_bytes())
        size = self.storage.publish(upload, "projects/prj_1/uploads/upl_1")
        config = RunConfig(
            measuring=Measuring(model=str(model)),
            methods=[MethodChoice(name="qtuning")],
            keep=Keep(share=0.5),
        )
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
                "run": {"dataset_id": target, "version_id": None, "config": config.model_dump(mode="json")},
                "export": {"format": "parquet"},
            }
            self.job_id = jobs.submit(
                session, project_id="prj_1", kind="prune", payload=payload, max_attempts=len(POINTS) + 1
            ).id

    def work(self, point: str) -> int:
        """Run a worker until it has nothing to do, or dies at the point; its exit code."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("DATAPRUNER_")
        }
        for name in ("home", "devices", "threads", "lease_seconds"):
            environment[f"DATAPRUNER_{name.upper()}"] = str(getattr(self.settings, name))
        environment["DATAPRUNER_IMPORT_ROOTS"] = str(self.settings.import_roots[0])
        command = [sys.executable, "-m", "tests.datapruner.service.dying_worker", point]
        return subprocess.run(command, env=environment, capture_output=True, check=False).returncode

    def published(self) -> tuple[int, int, int]:
        """How many versions, runs and exports are visible."""
        with self.db.read() as session:
            return (
                session.query(Version).count(),
                session.query(Run).filter(Run.published_at.is_not(None)).count(),
                session.query(Export).filter(Export.published_at.is_not(None)).count(),
            )

    def shards(self) -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in self.storage.root.rglob("signals/*/*.parquet")}

    def result(self) -> tuple[bytes, bytes, dict[str, Any]]:
        """The export, the run file, and the report of the finished job."""
        with self.db.read() as session:
            assert session.get_one(Job, self.job_id).state == "succeeded", session.get_one(
                Job, self.job_id
            ).error
            run, export = session.query(Run).one(), session.query(Export).one()
        assert export.key is not None
        assert run.report is not None
        made = self.storage.local(f"{run.key}/run.json").read_bytes()
        return self.storage.local(export.key).read_bytes(), made, run.report | {"measured": run.measured}


@pytest.mark.slow
def test_a_job_whose_worker_is_killed_at_every_stage_ends_as_if_nothing_had_happened(
    tmp_path: Path, tiny_folder: Path, rows_file: Path
) -> None:
    calm, killed = (
        Place(tmp_path / "calm", tiny_folder, rows_file),
        Place(tmp_path / "killed", tiny_folder, rows_file),
    )
    assert calm.work("calm") == 0
    visible = {
        "ingesting": (0, 0, 0),
        "corpus stored": (0, 0, 0),
        "measuring": (1, 0, 0),
        "run half stored": (1, 0, 0),
        "run stored": (1, 0, 0),
        "exporting": (1, 1, 0),
        "export stored": (1, 1, 0),
    }
    shards: dict[str, int] = {}
    for point in POINTS:
        assert killed.work(point) == -signal.SIGKILL, point
        assert killed.published() == visible[point], point
        assert shards.items() <= killed.shards().items(), point  # what was measured is not measured again
        shards = killed.shards()
        pass_time(killed.db, killed.job_id)
    assert killed.work("calm") == 0
    assert killed.shards() == shards
    assert killed.result() == calm.result()
    with killed.db.read() as session:
        assert session.get_one(Job, killed.job_id).attempt == len(POINTS) + 1


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
        until(  # the first shard is whole
            lambda: (server.client.get(first).json()["progress"] or {}).get("rows", 0) >= 300,
            lambda: server.client.get(first).text,
        )
        family = [server.process, *psutil.Process(server.process.pid).children(recursive=True)]
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
