"""What an evaluation has done is on disk: `evaluations/{id}/` below the home has its plan, and a file of each
training with what was read after it. What is there is not done again; a training that was cut off left
nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datapruner.evaluation.plan import Plan
from datapruner.evaluation.tasks import Scores
from datapruner.system.files import clear_unfinished, publishing, write_json
from datapruner.tuning.training import Trained

Losses = dict[str, NDArray[np.float64]]
Truths = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """A training and what was read after it: `nll` by held-out set, and `correct` by those whose answers were
    compared, `tasks` by those of lm-eval. tokens: of its rows. seconds: it took."""

    trained: Trained
    tokens: int
    seconds: float
    nll: Losses
    correct: Truths
    tasks: Scores


class Store:
    """The folder of one evaluation."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        clear_unfinished(folder)

    def plan(self) -> Plan | None:
        """The plan that was kept."""
        path = self._folder / "plan.json"
        return Plan(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def keep_plan(self, plan: Plan) -> None:
        """Have `plan()` return this from now on."""
        write_json(self._folder / "plan.json", asdict(plan))

    def get(self, arm: str, seed: int, rate: float) -> Done | None:
        """A training that was done."""
        path = self._path(arm, seed, rate)
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            losses = {name: arrays[f"nll/{at}"] for at, name in enumerate(about["sets"])}
            correct = {name: arrays[f"correct/{at}"] for at, name in enumerate(about["answered"])}
        trained = Trained(**about["trained"])
        return Done(trained, about["tokens"], about["seconds"], losses, correct, about["tasks"])

    def put(self, arm: str, seed: int, rate: float, done: Done) -> None:
        """Keep a training, whole or not at all."""
        about = {
            "trained": asdict(done.trained),
            "tokens": done.tokens,
            "seconds": done.seconds,
            "sets": list(done.nll),
            "answered": list(done.correct),
            "tasks": done.tasks,
        }
        arrays: dict[str, Any] = {f"nll/{at}": values for at, values in enumerate(done.nll.values())}
        arrays |= {f"correct/{at}": values for at, values in enumerate(done.correct.values())}
        with publishing(self._path(arm, seed, rate)) as file:
            np.savez(file, about=np.array(json.dumps(about)), **arrays)

    def _path(self, arm: str, seed: int, rate: float) -> Path:
        return self._folder / f"{arm}-{seed}-{rate:g}.npz"
