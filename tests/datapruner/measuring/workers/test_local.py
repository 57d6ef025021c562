"""What workers do to themselves and to each other, and what comes of the samples all the same."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest

import datapruner
from datapruner.errors import ModelError, WorkerError
from datapruner.measuring import measure
from datapruner.measuring.workers import local
from datapruner.measuring.workers.spec import WorkerSpec
from datapruner.result import Result
from datapruner.system.space import NoSpaceError
from tests.waiting import PATIENCE, has_ended, until

STAND_IN = Path(__file__).with_name("stand_in.py")
PERILOUS = Path(__file__).with_name("perilous.py")
SPEC = WorkerSpec("folder", "revision", "float32", None, "truncate", "all", False, "cpu", None, None)


def wire(texts: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"id": f"s{i}", "turns": [["assistant", text, None]], "tools": None} for i, text in enumerate(texts)
    ]


class Measured:
    """What came of some texts, `size` to a task: reasons of failed samples, the shards, the progress made."""

    def __init__(
        self, folder: Path, texts: Sequence[str], *, size: int = 256, devices: int = 1, mode: str = ""
    ) -> None:
        self.progress: list[int] = []
        samples = wire(texts)
        tasks = [local.Task(samples[i : i + size], folder) for i in range(0, len(samples), size)]
        run = local.measure(SPEC, ["cpu"] * devices, tasks, self.count, (str(STAND_IN), mode))
        self.failed = dict(run)
        shards = [pl.read_parquet(path) for path in sorted(folder.glob("*.parquet"))]
        self.shards = pl.concat(shards) if shards else pl.DataFrame({"sample_id": []})

    def count(self, rows: int, tokens: int) -> None:
        self.progress.append(rows)

    @property
    def measured(self) -> list[str]:
        return sorted(self.shards["sample_id"], key=lambda name: int(name[1:]))


def ids(count: int, *without: int) -> list[str]:
    return [f"s{i}" for i in range(count) if i not in without]


def measuring() -> set[psutil.Process]:
    """Processes that measure, or stand in for one."""
    ours, found = {str(STAND_IN), str(PERILOUS), local.WORKER[1]}, set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile: one that waited for other tests
            if ours & set(child.cmdline()):
                found.add(child)
    return found


_before: set[psutil.Process] = set()


@pytest.fixture(autouse=True)
def _look_around() -> None:
    _before.update(measuring())


def no_children() -> bool:
    """Whether no measuring process of this test is left; those that wait for other tests may be."""
    return measuring() <= _before


# Tasks and workers


@pytest.mark.parametrize(("size", "devices"), [(1, 1), (3, 1), (256, 1), (2, 2), (5, 3)])
def test_every_sample_is_measured_once_whatever_the_tasks_and_workers(
    tmp_path: Path, size: int, devices: int
) -> None:
    found = Measured(tmp_path, ["x" * i for i in range(10)], size=size, devices=devices)
    assert found.measured == ids(10)
    assert dict(found.shards.select("sample_id", "n_truncated").iter_rows())["s7"] == 7
    assert (found.failed, sum(found.progress)) == ({}, 10)
    assert no_children()


def test_without_tasks_no_worker_is_started(tmp_path: Path) -> None:
    assert dict(local.measure(SPEC, ["cpu"], [], lambda *_: None, ("/no/such/script",))) == {}


def test_tasks_are_drawn_as_they_are_needed(tmp_path: Path) -> None:
    drawn = []

    def tasks() -> Any:
        for sample in wire(["a", "FAIL", "b", "c"]):
            drawn.append(sample["id"])
            yield local.Task([sample], tmp_path)

    run = local.measure(SPEC, ["cpu"], tasks(), lambda *_: None, (str(STAND_IN),))
    assert next(run) == ("s1", "out of memory")
    run.close()
    assert len(drawn) >= 2
    assert no_children()


def test_samples_that_failed_for_now_are_reported_and_not_written(tmp_path: Path) -> None:
    found = Measured(tmp_path, ["a", "FAIL", "REFUSE", "FAIL"])
    assert found.failed == {"s1": "out of memory", "s3": "out of memory"}
    assert dict(found.shards.select("sample_id", "error").iter_rows()) == {
        "s0": None,
        "s2": "cannot be rendered",
    }


def test_text_of_any_kind_reaches_the_worker_unchanged(tmp_path: Path) -> None:
    texts = [
        "",
        "line\nbreak\r\n\u2028",
        "emoji 🎉",
        "lone \ud800 half",
        'quotes " and \\ and \x00',
        "x" * 300_000,
    ]
    found = Measured(tmp_path, texts)
    assert dict(found.shards.select("sample_id", "n_truncated").iter_rows()) == {
        f"s{i}": len(text) for i, text in enumerate(texts)
    }


# Deaths


def test_a_worker_that_dies_once_costs_nothing_but_time(tmp_path: Path) -> None:
    texts = ["a", "b", f"DIE-ONCE {tmp_path / 'died'}", "c"]
    found = Measured(tmp_path, texts)
    assert (tmp_path / "died").exists()
    assert (found.failed, found.measured) == ({}, ids(4))
    # What the dead worker had counted was taken back.
    assert (sum(found.progress), min(found.progress)) == (4, -2)


def test_tasks_that_wait_in_a_worker_that_dies_are_not_blamed(tmp_path: Path) -> None:
    """The first sample dies once more while it is alone, and has taken the next two with it before."""
    found = Measured(tmp_path, ["DIE", f"DIE-ONCE {tmp_path / 'died'}", "x", "y"], size=1)
    assert (set(found.failed), found.measured) == ({"s0"}, ids(4, 0))
    assert sum(found.progress) == 4


def test_the_next_tasks_are_sent_before_the_first_is_done(tmp_path: Path) -> None:
    """But no more than a few, as what is sent takes memory."""
    drawn = []

    def tasks() -> Iterator[local.Task]:
        for sample in wire([f"HANG {tmp_path / 'pid'}", *"abcdefgh"]):
            drawn.append(sample["id"])
            yield local.Task([sample], tmp_path)

    def look() -> None:
        if (tmp_path / "pid").exists():
            raise RuntimeError("seen")

    with pytest.raises(RuntimeError, match="seen"):
        list(local.measure(SPEC, ["cpu"], tasks(), lambda *_: None, (str(STAND_IN),), on_wait=look))
    assert drawn == ids(3)
    assert no_children()


@pytest.mark.parametrize("poison", [0, 3, 6, 12])
def test_a_sample_that_kills_every_worker_is_found_and_all_others_are_measured(
    tmp_path: Path, poison: int
) -> None:
    found = Measured(tmp_path, ["DIE" if i == poison else "x" for i in range(13)])
    assert found.measured == ids(13, poison)
    assert found.failed == {
        f"s{poison}": "the measuring process was killed by signal 9 on this sample, more than once"
    }
    assert sum(found.progress) == 13


def test_several_deadly_samples_in_several_tasks_and_workers_are_all_found(tmp_path: Path) -> None:
    deadly = {1, 2, 9, 15}
    texts = ["DIE" if i in deadly else "x" for i in range(20)]
    found = Measured(tmp_path, texts, size=5, devices=2)
    assert set(found.failed) == {f"s{i}" for i in deadly}
    assert found.measured == ids(20, *deadly)


def test_the_last_words_of_a_dead_worker_are_in_the_reason(tmp_path: Path) -> None:
    found = Measured(tmp_path, ["EXIT", "x"])
    assert found.failed == {
        "s0": "the measuring process ended with exit code 3 on this sample, more than once: "
        "MemoryError: the last word"
    }


def test_when_workers_die_of_everything_measuring_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(
        WorkerError, match=r"16 measuring processes died before one task was done: .*signal 9"
    ):
        Measured(tmp_path, ["DIE"] * 64)
    assert no_children()


def test_a_worker_that_dies_while_loading_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(
        WorkerError, match=r"cannot start measuring on cpu: .*exit code 9\nno room for the model"
    ):
        Measured(tmp_path, ["x"], mode="die")
    assert no_children()


def test_a_model_that_a_worker_refuses_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="this model cannot be used"):
        Measured(tmp_path, ["x"] * 5, size=1, devices=2, mode="refuse")
    assert no_children()


def test_a_shard_that_cannot_be_written_ends_the_run_at_once(tmp_path: Path) -> None:
    with pytest.raises(NoSpaceError, match="cannot write: No space left on device"):
        Measured(tmp_path, ["x"] * 5, size=1, mode="broken")
    assert no_children()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails a test that waits for a process that hangs, as long as it is let to."""
    monkeypatch.setattr(local, "_END_SECONDS", 2 * PATIENCE)
    began = time.monotonic()
    yield
    assert time.monotonic() - began < PATIENCE


