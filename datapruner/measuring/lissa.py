"""Influence by LiSSA for a whole corpus: a signal of samples among others, fitted in a process of its own.

Three phases in the folder `influence/{key}`: the gradient of the risk, LiSSA's steps, and each sample's
inner product with what they arrive at. What ends up there, `influence.parquet`, is found again by every later
run on the same samples with the same model, settings and seed.

Notable choices:
- every phase leaves files as it goes, so that an interrupted run goes on where it was: sums of gradients and
  influences task by task, the estimate every few hundred steps;
- the surrogate is loaded in float32, whatever the signals are measured in: LiSSA adds up thousands of small
  differences;
- steps follow one another and so take one device; the gradients use all there are.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from filelock import FileLock
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from datapruner.corpora.corpus import Corpus
from datapruner.measuring.measure import Machine, Pass, cut, sharing, worker_spec
from datapruner.measuring.signal_cache import shard_name
from datapruner.measuring.workers import local
from datapruner.measuring.workers.spec import WorkerSpec, wire
from datapruner.measuring.workers.start import START
from datapruner.progress import Count, Progress
from datapruner.system.files import publishing

VERSION = 1
"""Raised whenever an influence's value would change; part of the key."""

WORKER = (*START, "influencer")
STEPS_A_TASK = 200
_RESULT = "influence.parquet"


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of a corpus that count, by their ids."""

    corpus: Corpus
    ids: Sequence[str]

    def rows(self) -> dict[str, int]:
        """Row by id, in the order of the ids' text: the same samples are the same, whatever order they came
        in."""
        index = self.corpus.sample_index().filter(pl.col("duplicate_of").is_null())
        wanted = pl.DataFrame({"sample_id": sorted(self.ids)}, schema={"sample_id": pl.String})
        found = wanted.join(index, on="sample_id", how="inner", maintain_order="left")
        return dict(found.select("sample_id", "row").iter_rows())


def influence(
    samples: Samples,
    target: Sequence[Samples],
    settings: dict[str, str],
    wanted: Pass,
    home: Path,
    machine: Machine,
    *,
    seed: int,
    progress: Progress,
) -> NDArray[np.float64]:
    """Influence (N,) of removing each of the samples on their own mean risk, or on that of the target sets.

    settings: of the need (`scorers.methods.dealrec`): risk, steps, damp, scale, layer. Raises UsageError
    when there is no such layer or LiSSA diverges, ModelError and WorkerError.
    """
    aims = target if settings["risk"] == "target" else [samples]
    assert aims, "see check_views()"
    folder = home / "influence" / _key(samples, aims, settings, wanted, seed)
    result = folder / _RESULT
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):  # two runs at once would take the other's files away
        if not result.is_file():
            spec = replace(worker_spec(wanted, machine), **_PLAIN)
            with sharing(machine) as shared:
                _Fit(folder, settings, spec, shared, progress).fit(samples, aims, seed)
    order = pl.DataFrame({"sample_id": samples.ids}, schema={"sample_id": pl.String})
    found = order.join(pl.read_parquet(result, glob=False), on="sample_id", how="left", maintain_order="left")
    values: NDArray[np.float64] = found["influence"].to_numpy()
    return values


def _key(samples: Samples, aims: Sequence[Samples], settings: dict[str, str], wanted: Pass, seed: int) -> str:
    proxy = {name: value for name, value in wanted.key.document().items() if name not in _NOT_OURS}
    aimed_at = [sample_id for each in aims for sample_id in each.ids]
    ids = ["\n".join(sorted(each)) for each in (samples.ids, aimed_at)]
    decisive = {"proxy": proxy, "settings": settings, "seed": seed, "version": VERSION, "ids": ids}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


_PLAIN: dict[str, Any] = {"dtype": "float32", "token_budget": None, "tied": False, "lora": False}
_NOT_OURS = frozenset({"model", "dtype", "tied", "lora", "signal_version"})


@dataclass(frozen=True, slots=True)
class _Fit:
    """One fitting in its folder; `machine` keeps its processes for the next phase."""

    folder: Path
    settings: dict[str, str]
    spec: WorkerSpec
    machine: Machine
    progress: Progress

    def fit(self, samples: Samples, aims: Sequence[Samples], seed: int) -> None:
        """Leave the result in the folder, and nothing else."""
        risk = self._risk(aims)
        along = self._steps(samples, risk, seed)
        shards = self.folder / "influence"
        shards.mkdir(exist_ok=True)
        about = {"do": "influence", "along": str(along), "scale": float(self.settings["scale"])}
        self._each("taking influence", samples, shards, about, ".parquet")
        frame = pl.read_parquet(sorted(shards.glob("[!.]*.parquet")), glob=False)
        frame = frame.select("sample_id", "influence").unique("sample_id").sort("sample_id")
        with publishing(self.folder / _RESULT) as file:
            frame.write_parquet(file)
        for phase in ("risk", "steps", "influence"):
            shutil.rmtree(self.folder / phase)

    def _risk(self, aims: Sequence[Samples]) -> Path:
        """The gradient of the mean risk over these samples."""
        folder = self.folder / "risk"
        mean = folder / "mean.safetensors"
        if mean.is_file():
            return mean
        folder.mkdir(exist_ok=True)
        about = {"do": "gradients"}
        parts = [
            part for aim in aims for part in self._each("gradient of the risk", aim, folder, about, ".part")
        ]
        total = sum(load_file(part)["gradients"] for part in parts) / sum(len(aim.ids) for aim in aims)
        with publishing(mean) as file:
            file.write(save({"gradients": np.asarray(total)}))
        return mean

    def _each(
        self, stage: str, samples: Samples, folder: Path, about: dict[str, Any], ending: str
    ) -> list[Path]:
        """Do a task with all samples, cut as for measuring; the files that the tasks left, in order."""
        rows = sorted(samples.rows().values())
        files: list[Path] = []

        def tasks() -> Iterator[local.Task]:
            for batch in cut(samples.corpus, rows):
                files.append((folder / shard_name([each["id"] for each in batch])).with_suffix(ending))
                if not files[-1].is_file():
                    told = {**about, "layer": self.settings["layer"]}
                    yield local.Task(batch, folder, about=told, name=files[-1].name, whole=True)
                else:
                    count(len(batch))

        self.progress.stage(stage, len(rows), "samples")
        count = Count(self.progress)
        self._run(tasks(), self.machine.devices, count)
        return files

    def _steps(self, samples: Samples, risk: Path, seed: int) -> Path:
        """LiSSA's estimate after the last step, begun at the latest that is there."""
        folder = self.folder / "steps"
        folder.mkdir(exist_ok=True)
        rows = samples.rows()
        ids, steps = list(rows), int(self.settings["steps"])
        drawn = np.random.default_rng(seed).integers(len(ids), size=steps)
        done = max((int(path.stem) for path in folder.glob("[!.]*.safetensors")), default=0)
        self.progress.stage("LiSSA", steps, "steps")
        count = Count(self.progress)
        count(done)

        def tasks() -> Iterator[local.Task]:
            for first in range(done, steps, STEPS_A_TASK):
                some = [ids[i] for i in drawn[first : first + STEPS_A_TASK]]
                texts = {
                    sample_id: wire(sample_id, conversation)
                    for batch in samples.corpus.conversations([rows[sample_id] for sample_id in some])
                    for _, sample_id, conversation in batch
                }
                about = {
                    "do": "steps",
                    "risk": str(risk),
                    "from": str(folder / _at(first)) if first else None,
                    "first": first,
                    "damp": float(self.settings["damp"]),
                    "scale": float(self.settings["scale"]),
                    "layer": self.settings["layer"],
                }
                chosen = [texts[sample_id] for sample_id in some]
                name = _at(min(first + STEPS_A_TASK, steps))
                yield local.Task(chosen, folder, about=about, name=name, whole=True)

        self._run(tasks(), self.machine.devices[:1], count)
        return folder / _at(steps)

    def _run(self, tasks: Iterator[local.Task], devices: Sequence[str], count: Count) -> None:
        failed = self.machine.run(self.spec, tasks, count, WORKER, devices)
        assert not failed, "a task succeeds as a whole or ends the measuring"


def _at(step: int) -> str:
    """Name of the file with the estimate after so many steps."""
    return f"{step:08d}.safetensors"
