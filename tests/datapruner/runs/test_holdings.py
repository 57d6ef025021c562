"""What a home holds, what a run needs of it, and that nothing else of it is left or lost."""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import datapruner
from datapruner.errors import UsageError
from datapruner.measuring import compaction
from datapruner.result import Result
from datapruner.runs import evaluations
from datapruner.runs.holdings import Holding, clean, holdings
from datapruner.system.files import unfinished
from tests.datapruner.system.test_homes import another_user
from tests.evaluations import evaluation

NOW = timedelta()
DAY = timedelta(days=1)


def rows(*numbers: int) -> list[dict[str, str]]:
    return [{"instruction": f"What is {n}?", "output": f"It is {n} and no more."} for n in numbers]


def score(home: Path, options: dict[str, Any], *numbers: int, **given: Any) -> Result:
    return datapruner.score(rows(*numbers), "ppl", home=home, **options | given)


@pytest.fixture
def place(tmp_path: Path, options: dict[str, Any]) -> tuple[Path, Result, Result]:
    """A home with two runs, whose corpora have a sample in common."""
    return tmp_path, score(tmp_path, options, 1, 2, 3), score(tmp_path, options, 3, 4)


def by_kind(home: Path, kind: str, older_than: timedelta = NOW) -> list[Holding]:
    return [each for each in holdings(home, older_than) if each.kind == kind]


def forget(result: Result) -> None:
    shutil.rmtree(result.run.folder)


def aged(path: Path, days: float) -> None:
    moment = time.time() - days * 86400
    for each in (path, *path.rglob("*")):
        os.utime(each, (moment, moment))


def test_everything_is_told_with_its_size_and_the_runs_that_need_it(place: Any) -> None:
    home, first, second = place
    corpora = by_kind(home, "corpora")
    assert sorted(each.runs for each in corpora) == sorted([(first.run.run_id,), (second.run.run_id,)])
    assert {each.about for each in corpora} == {"3 rows of rows", "2 rows of rows"}
    (signals,) = by_kind(home, "signals")
    assert set(signals.runs) == {first.run.run_id, second.run.run_id}
    assert signals.about.endswith("in float32")
    files = [path for path in home.rglob("*") if path.is_file() and path.name != ".in-use"]
    at_models = [path for path in files if path.parent == home / "models"]
    size = sum(path.stat().st_size for path in files) - sum(path.stat().st_size for path in at_models)
    assert sum(each.bytes for each in holdings(home)) == size
    assert sum(each.unneeded_bytes for each in holdings(home)) == 0
    assert clean(home, older_than=NOW) == []


def test_the_corpus_of_a_run_that_is_gone_goes_with_the_signals_of_its_samples_alone(
    place: Any, options: dict[str, Any]
) -> None:
    home, first, second = place
    forget(second)
    assert len(clean(home, older_than=NOW, dry_run=True)) == 2
    gone = clean(home, older_than=NOW)
    assert sorted(each.path.suffix for each in gone) == [".duckdb", ".parquet"]
    assert [each.runs for each in by_kind(home, "corpora")] == [(first.run.run_id,)]
    assert clean(home, older_than=NOW) == []
    assert score(home, options, 1, 2, 3).run.measured == 0
    assert score(home, options, 3, 4).run.measured == 1


def test_signals_of_a_key_that_no_run_was_measured_with_go_whole(place: Any, options: dict[str, Any]) -> None:
    home, *_ = place
    other = score(home, options, 1, 2, 3, max_length=64)
    assert len(by_kind(home, "signals")) == 2
    forget(other)
    (gone,) = clean(home, older_than=NOW)
    assert gone.path.parent == home / "signals"
    assert len(by_kind(home, "signals")) == 1
    assert score(home, options, 1, 2, 3).run.measured == 0


def test_signals_that_another_version_measured_are_told_apart(place: Any) -> None:
    home, *_ = place
    (spelled_out,) = (home / "signals").glob("*/key.json")
    key = json.loads(spelled_out.read_text())
    spelled_out.write_text(json.dumps(key | {"signal_version": key["signal_version"] - 1}))
    (signals,) = by_kind(home, "signals")
    assert signals.about.endswith("in float32, as another version measured it")


def test_what_is_young_stays_and_the_signals_of_its_samples_with_it(place: Any) -> None:
    home, _, second = place
    forget(second)
    aged(home / "signals", days=3)
    assert clean(home, older_than=DAY) == []
    aged(home / "corpora", days=3)
    assert len(clean(home, older_than=DAY)) == 2