@pytest.mark.usefixtures("hurried")
def test_an_error_of_one_worker_does_not_wait_for_the_others(tmp_path: Path) -> None:
    texts = [f"HANG {tmp_path / 'pid'}", "x"]

    def fail(rows: int, tokens: int) -> None:
        until((tmp_path / "pid").exists)
        raise RuntimeError("the listener failed")

    tasks = [local.Task([sample], tmp_path) for sample in wire(texts)]
    with pytest.raises(RuntimeError, match="the listener failed"):
        list(local.measure(SPEC, ["cpu", "cpu"], tasks, fail, (str(STAND_IN),)))
    assert no_children()


# Interrupts


@pytest.mark.usefixtures("hurried")
def test_who_stops_does_not_wait_for_the_task_in_flight(tmp_path: Path) -> None:
    def stop(rows: int, tokens: int) -> None:
        raise RuntimeError("stop")

    task = local.Task(wire(["x", f"HANG {tmp_path / 'pid'}"]), tmp_path)
    with pytest.raises(RuntimeError, match="stop"):
        list(local.measure(SPEC, ["cpu"], [task], stop, (str(STAND_IN),)))
    assert no_children()


@pytest.mark.parametrize("while_", ["loading", "measuring"])
def test_an_interrupt_ends_the_workers_too(tmp_path: Path, while_: str) -> None:
    pid = tmp_path / "pid"
    mode, text = (f"hang {pid}", "x") if while_ == "loading" else ("", f"HANG {pid}")
    program = f"""
from pathlib import Path
from datapruner.measuring.workers import local
from datapruner.measuring.workers.spec import WorkerSpec
spec = WorkerSpec("folder", "revision", "float32", None, "truncate", "all", False, "cpu", None, None)
samples = [{{"id": "a", "turns": [["assistant", {text!r}, None]], "tools": None}}]
task = local.Task(samples, Path({str(tmp_path)!r}))
list(local.measure(spec, ["cpu"], [task], lambda *_: None, ({str(STAND_IN)!r}, {mode!r})))
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: pid.exists() and pid.read_text() != "")
        parent.send_signal(signal.SIGINT)
        _, said = parent.communicate(timeout=PATIENCE)
    finally:
        parent.kill()
    assert "KeyboardInterrupt" in said
    assert not psutil.pid_exists(int(pid.read_text()))


# The real worker


@pytest.fixture(scope="module")
def perilous(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A worker that dies of "poison" always, and in the middle of "Bonjour!" once."""
    return (str(PERILOUS), "poison", "Bonjour!", str(tmp_path_factory.mktemp("perilous") / "died"))


