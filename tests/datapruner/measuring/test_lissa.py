"""Influence by LiSSA over a corpus, fitted by real processes, against the same steps done here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datapruner
from datapruner.errors import UsageError, WorkerError
from datapruner.measuring import lissa
from datapruner.progress import Silent
from datapruner.result import Result
from scorers.conversations.chat import ChatRenderer, Encoded
from scorers.models.proxy import load
from scorers.signals.lissa import Surrogate
from tests.chats import of_messages
from tests.whole_lissa import influences, mean_gradient
from tests.whole_lissa import lissa as whole_lissa

FACTS = [("sea", "salty"), ("rain", "wet and cold"), ("sun", "far"), ("ice", "frozen water, no more")]
ROWS = [{"instruction": f"What is {name}?", "output": f"It is {what}."} for name, what in FACTS]
TARGET = [
    {"instruction": "What is snow?", "output": "It is cold."},
    {"instruction": "And hail?", "output": "Ice."},
]
STEPS_A_TASK = 20
STEPS = 2 * STEPS_A_TASK + 5
LISSA = {"curvature": "lissa", "lissa_steps": STEPS}


def run(tiny_folder: Path, home: Path, **given: Any) -> Result:
    options = LISSA | given.pop("options", {})
    asked = {"model": str(tiny_folder), "device": "cpu", "home": home, "options": options}
    return datapruner.prune(ROWS, "dealrec", 2, **(asked | given))


@pytest.fixture(scope="module", autouse=True)
def _short_tasks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lissa, "STEPS_A_TASK", STEPS_A_TASK)
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lissa")


@pytest.fixture(scope="module")
def fitted(tiny_folder: Path, home: Path) -> Result:
    return run(tiny_folder, home)


def encoded(tiny_folder: Path, rows: list[dict[str, str]], ids: dict[int, str]) -> list[Encoded]:
    """The rows as they are measured, in the order of their ids."""
    renderer = ChatRenderer(load(tiny_folder, device="cpu").tokenizer)
    chats = [
        of_messages(
            [
                {"role": "user", "content": rows[at]["instruction"]},
                {"role": "assistant", "content": rows[at]["output"]},
            ]
        )
        for at in sorted(ids, key=lambda at: ids[at])
    ]
    found = renderer.render(chats)
    assert all(isinstance(each, Encoded) for each in found)
    return found  # type: ignore[return-value]


def ids_of(result: Result) -> dict[int, str]:
    return dict(result.scores.select("row", "sample_id").iter_rows())


def by_id(result: Result) -> list[float]:
    return result.scores.sort("sample_id")["influence"].to_list()


def test_a_run_has_the_influence_that_the_same_steps_give_in_one_process(
    fitted: Result, tiny_folder: Path
) -> None:
    samples = encoded(tiny_folder, ROWS, ids_of(fitted))
    with Surrogate(load(tiny_folder, device="cpu"), samples) as surrogate:
        u = whole_lissa(surrogate, mean_gradient(surrogate), steps=STEPS)
        expected = influences(surrogate, u)
    assert by_id(fitted) == pytest.approx(expected, rel=1e-4)
    assert np.ptp(expected) > 0
    assert fitted.report.kept == 2


def test_with_a_target_set_it_is_the_influence_on_that_sets_risk(tiny_folder: Path, home: Path) -> None:
    result = run(tiny_folder, home, target=TARGET, options={"risk": "target"})
    samples = encoded(tiny_folder, ROWS, ids_of(result))
    aims = encoded(tiny_folder, TARGET, {0: "a", 1: "b"})
    proxy = load(tiny_folder, device="cpu")
    with Surrogate(proxy, aims) as surrogate:
        v = mean_gradient(surrogate)
    with Surrogate(proxy, samples) as surrogate:
        expected = influences(surrogate, whole_lissa(surrogate, v, steps=STEPS))
    assert by_id(result) == pytest.approx(expected, rel=1e-4)


def test_what_was_fitted_is_found_again_whatever_the_order_of_the_rows(
    fitted: Result, tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lissa, "WORKER", ("-c", "raise SystemExit('nothing is to be fitted')"))
    asked = {"model": str(tiny_folder), "device": "cpu", "home": home, "options": LISSA}
    again = datapruner.prune(ROWS[::-1], "dealrec", 2, **asked)
    assert by_id(again) == by_id(fitted)
    with pytest.raises(WorkerError, match="nothing is to be fitted"):
        datapruner.prune(ROWS[:3], "dealrec", 2, **asked)


def test_another_seed_draws_other_samples(fitted: Result, tiny_folder: Path, home: Path) -> None:
    other = run(tiny_folder, home, seed=5)
    assert by_id(other) != by_id(fitted)
    assert np.corrcoef(by_id(other), by_id(fitted))[0, 1] > 0.5


class Interrupter(Silent):
    """Stops the work in one stage after so many of its units."""

    def __init__(self, stage: str, after: int) -> None:
        self._where, self._after = stage, after
        self._now = ""

    def stage(self, name: str, total: int | None, unit: str) -> None:
        self._now = name

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        if self._now == self._where and done >= self._after:
            raise KeyboardInterrupt


def test_an_interrupted_fitting_goes_on_where_it_was(
    fitted: Result, tiny_folder: Path, tmp_path: Path
) -> None:
    def step_files() -> dict[str, int]:
        found = (tmp_path / "influence").glob("*/steps/[!.]*")
        return {path.name: path.stat().st_mtime_ns for path in found}

    with pytest.raises(KeyboardInterrupt):
        run(tiny_folder, tmp_path, progress=Interrupter("LiSSA", STEPS_A_TASK + 3))
    assert f"{STEPS_A_TASK:08d}.safetensors" in (before := step_files())
    with pytest.raises(KeyboardInterrupt):
        run(tiny_folder, tmp_path, progress=Interrupter("taking influence", 2))
    assert len(after := step_files()) == 3
    assert before.items() <= after.items(), "steps that were done are not done again"
    done = run(tiny_folder, tmp_path)
    assert by_id(done) == by_id(fitted)
    assert [path.name for path in (tmp_path / "influence").glob("*/[!.]*")] == ["influence.parquet"]


def test_a_layer_that_the_model_does_not_have_names_some_that_it_has(tiny_folder: Path, home: Path) -> None:
    with pytest.raises(UsageError, match=r"no weight 'nothing'; some that it has: .*o_proj"):
        run(tiny_folder, home, options={"lissa_layer": "nothing"})


def test_a_sum_that_diverges_is_an_error_with_a_remedy(tiny_folder: Path, home: Path) -> None:
    with pytest.raises(UsageError, match=r"LiSSA diverged at step \d+: .*raise scale"):
        run(tiny_folder, home, options={"lissa_scale": 1e-9})


def test_the_score_takes_the_fitted_influence(fitted: Result) -> None:
    moved, effort = (fitted.scores[name].to_numpy() for name in ("influence", "effort"))
    scaled = [(each - each.min()) / np.ptp(each) for each in (moved, effort)]
    assert fitted.scores["dealrec"].to_numpy() == pytest.approx(scaled[0] + 0.5 * scaled[1])
