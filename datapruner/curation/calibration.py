"""Which rows to calibrate a model's compression with: the batch after which it has changed least.

Quantisation and pruning look at a small batch of samples to decide what a model can do without. Candidate
batches are drawn from the corpus, the model is compressed with each, and KL(original || compressed) measured
on samples that are in no batch (NIRVANA, arXiv 2509.14230; `scorers.signals.calibration_kl`).

Notable choices:
- the result is a verdict on every row, as of the other steps that need no score: the batch chosen is what is
  kept;
- only the samples drawn are measured; one that cannot be is replaced by the next of the draw, and so is one
  that reads, token by token, as another;
- the draw depends on the seed and the samples' ids, not on their order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import polars as pl

from datapruner import validation
from datapruner.corpora import store
from datapruner.corpora.corpus import Corpus
from datapruner.curation import verdicts
from datapruner.curation.verdicts import Verdicts
from datapruner.errors import UsageError
from datapruner.home import made_home
from datapruner.measuring import engine as engines
from datapruner.measuring.measure import Machine, Pass, measure, proxy_for, worker_spec
from datapruner.measuring.signal_cache import SignalCache
from datapruner.measuring.workers import local
from datapruner.measuring.workers.start import START
from datapruner.progress import Count, Progress, Silent
from datapruner.request.config import Engine, Reading, ReadingSettings
from datapruner.request.parts import Calibrate, Seed
from datapruner.system.files import unfinished
from datapruner.system.panics import contained
from scorers.column import Column
from scorers.selection.ranking import draws

COLUMNS = (
    Column(
        "calibration_batch",
        "number of the candidate batch, -1 for a sample in none",
        "selection",
        "whole",
        at_least=-1,
    ),
    Column(
        "calibration_kl",
        "KL(original || compressed with its batch); NaN in none",
        "selection",
        unit="nats a token",
        at_least=0,
    ),
)
"""What a recipe's calibration adds to the scores."""

WORKER = (*START, "calibrator")
_ROOM_FOR_FAILURES = 1.1


class Draw(Calibrate):
    """What may be set where nothing but the calibration is wanted."""

    seed: Seed = 0


@contained()
def calibrate(
    source: Any,
    *,
    batches: int = 8,
    size: int = 16,
    held_out: int = 32,
    sparsity: float = 0.5,
    seed: int = 0,
    mapping: Mapping[str, str] | None = None,
    device: str = "auto",
    engine: Engine | None = None,
    ray_address: str | None = None,
    home: str | Path | None = None,
    progress: Progress | None = None,
    **reading: Unpack[ReadingSettings],
) -> Verdicts:
    """The best of `batches` candidate batches of `size` samples to calibrate compression with.

    Compression zeroes the share `sparsity` of each layer's weights (Wanda); what that changes is measured on
    `held_out` samples. The verdicts' table has, of samples in a batch, its number `calibration_batch` and
    `calibration_kl` in nats a token; rows of the best batch are kept. The other arguments are those of
    `prune`; `reading`: the fields of `datapruner.request.config.Reading`.

    Raises UsageError, also when there are too few samples, InputError, ModelError, WorkerError.
    """
    draw = validation.made(Draw, batches=batches, size=size, held_out=held_out, sparsity=sparsity, seed=seed)
    measuring = validation.made(Reading, **reading)
    place, listener = made_home(home), progress or Silent()
    engines.asked(engine, ray_address)
    machine = engines.machine_on(device, engine, ray_address)
    with Corpus(store.ingest_to(source, mapping or {}, place, listener)) as corpus:
        listener.stage("finding the proxy model", None, "steps")
        wanted = proxy_for(measuring, place, machine.devices)
        chosen, unfit = _chosen(corpus, draw, draw.seed, wanted, place, machine, listener)
        found = divergences(chosen, draw, wanted, place, machine, listener)
        about = {**draw.model_dump(), "proxy": wanted.key.document()}
        return _settled(corpus, chosen["sample_id"].to_list(), unfit, draw, found, about)


def drawn(ids: Sequence[str], seed: int) -> list[str]:
    """The samples in the order in which they are drawn, whatever order they come in."""
    found = np.sort(np.array(ids, dtype=np.str_))
    order: list[str] = found[np.argsort(draws(found, seed), kind="stable")].tolist()
    return order


def distinct(cache: SignalCache, ids: Sequence[str]) -> pl.DataFrame:
    """Of these measured samples those that do not read like one before: sample_id, input_ids, position."""
    tokens = cache.columns(ids, ["input_ids", "position"])
    return tokens.unique("input_ids", keep="first", maintain_order=True)


def first_distinct(cache: SignalCache, order: Sequence[str], draw: Calibrate) -> pl.DataFrame:
    """The first `draw.samples` of these samples, likewise. Raises UsageError when there are fewer."""
    taken = draw.samples
    while len(found := distinct(cache, order[:taken])) < draw.samples:
        if taken >= len(order):
            raise _too_few(draw, len(found))
        taken *= 2
    return found.head(draw.samples)


def _too_few(draw: Calibrate, found: int) -> UsageError:
    return UsageError(
        f"{draw.batches} batches of {draw.size} and {draw.held_out} held out make {draw.samples} samples, "
        f"but there are only {found} that can be used",
        remedy="ask for fewer",
        field="calibrate",
    )