def test_small_shards_are_merged_when_they_are_many_and_go_when_nobody_reads_them(
    place: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, *_ = place
    monkeypatch.setattr(compaction, "MANY", 2)
    score(home, options, 5)
    (folder,) = (home / "signals").iterdir()
    files = sorted(folder.glob("*.parquet"))
    assert [path.name.startswith("merged-") for path in files] == [False] * 3 + [True]
    assert clean(home, older_than=NOW) == []
    assert score(home, options, 1, 2, 3).run.measured == 0
    monkeypatch.setattr(compaction, "GRACE", -DAY)
    assert sorted(each.path for each in clean(home, older_than=NOW, dry_run=True)) == files[:3]
    score(home, options, 6)
    assert [path for path in files if path.exists()] == files[3:]
    assert score(home, options, 1, 2, 3, 4, 5).run.measured == 0


def test_a_tuned_model_goes_when_it_is_old(place: Any) -> None:
    home, _, _ = place
    weights = home / "tuned" / "0123456789abcdef" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    (holding,) = by_kind(home, "tuned")
    assert (holding.about, holding.bytes) == ("a model tuned on a target set", 7)
    assert clean(home, older_than=DAY) == []
    aged(home, days=3)
    assert [each.path for each in clean(home, older_than=DAY)] == [weights.parent]


def test_trainings_of_an_evaluation_go_when_they_are_old_and_what_came_of_it_stays(place: Any) -> None:
    home, first, _ = place
    stored = evaluations.write(first.run.folder, evaluation(run=first.run.run_id))
    trained = home / "evaluations" / "0123456789abcdef" / "random-0-0.001.npz"
    trained.parent.mkdir(parents=True)
    trained.write_bytes(b"what was read")
    (holding,) = by_kind(home, "evaluations")
    assert (holding.about, holding.bytes) == ("trainings of an evaluation", 13)
    assert clean(home, older_than=DAY) == []
    aged(home, days=3)
    assert [each.path for each in clean(home, older_than=DAY)] == [trained.parent]
    assert evaluations.latest(first.run.folder) is not None
    assert stored.exists()


def test_forecasts_are_listed_and_stay(place: Any) -> None:
    home, *_ = place
    forecast = home / "plans" / "0123456789abcdef.json"
    forecast.parent.mkdir()
    forecast.write_bytes(b"{}")
    aged(home, days=3)
    (holding,) = by_kind(home, "forecasts")
    assert (holding.about, holding.bytes) == ("what runs were forecast to take", 2)
    assert clean(home, older_than=DAY) == []


def test_while_another_process_uses_the_home_nothing_goes(place: Any) -> None:
    home, _, second = place
    forget(second)
    with another_user(home), pytest.raises(UsageError, match="another process uses it"):
        clean(home, older_than=NOW)
    assert len(by_kind(home, "corpora")) == 2


def test_what_killed_processes_left_goes_when_it_is_a_day_old(place: Any) -> None:
    home, *_ = place
    for left in (
        unfinished(home / "corpora" / "corpus.duckdb"),
        unfinished(next((home / "signals").iterdir()) / "x"),
    ):
        left.write_bytes(b"half")
    begun = home / "runs" / "0123456789abcdef"
    begun.mkdir()
    (begun / "run.duckdb").write_bytes(b"no run.json yet")
    assert clean(home, older_than=NOW) == []
    for each in (*home.rglob(".unfinished-*"), begun):
        aged(each, days=2)
    assert sum(each.bytes for each in clean(home, older_than=NOW)) == 4 + 4 + len(b"no run.json yet")
    assert not begun.exists()
    assert list(home.rglob(".unfinished-*")) == []


def test_without_a_corpus_that_can_be_read_no_signals_are_taken_for_unneeded(place: Any) -> None:
    home, first, second = place
    forget(second)
    (home / "corpora" / f"{first.run.lineage['corpus']}.duckdb").write_bytes(b"not a corpus at all")
    assert [each.path.suffix for each in clean(home, older_than=NOW)] == [".duckdb"]


def test_a_home_with_nothing_in_it_holds_nothing(tmp_path: Path) -> None:
    assert holdings(tmp_path) == []
    assert clean(tmp_path, older_than=NOW) == []
