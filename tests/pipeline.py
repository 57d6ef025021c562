"""A pytest plugin: a tiny proxy model, and a home in which it measured a corpus once for all tests."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import datapruner
from datapruner import beforehand, library, result
from datapruner.measuring import engine
from datapruner.measuring.measure import Machine
from datapruner.measuring.workers.local import IdleWorkers
from datapruner.measuring.workers.spec import WorkerSpec
from datapruner.request.config import find
from datapruner.request.needs import reads_reward
from datapruner.result import Result
from scorers.signals.columns import needs_by_view
from tests.tiny_model import LINES, save_tiny_model, write_corpus
from tests.tiny_reward import save_tiny_reward

Prune = Callable[..., Result]


class ManyIdle(IdleWorkers):
    """One waiting process of each kind, where a service has one for all."""

    def __init__(self) -> None:
        self._by_kind: dict[Any, IdleWorkers] = defaultdict(IdleWorkers)

    def take(self, worker: Sequence[str], spec: WorkerSpec) -> Any:
        return self._by_kind[tuple(worker), spec.threads].take(worker, spec)

    def give(self, process: Any) -> None:
        self._by_kind[process.worker, process.spec.threads].give(process)

    def close(self) -> None:
        for each in self._by_kind.values():
            for process in each._waiting.values():
                process.kill()  # one that is let end takes a second to
            each.close()


class Lent(ManyIdle):
    """Those of another, which outlive this."""

    def __init__(self, owner: ManyIdle) -> None:
        self._by_kind = owner._by_kind

    def end_waiting(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def lent(idle: ManyIdle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for workers of a service that run, and end, in this process."""
    monkeypatch.setattr("datapruner.service.worker.IdleWorkers", partial(Lent, idle))


@pytest.fixture(scope="session", autouse=True)
def idle() -> Iterator[ManyIdle]:
    """Measuring processes stay for the next test that calls the library here, as they do in a service: to
    start one takes seconds."""
    waiting = ManyIdle()
    with pytest.MonkeyPatch.context() as patch:
        for module in (beforehand, library, result, engine):
            patch.setattr(module, "Machine", partial(Machine, idle=waiting))
        yield waiting
    waiting.close()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def reference_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with other weights."""
    return save_tiny_model(tmp_path_factory.mktemp("reference-model"), seed=8)


@pytest.fixture(scope="session")
def target_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows to select towards: two of the corpus, and a new one."""
    new = {"instruction": "Name a river in Peru.", "output": "The Amazon rises there."}
    path = tmp_path_factory.mktemp("target") / "target.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in (LINES[1], LINES[10], new)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus of `tests.tiny_model.LINES`."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "motley.jsonl")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def options(tiny_folder: Path) -> dict[str, Any]:
    """What every call that measures with the tiny model is given."""
    return {"model": str(tiny_folder), "device": "cpu"}


@pytest.fixture(scope="session")
def first_run(corpus_file: Path, home: Path, options: dict[str, Any]) -> Result:
    """The run that measured the corpus into `home`."""
    return datapruner.prune(corpus_file, "qtuning", 0.5, home=home, **options)


@pytest.fixture(scope="session")
def reward_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_reward(tmp_path_factory.mktemp("reward-model"))


@pytest.fixture(scope="session")
def compared(reference_folder: Path, target_file: Path, reward_folder: Path) -> Callable[..., dict[str, Any]]:
    """What these methods, by default, are to be given to compare with."""
    beside = {"reference": str(reference_folder), "target": str(target_file)}
    beside |= {"reward_model": str(reward_folder)}

    def given(*methods: str) -> dict[str, Any]:
        needed = frozenset().union(*(find(name).needs(find(name).options()) for name in methods))
        found = needs_by_view(needed).keys() | ({"reward_model"} if reads_reward(needed) else set())
        return {view: value for view, value in beside.items() if view in found}

    return given


@pytest.fixture(scope="session")
def weighted(prune: Prune) -> Result:
    """A run that weights tokens."""
    return prune("token-prob", 0.8, options={"mode": "weight"})


@pytest.fixture(scope="session")
def prune(
    first_run: Result,
    corpus_file: Path,
    home: Path,
    options: dict[str, Any],
    compared: Callable[..., dict[str, Any]],
) -> Prune:
    """`datapruner.prune` of the corpus, already measured: give the method and how much to keep."""

    def run(method: str = "qtuning", *how_much: Any, **given: Any) -> Result:
        wanted = options | compared(method) | given
        return datapruner.prune(corpus_file, method, *how_much, home=home, **wanted)

    return run