def _chosen(
    corpus: Corpus,
    draw: Calibrate,
    seed: int,
    wanted: Pass,
    home: Path,
    machine: Machine,
    progress: Progress,
) -> tuple[pl.DataFrame, dict[str, str]]:
    """The samples drawn (sample_id, input_ids, position), those of the first batch first, and why others,
    by their ids, cannot be used."""
    index = corpus.sample_index().filter(pl.col("duplicate_of").is_null())
    order = drawn(index["sample_id"].to_list(), seed)
    unfit: dict[str, str] = {}
    taken = 0
    while True:
        lacking = draw.samples + len(unfit) - taken
        taken = min(len(order), taken + int(lacking * _ROOM_FOR_FAILURES) + 1)
        tried = order[:taken]
        measured = measure(corpus, wanted, home, machine, progress=progress, without=order[taken:])
        unfit = {sample_id: measured.errors[sample_id] for sample_id in tried if sample_id in measured.errors}
        sound = [sample_id for sample_id in tried if sample_id not in unfit]
        different = distinct(measured.cache, sound)
        for sample_id in set(sound) - set(different["sample_id"]):
            unfit[sample_id] = "it reads as the same tokens as another sample"
        if len(different) >= draw.samples:
            return different.head(draw.samples), unfit
        if taken == len(order):
            raise _too_few(draw, len(different))


def divergences(
    chosen: pl.DataFrame,
    draw: Calibrate,
    wanted: Pass,
    home: Path,
    machine: Machine,
    progress: Progress,
) -> list[float]:
    """KL of each batch, nats a token.

    chosen: `draw.samples` lines of `distinct`, those of the first batch first and those held out last. home:
    a folder to write in, that every process sees.
    Raises ModelError and WorkerError.
    """
    everything = range(draw.samples)
    starts = range(0, draw.batches * draw.size, draw.size)
    about = {
        "batches": [list(everything[start : start + draw.size]) for start in starts],
        "held_out": list(everything[draw.batches * draw.size :]),
        "sparsity": draw.sparsity,
    }
    samples = chosen.rename({"sample_id": "id"}).to_dicts()
    progress.stage("trying batches", draw.batches, "batches")
    count = Count(progress)
    task = local.Task(samples, home, about=about, name=unfinished(Path("divergence.json")).name, whole=True)
    try:
        failed = machine.run(worker_spec(wanted, machine), [task], count, WORKER, machine.devices[:1])
        assert not failed, "a task succeeds as a whole or ends the measuring"
        found: list[float] = json.loads(task.out.read_bytes())
    finally:
        task.out.unlink(missing_ok=True)
    return found


def batch_of(draw: Calibrate) -> list[int | None]:
    """The batch of each sample drawn, None for one that is held out."""
    return [*(at // draw.size for at in range(draw.batches * draw.size)), *([None] * draw.held_out)]


def why_not(batch: int | None, best: int) -> str | None:
    """Why a sample that was drawn is not kept, None for one that is."""
    if batch is None:
        return "held out, to measure on"
    return None if batch == best else f"batch {batch} changes the model more than batch {best} does"


def _settled(
    corpus: Corpus,
    ids: Sequence[str],
    unfit: Mapping[str, str],
    draw: Calibrate,
    divergence: Sequence[float],
    about: Mapping[str, Any],
) -> Verdicts:
    """The verdicts on all rows: the best batch is kept."""
    best = int(np.argmin(divergence))
    batch = batch_of(draw)
    lines = pl.DataFrame(
        {
            "sample_id": ids,
            "calibration_batch": batch,
            "calibration_kl": [None if at is None else divergence[at] for at in batch],
            "why": [why_not(at, best) for at in batch],
        },
        schema={
            "sample_id": pl.String,
            "calibration_batch": pl.Int64,
            "calibration_kl": pl.Float64,
            "why": pl.String,
        },
    )
    index = corpus.sample_index().select("row", "sample_id", "duplicate_of")
    reasons = {sample_id: f"cannot be used: {reason}" for sample_id, reason in unfit.items()}
    copy = pl.format("exact duplicate of row {}", "duplicate_of")
    judged = index.join(lines, on="sample_id", how="left", maintain_order="left").with_columns(
        reason=pl.when(pl.col("duplicate_of").is_not_null())
        .then(copy)
        .when(pl.col("sample_id").is_in(list(ids)))
        .then("why")
        .otherwise(pl.col("sample_id").replace_strict(reasons, default=NOT_DRAWN, return_dtype=pl.String))
    )
    dropped = judged.filter(pl.col("reason").is_not_null()).select("row", "reason")
    settings = {**about, "best": best, "divergence": list(divergence)}
    notes = {"samples tried": draw.batches * draw.size, "samples held out": draw.held_out}
    found = verdicts.settled("calibration", corpus, dropped, settings, notes)
    own = judged.filter(pl.col("duplicate_of").is_null()).select("row", "calibration_batch", "calibration_kl")
    return replace(found, table=found.table.join(own, on="row", how="left", maintain_order="left"))


NOT_DRAWN = "not drawn"