@pytest.mark.slow
def test_a_poisonous_row_is_an_error_and_the_others_are_measured(
    options: dict[str, Any], tmp_path: Path, perilous: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": "Say a word.", "completion": word} for word in ("one that is longer", "poison")]
    monkeypatch.setattr(local, "WORKER", perilous)
    monkeypatch.setattr(measure, "TASK_ROWS", 1)
    result = datapruner.prune(rows, "ppl", 1.0, home=tmp_path, **options)
    assert result.scores["status"].to_list() == ["kept", "error"]
    assert "killed by signal 9 on this sample" in result.scores["reason"][1]
    assert result.scores["ppl"][0] > 1
    assert (result.report.kept, result.report.errored) == (1, 1)


@pytest.mark.slow
def test_after_a_death_in_the_middle_the_subset_has_the_same_bytes(
    first_run: Result,
    corpus_file: Path,
    options: dict[str, Any],
    tmp_path: Path,
    perilous: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local, "WORKER", perilous)
    result = datapruner.prune(corpus_file, "qtuning", 0.5, home=tmp_path / "home", **options)
    assert Path(perilous[-1]).exists()
    result.export(tmp_path / "b.parquet")
    first_run.export(tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.slow
def test_after_the_parent_was_killed_only_what_is_missing_is_measured(
    options: dict[str, Any], tmp_path: Path
) -> None:
    total, home = 80, tmp_path / "home"
    rows = [{"prompt": f"What is {i} plus {i}?", "completion": f"It is {2 * i}."} for i in range(total)]
    path = tmp_path / "rows.parquet"
    pl.DataFrame(rows).write_parquet(path)
    # It kills itself once the first shard is whole.
    program = f"""
import os, signal
import datapruner
from datapruner.measuring import measure
from datapruner.measuring.workers import local

class Stop(local._Process):
    def hear(self, on_progress):
        if super().hear(on_progress) is not None:
            print(self._process.pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

local._Process, measure.TASK_ROWS = Stop, 8
datapruner.prune({str(path)!r}, 'ppl', 0.5, home={str(home)!r}, **{options!r})
"""

    def published() -> list[Path]:
        return sorted(home.glob("signals/*/[!.]*.parquet"))

    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    workers = [int(pid) for pid in done.stdout.split()]
    assert workers
    until(lambda: all(has_ended(pid) for pid in workers), lambda: "a worker outlives its parent")

    before = {shard: shard.stat().st_mtime_ns for shard in published()}
    done = pl.concat([pl.read_parquet(shard, columns=["sample_id"]) for shard in before])["sample_id"]
    assert 0 < len(done) < total
    torn = next(iter(before)).with_name(f".{'0' * 20}.parquet.1")
    torn.write_bytes(b"PAR1, and then the power went")

    result = datapruner.prune(path, "ppl", 0.5, home=home, **options)
    assert result.run.measured == total - len(done)
    assert {shard: shard.stat().st_mtime_ns for shard in before} == before
    assert result.report.kept == total // 2
    assert result.scores["ppl"].is_finite().all()
    shards = pl.concat([pl.read_parquet(shard, columns=["sample_id"]) for shard in published()])
    assert shards["sample_id"].n_unique() == len(shards) == total


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, WorkerSpec]]:
    """Which process has loaded what, one after the other."""
    found: list[tuple[int, WorkerSpec]] = []

    class Noted(local._Process):
        def load(self, spec: WorkerSpec) -> None:
            found.append((self._process.pid, spec))
            super().load(spec)

    monkeypatch.setattr(local, "_Process", Noted)
    return found


