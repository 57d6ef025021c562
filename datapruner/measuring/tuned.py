"""The proxy model after a short tuning on the target set: what the reference model `tuned` of a run is.

An adapter (LoRA) is trained for some steps and made one with the weights. The model is kept in the home, in
`tuned/{key}`, with what came of the tuning in `tuned.json`, and measures as any other does. Whatever decides
it is in the key: the proxy's files, the rows, the steps, the seed.

Notable choices:
- steps bound it, so that the same request gives the same bytes on a processor; the seconds are there for
  machines that are slow. A tuning that they cut short says so, and is another model: signals are kept by what
  the model's files are, not by this key;
- every step has eight rows, pass after pass over the target set in an order drawn by the seed. Of a large set
  only the rows that are drawn are read;
- the loss is told before and after, on those rows. It says whether the tuning took, not how well it
  generalises;
- the folder appears whole when it is done. Of a tuning that was broken off nothing stays, and it begins anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from filelock import FileLock

from datapruner.corpora.corpus import Corpus
from datapruner.errors import NothingSurvivedError
from datapruner.measuring.measure import Machine, Pass, proxy_for, worker_spec
from datapruner.measuring.workers import local
from datapruner.measuring.workers.spec import wire
from datapruner.measuring.workers.start import START
from datapruner.progress import Count, Progress
from datapruner.request.config import TUNE_SECONDS, TUNE_STEPS, RunConfig

VERSION = 1
"""Raised whenever the same request would give another model; part of the key."""

WORKER = (*START, "tuner")
ROWS_A_STEP, RATE = 8, 5e-4
_RECORD = "tuned.json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a tuning. rows: of the target set, that were trained on; unread: that could not be.
    loss_before, loss_after: nats a response token, on those rows."""

    steps: int
    steps_asked: int
    rows: int
    unread: int
    trained_tokens: int
    loss_before: float
    loss_after: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """A tuned model, and what came of tuning it. source: what it was made of, in words. drawn: of each target
    set, how many samples it was to be tuned on."""

    path: Path
    source: str
    outcome: Outcome
    drawn: tuple[int, ...]

    @property
    def lineage(self) -> dict[str, Any]:
        """What a run says of it: all but how long it took, which is another time every time."""
        return {name: value for name, value in asdict(self.outcome).items() if name != "seconds"}

    @property
    def text(self) -> str:
        """What came of it, in a line."""
        was = self.outcome
        return (
            f"tuned on {was.rows:,} rows of the target set in {was.steps} steps: "
            f"{was.loss_before:.4g} nats a token before, {was.loss_after:.4g} after"
        )

    @property
    def warnings(self) -> list[str]:
        """What to mind of it."""
        was, found = self.outcome, []
        if was.loss_after >= was.loss_before:
            found.append(
                f"tuning on the target set did not lower its loss ({was.loss_before:.4g} nats a token "
                f"before, {was.loss_after:.4g} after): what it prefers is not what is like the target"
            )
        if was.steps < was.steps_asked:
            found.append(
                f"tuning on the target set stopped short, for time, after {was.steps} of {was.steps_asked} "
                "steps: another machine may get further; give more tune_seconds, or fewer tune_steps"
            )
        if was.unread:
            found.append(f"{was.unread:,} rows of the target set could not be read, and were not tuned on")
        return found


def tune(
    config: RunConfig, targets: Sequence[Corpus], home: Path, machine: Machine, progress: Progress
) -> Tuned:
    """The proxy model tuned on the target sets together as `config` says, kept in `home` and made once.

    Raises ModelError when the model cannot be used or its loss is no number after, UsageError when no row can
    be read, NothingSurvivedError when there are none, WorkerError.
    """
    base = proxy_for(config.measuring, machine.models or home, machine.devices)
    steps = config.measuring.tune_steps or TUNE_STEPS
    seconds = config.measuring.tune_seconds or TUNE_SECONDS
    index = pl.concat(
        each.sample_index().select("sample_id", "row").with_columns(set=pl.lit(number))
        for number, each in enumerate(targets)
    )
    index = index.unique("sample_id", keep="first", maintain_order=True).sort("sample_id")
    if index.is_empty():
        raise NothingSurvivedError("the target set has no row to tune on", remedy="name another")
    drawn = _drawn(len(index), steps, config.seed)
    rows = np.unique(np.concatenate(drawn))
    chosen = index[rows]
    ids = chosen["sample_id"].to_list()
    places = [np.searchsorted(rows, each).tolist() for each in drawn]
    about = {
        "steps": places,
        "rate": RATE,
        "seed": config.seed,
        "seconds": seconds,
    }
    folder = home / "tuned"
    path = folder / _key(base, ids, about, machine.devices[0])
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{path.name}.lock"):
        if not _whole(path):
            shutil.rmtree(path, ignore_errors=True)
            samples = _samples(targets, chosen)
            _run([samples[sample_id] for sample_id in ids], about, path, base, machine, progress)
    outcome = Outcome(**json.loads((path / _RECORD).read_text(encoding="utf-8"))["outcome"])
    source = f"{base.proxy.source}, tuned on {outcome.rows} rows of the target set"
    counts = tuple(int((chosen["set"] == number).sum()) for number in range(len(targets)))
    return Tuned(path, source, outcome, counts)


def _drawn(count: int, steps: int, seed: int) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    """The rows of each step, of so many: pass after pass, each in an order of its own."""
    random, size = np.random.default_rng([seed, count]), min(ROWS_A_STEP, count)
    order = np.concatenate([random.permutation(count) for _ in range(-(-steps * size // count))])
    return np.split(order[: steps * size], steps)


def _key(base: Pass, ids: Sequence[str], about: dict[str, Any], device: str) -> str:
    reads = ("revision", "template_hash", "max_length", "overflow", "train_on")
    decisive = {
        "version": VERSION,
        "proxy": {name: getattr(base.key, name) for name in reads},
        "ids": ids,
        "device": device.partition(":")[0],
        **about,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def _whole(path: Path) -> bool:
    """Whether a tuned model is there with all its files, of which whoever cleans up may have taken some."""
    try:
        files = json.loads((path / _RECORD).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return False
    return all((path / name).is_file() for name in files)


def _samples(targets: Sequence[Corpus], chosen: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """The chosen samples in wire form, by their ids."""
    return {
        sample_id: wire(sample_id, conversation)
        for number, each in enumerate(targets)
        for batch in each.conversations(chosen.filter(set=number)["row"].sort().to_list())
        for _, sample_id, conversation in batch
    }


def _run(
    samples: list[dict[str, Any]],
    about: dict[str, Any],
    path: Path,
    base: Pass,
    machine: Machine,
    progress: Progress,
) -> None:
    task = local.Task(samples, path.parent, about=about, name=path.name, whole=True)
    spec = replace(worker_spec(base, machine), tied=False, lora=False, renderers=0)
    progress.stage("tuning on the target set", len(about["steps"]), "steps")
    count = Count(progress, "loading the model")
    # Not in place of a process that loads the proxy model already: that one is wanted right after.
    failed = machine.run(spec, [task], count, WORKER, machine.devices[:1])
    assert not failed, "a task succeeds as a whole or ends the measuring"
