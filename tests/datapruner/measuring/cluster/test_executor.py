"""Measuring on the nodes of a Ray cluster: the same shards, whatever becomes of actors and nodes."""

from __future__ import annotations

import contextlib
import errno
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

import datapruner
from datapruner.errors import UsageError, WorkerError
from datapruner.measuring.cluster import executor
from datapruner.measuring.cluster.executor import Cluster
from datapruner.measuring.workers import local
from datapruner.measuring.workers.spec import WorkerSpec
from datapruner.result import Result
from datapruner.system.space import NoSpaceError
from tests.ray_nodes import two_nodes
from tests.waiting import has_ended, until

pytestmark = pytest.mark.slow
STAND_IN = str(Path(__file__).parents[1] / "workers" / "stand_in.py")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with two_nodes() as found:
        yield found


class Measured:
    """What came of some texts, a task each: reasons of failed samples, the shards' bytes, the progress."""

    def __init__(
        self,
        folder: Path,
        texts: Sequence[str],
        *,
        on: Cluster | None,
        mode: str = "",
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        self.rows: list[int] = []
        shards = folder / "signals"
        shards.mkdir(parents=True)
        spec = WorkerSpec(str(folder), "revision", "float32", None, "truncate", "all", False, "cpu", None, 1)
        tasks = [
            local.Task([{"id": f"s{i}", "turns": [["assistant", text, None]], "tools": None}], shards)
            for i, text in enumerate(texts)
        ]
        worker = (STAND_IN, mode)
        if on is None:
            running = local.measure(spec, ["cpu", "cpu"], tasks, self._count, worker, on_wait=on_wait)
        else:
            running = executor.measure(
                spec, ["cpu", "cpu"], tasks, self._count, worker, cluster=on, threads=1, on_wait=on_wait
            )
        try:
            self.failed = dict(running)
        finally:
            self.left = [path.name for path in shards.glob(".*")]
        self.shards = {path.name: path.read_bytes() for path in shards.glob("*.parquet")}

    def _count(self, rows: int, tokens: int) -> None:
        self.rows.append(rows)


class Hanging:
    """A sample that hangs the process that has it, the first time; `then` is done to that process."""

    def __init__(self, folder: Path, then: Callable[[psutil.Process], None]) -> None:
        self.file = folder / "hangs"
        self.text = f"HANG-ONCE {self.file}"
        self._then = then
        self._thread = threading.Thread(target=self._wait)

    def _wait(self) -> None:
        number = until(lambda: self.file.exists() and self.file.read_text())
        process = psutil.Process(int(number))
        self._then(process)
        process.kill()  # which a worker of ours would see to itself

    def __enter__(self) -> str:
        self._thread.start()
        return self.text

    def __exit__(self, *_: object) -> None:
        self._thread.join()


def kill_actor(process: psutil.Process) -> None:
    process.parent().kill()


def kill_node(process: psutil.Process) -> None:
    raylet = process.parent().parent()
    assert raylet.name() == "raylet"
    raylet.kill()


# What is measured


def test_the_shards_and_the_subset_are_those_of_this_machine(
    address: str, first_run: Result, corpus_file: Path, options: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    """Measured with as many threads as the run before had."""
    there = {"engine": "ray", "ray_address": address}
    result = datapruner.prune(corpus_file, "qtuning", 0.5, home=tmp_path, **options, **there)
    assert result.run.run_id == first_run.run.run_id
    assert result.run.measured == first_run.run.measured
    first_run.export(tmp_path / "a.parquet")
    result.export(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    shards = {path.relative_to(tmp_path) for path in (tmp_path / "signals").rglob("*.parquet")}
    assert shards
    for shard in shards:
        assert (tmp_path / shard).read_bytes() == (home / shard).read_bytes()


def test_what_is_measured_already_needs_no_cluster(
    first_run: Result, corpus_file: Path, options: dict[str, Any], home: Path
) -> None:
    nowhere = {"engine": "ray", "ray_address": "127.0.0.1:1"}
    again = datapruner.prune(corpus_file, "qtuning", 0.5, home=home, **options, **nowhere)
    assert (again.run.run_id, again.run.measured) == (first_run.run.run_id, 0)


# What becomes of actors and nodes


def test_a_killed_actor_loses_nothing_and_poisonous_samples_fail_as_on_this_machine(
    address: str, tmp_path: Path
) -> None:
    texts = ["x", "yy", "DIE", "FAIL", "EXIT", "REFUSE", "lone \ud800 half", *"abc"]
    here = Measured(tmp_path / "here", texts, on=None)
    with Hanging(tmp_path, kill_actor) as hangs:
        there = Measured(tmp_path / "there", [*texts, hangs], on=Cluster(address))
    assert there.failed == here.failed
    assert there.failed.keys() == {"s2", "s3", "s4"}
    assert here.shards.items() <= there.shards.items()
    assert len(there.shards) == len(here.shards) + 1
    assert (sum(there.rows), there.left) == (len(texts) + 1, [])
    assert len(there.rows) > 2  # told as it went on


def test_cancelling_ends_everything_in_the_middle_of_a_task(address: str, tmp_path: Path) -> None:
    hangs = tmp_path / "hangs"
    actors: list[psutil.Process] = []

    def cancel() -> None:
        if hangs.exists() and (number := hangs.read_text()):
            actors.append(psutil.Process(int(number)).parent())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Measured(tmp_path, ["x", f"HANG {hangs}", "y"], on=Cluster(address), on_wait=cancel)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(hangs.read_text())).kill()
    until(lambda: has_ended(actors[0].pid))
    assert not list((tmp_path / "signals").glob(".*"))


def test_a_killed_node_loses_nothing(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is anything taken from the working directory, where Ray looks for modules by itself."""
    (tmp_path / "pyarrow.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    with Hanging(tmp_path, kill_node) as hangs:
        found = Measured(tmp_path, ["x", hangs, *"abc"], on=Cluster(address))
    assert (len(found.shards), found.failed, sum(found.rows)) == (5, {}, 5)


# What is refused


def test_a_cluster_that_is_not_there_is_told_of_at_once(tmp_path: Path) -> None:
    with pytest.raises(
        WorkerError, match=r"no Ray cluster can be reached at 127.0.0.1:1: .*refused"
    ) as refused:
        executor.nodes(Cluster("127.0.0.1:1"))
    assert refused.value.field == "ray_address"


@pytest.mark.parametrize(
    "address", ["ray://head:10001", "head", "http://head:1", "a b:1", "head:999999", "-x:1;"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match=r"is no address of a Ray cluster \(auto, or HOST:PORT"):
        executor.check(Cluster(address))


def test_without_ray_the_remedy_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"needs the package ray \(pip install 'datapruner\[ray\]'\)"):
        executor.check(Cluster())


def test_a_cluster_of_this_machine_has_a_folder_of_its_own_with_room_for_the_paths_of_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "far" / "below"))
    folder = Path(executor._temporary())
    try:
        assert folder.parent == Path("/tmp")
        assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        folder.rmdir()


def test_each_cluster_of_this_machine_does_nothing_without_a_token_of_its_own() -> None:
    first, second = executor._only_ours(), executor._only_ours()
    assert first["RAY_AUTH_MODE"] == "token"
    assert len(first["RAY_AUTH_TOKEN"]) == 64
    assert first["RAY_AUTH_TOKEN"] != second["RAY_AUTH_TOKEN"]


def test_what_keeps_tasks_from_being_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(NoSpaceError, match="the tasks cannot be written: No space left"), executor._writing():
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(WorkerError, match="cannot write the tasks: Is a directory"), executor._writing():
        tmp_path.open("w")


@pytest.mark.parametrize(
    ("places", "there", "visible"),
    [
        (("cuda:0", "cuda:1"), None, "0,1"),
        (("cuda:3", "cuda:1"), None, "3,1"),
        (("cuda", "cuda"), None, "0,1"),
        (("cuda:1",), "4,6", "6"),
        (("cuda:0", "cuda:1"), "GPU-abc,GPU-def", "GPU-abc,GPU-def"),
    ],
)
def test_a_cluster_of_this_machine_has_the_gpus_that_are_named(
    places: tuple[str, ...], there: str | None, visible: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if there is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", there)
    assert executor._visible(places) == visible