def test_an_idle_worker_measures_with_other_models_as_a_new_one_would(
    tiny_folder: Path, tmp_path: Path, loads: list[tuple[int, WorkerSpec]]
) -> None:
    """It loads what it has not loaded yet."""
    spec = replace(SPEC, folder=str(tiny_folder), threads=1)
    short = replace(spec, max_length=64)
    turns = [["user", "Hi", None], ["assistant", "Hello to you. " * 9, None]]
    idle, shards = local.IdleWorkers(), []
    try:
        for number, wanted in enumerate((spec, spec, short, spec)):
            task = local.Task([{"id": "a", "turns": turns, "tools": None}], tmp_path / str(number))
            task.folder.mkdir()
            assert list(local.measure(wanted, ["cpu"], [task], lambda *_: None, idle=idle)) == []
            shards.append(task.out)
    finally:
        idle.close()
    assert [wanted for _, wanted in loads] == [spec, short, spec]
    (pid,) = {pid for pid, _ in loads}
    assert not psutil.pid_exists(pid)
    assert shards[0].read_bytes() == shards[1].read_bytes() == shards[3].read_bytes()
    assert pl.read_parquet(shards[2])["n_tokens"].to_list() == [64]


def test_with_another_number_of_threads_it_is_another_process(
    tmp_path: Path, loads: list[tuple[int, WorkerSpec]]
) -> None:
    idle = local.IdleWorkers()
    try:
        for threads in (1, 1, 2):
            wanted, task = replace(SPEC, threads=threads), local.Task(wire(["text"]), tmp_path)
            assert list(local.measure(wanted, ["cpu"], [task], lambda *_: None, (str(STAND_IN),), idle)) == []
    finally:
        idle.close()
    assert [wanted.threads for _, wanted in loads] == [1, 2]
    assert loads[0][0] != loads[1][0]
    assert not any(psutil.pid_exists(pid) for pid, _ in loads)


def test_an_idle_worker_that_dies_of_another_model_is_replaced(
    tmp_path: Path, loads: list[tuple[int, WorkerSpec]]
) -> None:
    idle, stand_in = local.IdleWorkers(), (str(STAND_IN), "one model")
    try:
        for wanted in (SPEC, replace(SPEC, folder="another")):
            task = local.Task(wire(["text"]), tmp_path)
            assert list(local.measure(wanted, ["cpu"], [task], lambda *_: None, stand_in, idle)) == []
    finally:
        idle.close()
    pids = [pid for pid, _ in loads]
    assert pids[0] == pids[1] != pids[2]


def test_an_idle_worker_ends_when_it_has_waited_for_too_long(tmp_path: Path) -> None:
    idle = local.IdleWorkers()
    try:
        task = local.Task(wire(["text"]), tmp_path)
        assert list(local.measure(SPEC, ["cpu"], [task], lambda *_: None, (str(STAND_IN),), idle)) == []
        idle.end_waiting(3600.0)
        assert not no_children()
        idle.end_waiting(0.0)
        assert no_children()
    finally:
        idle.close()
