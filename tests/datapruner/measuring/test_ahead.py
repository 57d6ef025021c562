"""Processes that load their model while rows are ingested, and only where there is something to measure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from datapruner.corpora import store
from datapruner.corpora.corpus import Corpus
from datapruner.errors import InputError
from datapruner.measuring import measure as measuring
from datapruner.measuring.ahead import Ahead
from datapruner.measuring.measure import Machine, Pass, measure, proxy_for, sharing
from datapruner.measuring.workers import local
from datapruner.progress import Silent
from datapruner.request.config import Measuring
from datapruner.request.settings import config_for
from datapruner.runs import pipeline
from tests.waiting import until

STAND_IN = str(Path(__file__).parent / "workers" / "stand_in.py")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers that have no model, in the process that measures and in those that start ahead of it."""
    monkeypatch.setattr(local, "WORKER", (STAND_IN,))
    before = processes()
    yield
    assert processes() == before


def processes() -> set[int]:
    """Those below this one that measure, or stand in for one that does."""
    ours, children = {STAND_IN, local.TOKENISER[1]}, psutil.Process().children()
    # one that has just begun has no command for a moment
    return {child.pid for child in children if ours & set(until(child.cmdline))}


@pytest.fixture
def wanted(tmp_path: Path, tiny_folder: Path) -> Pass:
    return proxy_for(Measuring(model=str(tiny_folder)), tmp_path, ["cpu"])


def measured(home: Path, wanted: Pass, *responses: str) -> list[str]:
    """Ids of samples that are measured now, through the model of the stand-in."""
    rows = [{"prompt": "p", "completion": text} for text in responses]
    with Corpus(store.ingest_to(rows, {}, home, Silent())) as corpus:
        measure(corpus, wanted, home, Machine(["cpu"]), progress=Silent())
        return corpus.sample_index()["sample_id"].to_list()


@pytest.mark.usefixtures("stand_in")
def test_where_nothing_was_measured_yet_they_start_at_once_one_for_each_device_and_measure(
    tmp_path: Path, wanted: Pass
) -> None:
    rows = [{"prompt": "p", "completion": str(i)} for i in range(5)]
    before = processes()
    with closing(Ahead(wanted, tmp_path, Machine(["cpu", "cpu:1"]))) as ahead:
        begun = processes() - before
        assert len(begun) == 2
        path = store.ingest_to(rows, {}, tmp_path, Silent(), ahead.see)
        assert processes() - before == begun
        with Corpus(path) as corpus, sharing(ahead.machine) as shared:
            found = measure(corpus, wanted, tmp_path, shared, progress=Silent())
            assert processes() - before == begun
        assert processes() == before  # however long the rest of a run takes
    assert (found.measured, found.errors) == (5, {})


@pytest.mark.usefixtures("stand_in")
def test_a_sample_that_was_not_measured_starts_one_and_others_do_not(tmp_path: Path, wanted: Pass) -> None:
    known = measured(tmp_path, wanted, "a", "b")
    before = processes()
    with closing(Ahead(wanted, tmp_path, Machine(["cpu"]))) as ahead:
        ahead.see(known)
        assert processes() == before
        ahead.see([*known, "new"])
        ahead.see(["newer"])
        assert len(processes() - before) == 1


@pytest.mark.usefixtures("stand_in")
def test_one_for_tokens_alone_is_not_needed_where_a_model_has_read_the_samples(
    tmp_path: Path, wanted: Pass
) -> None:
    known = measured(tmp_path, wanted, "a")
    before = processes()
    with closing(Ahead(wanted.tokens_only(), tmp_path, Machine(["cpu"]))) as ahead:
        ahead.see(known)
        assert processes() == before


@pytest.mark.usefixtures("stand_in")
def test_none_starts_for_a_machine_that_keeps_processes_or_without_a_pass(
    tmp_path: Path, wanted: Pass
) -> None:
    before = processes()
    for each, machine in ((wanted, Machine(["cpu"], idle=local.IdleWorkers())), (None, Machine(["cpu"]))):
        with closing(Ahead(each, tmp_path, machine)) as ahead:
            ahead.see(["new"])
            assert processes() == before


class Watching(Silent):
    """Which processes were there while rows were ingested."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.seen: set[int] = set()

    def stage(self, name: str, total: int | None, unit: str) -> None:
        self.stages.append(name)

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        if self.stages[-1] == "ingesting":
            self.seen |= processes()


def test_a_run_starts_its_process_before_its_rows_are_there(tmp_path: Path, tiny_folder: Path) -> None:
    before, watching = processes(), Watching()
    rows = [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(4)]
    config = config_for(None, {"method": "length", "keep": 0.5, "model": str(tiny_folder)})
    made = pipeline.run(config, rows, tmp_path, Machine(["cpu"]), watching)
    assert (made.report.kept, made.measured) == (2, 4)
    assert len(watching.seen - before) == 1
    assert processes() == before


@pytest.mark.usefixtures("stand_in")
def test_when_rows_cannot_be_ingested_no_process_is_left(tmp_path: Path, tiny_folder: Path) -> None:
    config = config_for(None, {"method": "donod", "keep": 0.5, "model": str(tiny_folder)})
    with pytest.raises(InputError):
        pipeline.run(config, [{"nothing": "of use"}], tmp_path, Machine(["cpu"]), Silent())


def test_a_model_that_is_not_there_yet_is_fetched_after_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = measuring.resolve

    def resolve(name: str, home: Path, *, local_only: bool) -> object:
        asked.append(local_only)
        return real(name, home, local_only=local_only)

    monkeypatch.setattr(measuring, "resolve", resolve)
    config = config_for(None, {"method": "donod", "keep": 0.5})
    with pytest.raises(InputError):
        pipeline.run(config, [{"nothing": "of use"}], tmp_path, Machine(["cpu"]), Silent())
    assert asked == [True]
