"""A full or read-only disk under the service: a clear failed job, nothing half-published, and it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.datapruner.service.dying_worker import begun
from tests.disks import Disk
from tests.served import Server, serving

ROWS = [{"prompt": f"Name number {i}.", "completion": f"It is {i}."} for i in range(40)]


def work(server: Server, storage: Path) -> None:
    """A worker process that does what there is to do, and ends."""
    given = {"devices": "cpu", "threads": 1, "import_roots": Path(server.model).parent}
    worker = begun("calm", server.home / "worker.log", home=server.home, storage=storage, **given)
    assert worker.wait() == 0, worker.said.read_text()


@pytest.mark.slow
def test_full_and_read_only_storage_fail_the_job_and_not_the_service(
    tmp_path: Path, tiny_folder: Path, small_disk: Disk
) -> None:
    storage = small_disk.path / "files"

    def hurt(act: Callable[[], None], job: str) -> dict[str, Any]:
        """Do the job while the disk is unfit; the failed job, once the disk is well again."""
        act()
        work(server, storage)
        failed: dict[str, Any] = server.client.get(job).raise_for_status().json()
        assert server.unready().status_code == 503
        assert server.client.get("/v1/health").status_code == 200
        small_disk.relieve()
        assert server.client.get("/v1/ready").status_code == 200
        assert failed["state"] == "failed", failed
        assert failed["error"]["type"] == "/problems/storage-unavailable", failed
        assert "space" in failed["error"]["detail"] or "Read-only" in failed["error"]["detail"], failed
        assert str(tmp_path) not in json.dumps(failed), "where files lie is not told"
        return failed

    def stored() -> set[str]:
        """Published files, without uploads and signals."""
        kinds = ("corpora", "runs", "exports")
        return {str(path) for kind in kinds for path in storage.rglob(f"{kind}/**/*") if path.is_file()}

    with serving(tmp_path / "home", tiny_folder, storage=storage, workers=0, max_attempts=1) as server:
        for act in (small_disk.fill, small_disk.protect):
            create = server.client.post("/v1/datasets", json={"name": f"d_{act.__name__}", "rows": ROWS})
            assert create.status_code == 202, create.text
            hurt(act, create.headers["location"])
            shown = server.client.get(f"/v1/datasets/d_{act.__name__}").json()
            assert shown["latest"] is None
            assert stored() == set()

        small_disk.fill()
        refused = server.client.post("/v1/datasets", json={"name": "refused", "rows": ROWS})
        assert refused.status_code == 503, refused.text
        assert refused.json()["type"] == "/problems/storage-unavailable"
        small_disk.relieve()

        again = server.client.post("/v1/datasets/d_fill/versions", json={"rows": ROWS})
        work(server, storage)
        assert server.wait(again.headers["location"])["state"] == "succeeded"
        corpora = stored()
        assert len(corpora) == 1
        asked = {
            "dataset": "d_fill",
            "method": "qtuning",
            "keep": 0.5,
            "measuring": {"model": str(tiny_folder)},
        }
        for act in (small_disk.fill, small_disk.protect):
            run = server.client.post("/v1/runs", json=asked)
            assert run.status_code == 202, run.text
            hurt(act, run.headers["location"])
            assert stored() == corpora
        run = server.client.post("/v1/runs", json=asked)
        work(server, storage)
        assert server.wait(run.headers["location"])["state"] == "succeeded", json.dumps(run.json())
