"""A forecast of a run: what it will read, how long that takes here and elsewhere, and whether it pays.

    rows            counted: the rows are ingested, as a run would, which then finds them
    tokens          counted, or estimated from some thousand rows (`passes`)
    seconds         a few hundred rows go through the same processes (`probe`)
    signals         bytes of the shards that those rows made
    other devices   by published peaks; other model sizes, by their parameters: neither is measured

Notable choices:
- what a stage of a recipe drops is not known without doing it, and is counted as read and as there to keep;
- rows are tried on this machine, whatever engine the run is to have;
- nothing is priced unless a price is given.
"""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import numpy as np

from datapruner.corpora.corpus import Corpus
from datapruner.errors import UsageError
from datapruner.judging.rows import all_questions
from datapruner.measuring.measure import Machine, sharing
from datapruner.planning import break_even, devices
from datapruner.planning.devices import Gpus
from datapruner.planning.passes import Planned, Prober, tuning
from datapruner.planning.probe import peak_bytes
from datapruner.progress import Progress
from datapruner.request.config import RunConfig
from datapruner.request.keep import Keep
from datapruner.request.needs import needs
from datapruner.runs import judged, stages
from datapruner.runs.forecasts import plan_id
from datapruner.schemas.plans import Asks, BreakEven, Expected, OnDevice, Pass, Plan, Probe
from datapruner.teacher import estimate
from datapruner.teacher.settings import load
from scorers.shares import count_to_keep

SIZES = {"0.5B": 500_000_000, "1.5B": 1_500_000_000, "7B": 7_000_000_000}
"""Models besides the run's own that hours are told for."""
_KIB = 1024


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a forecast is to tell besides. gpus: as `devices.parse` reads them. train_rate: tokens a second of
    the training, where that is known."""

    gpus: str | None = None
    utilisation: float = devices.UTILISATION
    price: float | None = None
    train_model_size: str | None = None
    epochs: float = 1.0
    train_rate: float | None = None

    def __post_init__(self) -> None:
        for name, value, most in (
            ("utilisation", self.utilisation, 1.0),
            ("price_per_gpu_hour", self.price, 1e9),
            ("epochs", self.epochs, 1e6),
            ("train_tokens_per_second", self.train_rate, 1e12),
        ):
            if value is not None and not 0 < value <= most:
                raise UsageError(f"{name}: must be over 0 and at most {most:g}, not {value:g}", field=name)
        if self.train_rate is not None and self.train_model_size is None:
            raise UsageError(
                "train_tokens_per_second is of a model whose size is not given",
                remedy="give train_model_size too",
                field="train_model_size",
            )


def forecast(
    corpus: Corpus,
    targets: Sequence[Corpus],
    config: RunConfig,
    home: Path,
    machine: Machine,
    wishes: Wishes,
    progress: Progress,
) -> Plan:
    """What a run of `config` over these will take. Raises as measuring does."""
    gpus = None if wishes.gpus is None else _gpus(wishes.gpus, machine)
    size = None if wishes.train_model_size is None else break_even.parse_size(wishes.train_model_size)
    with tempfile.TemporaryDirectory(prefix="datapruner-plan-") as scratch, sharing(machine) as shared:
        prober = Prober(config, home, Path(scratch), shared, progress)
        planned = list(prober.planned(corpus, targets))
    tokens, responses = _tokens(planned)
    kept_rows, kept_tokens = _kept(config.keep, planned, tokens, responses)
    passes = [each.told for each in planned]
    probe = _probe(planned, machine)
    notes = _notes(config, passes, machine)
    asks, told = _asks(corpus, config, progress)
    seconds = _sum([each.seconds for each in passes if each.seconds is not None])
    counts = corpus.counts()
    found = (
        None
        if size is None or kept_tokens is None
        else _break_even(passes, tokens, kept_tokens, seconds, size, wishes)
    )
    return Plan(
        id=plan_id(corpus, targets, config),
        created_at=datetime.now(UTC),
        title=config.title,
        ingested=counts.rows,
        samples=counts.unique,
        duplicates=counts.duplicates,
        rejected=counts.rejected,
        tokens=tokens,
        response_tokens=responses,
        kept_rows=kept_rows,
        kept_tokens=kept_tokens,
        passes=passes,
        asks=asks,
        seconds=seconds,
        signals_bytes=_sum([each.size for each in planned]) + Expected.counted(_held(planned)),
        cached_bytes=_held(planned),
        memory_bytes=_memory(config, counts.unique, responses, probe, machine),
        probe=probe,
        devices=_devices(planned, seconds, machine, gpus, wishes),
        break_even=found,
        notes=[*notes, *told],
    )


def _sum(parts: Sequence[Expected]) -> Expected:
    found = Expected.counted(0)
    for each in parts:
        found += each
    return found


def _held(planned: Sequence[Planned]) -> int:
    return sum(each.held for each in planned)


def _tokens(planned: Sequence[Planned]) -> tuple[Expected, Expected]:
    """Of all samples of the corpus, as the first pass reads them; nothing where nothing is read."""
    if not planned or planned[0].tokens is None:
        return Expected.counted(0), Expected.counted(0)
    return planned[0].tokens.all, planned[0].tokens.responses


def _kept(
    keep: Keep | None, planned: Sequence[Planned], tokens: Expected, responses: Expected
) -> tuple[Expected | None, Expected | None]:
    """Rows that are kept, and the tokens that they are read as: those of rows of the mean length, between
    those of as many of the shortest and of the longest."""
    if keep is None or planned[0].tokens is None or not planned[0].told.samples:
        return None, None
    samples = planned[0].told.samples
    if keep.share is not None:
        rows = Expected.counted(count_to_keep(keep.share, samples))
    elif keep.count is not None:
        rows = Expected.counted(min(keep.count, samples))
    else:
        assert keep.tokens is not None
        share = min(1.0, keep.tokens / responses.value) if responses.value else 0.0
        rows = Expected(value=float(round(samples * share)), low=0.0, high=float(samples))
    sizes = np.sort(planned[0].tokens.each)
    least = float(sizes[: int(rows.low)].sum() / max(1, sizes.sum()))
    most = float(sizes[max(0, len(sizes) - int(rows.high)) :].sum() / max(1, sizes.sum()))
    return rows, Expected(
        value=tokens.value * rows.value / samples, low=tokens.low * least, high=tokens.high * most
    )


def _probe(planned: Sequence[Planned], machine: Machine) -> Probe | None:
    timed = [each.timed for each in planned if each.timed is not None]
    if not timed:
        return None
    return Probe(
        device=machine.devices[0],
        rows=sum(each.rows for each in timed),
        tokens=sum(each.tokens for each in timed),
        seconds=sum(each.spent + each.start for each in timed),
        load=os.getloadavg()[0],
        peak_bytes=peak_bytes() or None,
    )


def _memory(
    config: RunConfig, samples: int, responses: Expected, probe: Probe | None, machine: Machine
) -> int | None:
    """Of the measuring processes as the probe saw them, and here twice the columns that the methods read."""
    if probe is None or probe.peak_bytes is None:
        return None
    wanted = needs(config.methods, config.combine)
    of_tokens = sum(need.split(":")[-2:-1] == ["token"] for need in wanted)
    read = samples * (128 + 8 * (len(wanted) - of_tokens)) + responses.value * 4 * of_tokens
    here = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB
    return round(here + 2 * read + len(machine.devices) * probe.peak_bytes)


def _asks(corpus: Corpus, config: RunConfig, progress: Progress) -> tuple[Asks | None, list[str]]:
    """What a teacher would be asked for ratings and rewriting, and what there is to say of it."""
    wanted, rewriting = judged.asked(config), config.rewrite if stages.asks_teacher(config) else None
    if not wanted and rewriting is None:
        return None, []
    try:
        teacher = load()
    except UsageError as error:
        return None, [f"what a teacher is asked is not known: {error.message}"]
    progress.stage("counting questions", corpus.counts().unique, "samples")
    questions = [all_questions(corpus, wanted, progress)] if wanted else []
    said = ["answers of the teacher are counted at their longest; its waiting is in none of the hours"]
    if rewriting is not None:
        from datapruner.rewriting import rehearsal  # few runs do, and its libraries take time

        questions.append(rehearsal.all_questions(corpus, rewriting, progress))
        said.append(
            "the teacher rewrites what is kept, and is counted as asked of all rows, once each: a second "
            "attempt comes on top"
        )
    found = estimate(chain.from_iterable(questions), teacher)
    names = Asks.model_fields
    return Asks(**{name: getattr(found, name) for name in names}), said


def _notes(config: RunConfig, passes: Sequence[Pass], machine: Machine) -> list[str]:
    found = ["ingest, selection, tables and exports come on top of the hours: seconds for thousands of rows"]
    unknown = [each.what for each in passes if each.seconds is None]
    if unknown:
        found.append(f"not timed, and in none of the hours here: {', '.join(unknown)}")
    uncounted = [each.what for each in passes if each.missing and each.tokens is None]
    if uncounted:
        left_out = "left out of hours by published peaks and of the break-even, as its tokens are not counted"
        found.append(f"{left_out}: {', '.join(uncounted)}")
    if (said := tuning(config)) is not None:
        found.append(said)
    found += _of_stages(config)
    if len(machine.devices) > 1 and stages.reads_model(config):
        found.append(f"one of {len(machine.devices)} devices was tried, and the others are taken to be alike")
    if config.engine == "ray":
        found.append(
            "rows are tried on this machine, not on the Ray cluster: hours are of the devices here; for "
            "others, say how many GPUs of which kind the cluster has"
        )
    return found


def _of_stages(config: RunConfig) -> Iterator[str]:
    """What is not known of the stages of a recipe."""
    dropping = [name for name in (*stages.JUDGES, "filter") if getattr(config, name) is not None]
    if dropping:
        names = ", ".join(dropping)
        yield f"what a stage drops ({names}) is not known: all rows count as read, and as there to keep"
    if config.calibrate is not None:
        samples = f"{config.calibrate.samples:,} samples"
        yield f"calibrating is not timed: compressed copies of the model read up to {samples} once more"
    if config.rewrite is not None:
        yield "rewriting is not timed, and tokens of the rows kept are those before it"


def _gpus(given: str, machine: Machine) -> Gpus:
    found = devices.parse(given)
    if found.kind is None and not machine.devices[0].startswith("cuda"):
        raise UsageError(
            f"gpus: {given} of which kind, as there is none here",
            remedy=f"such as {given}xH100",
            field="gpus",
        )
    return found


def _devices(
    planned: Sequence[Planned], seconds: Expected, machine: Machine, gpus: Gpus | None, wishes: Wishes
) -> list[OnDevice]:
    """Hours here, and on the GPUs that were asked for: for the run's own model, and for other sizes of it,
    which have read nothing yet."""
    base = next((each.told for each in planned if each.told.reads != "tokens"), None)
    if base is None:
        return []
    own = base.parameters or 0
    others = {name: count for name, count in SIZES.items() if count > own} if own else {}
    missing = sum(each.told.flops for each in planned)
    whole = sum(each.told.operations * own * _all_tokens(each) for each in planned)
    here = machine.devices[0].partition(":")[0]
    found: list[OnDevice] = []

    def add(model: str, count: int, device: str, number: int, hours: Expected, said: str) -> None:
        money = None if wishes.price is None or device == "cpu" else hours.times(number * wishes.price)
        found.append(
            OnDevice(
                model=model,
                parameters=count or None,
                device=device,
                count=number,
                hours=hours,
                money=money,
                measured=not said,
                said=said or "measured on a few rows",
            )
        )

    for model, count in {base.model: own, **others}.items():
        by_size = "" if model == base.model else "not measured: in proportion to the parameters"
        flops = whole * count / own if by_size else missing
        if missing or not by_size:  # else nothing was timed that it could be told by
            hours = seconds.times((flops / missing if by_size else 1) / 3600)
            add(model, count, here, len(machine.devices), hours, by_size)
            if gpus is not None and gpus.kind is None:
                share = len(machine.devices) / gpus.count
                said = by_size or "not measured: as many times faster as there are more devices"
                add(model, count, here, gpus.count, hours.times(share), said)
        if gpus is not None and gpus.kind is not None and whole:
            told = devices.said(gpus, wishes.utilisation)
            took = devices.hours(flops, gpus, wishes.utilisation)
            add(model, count, gpus.kind, gpus.count, Expected.counted(took), told)
    return found


def _all_tokens(each: Planned) -> float:
    """Of all samples of a pass, the cached ones too."""
    found = each.told.tokens if each.tokens is None else each.tokens.all
    return 0.0 if found is None else found.value


def _break_even(
    passes: Sequence[Pass], tokens: Expected, kept: Expected, seconds: Expected, size: int, wishes: Wishes
) -> BreakEven:
    if wishes.train_rate is not None:
        return break_even.by_seconds(
            seconds.value,
            tokens.value,
            kept.value,
            rate=wishes.train_rate,
            parameters=size,
            epochs=wishes.epochs,
        )
    scoring = sum(each.flops for each in passes)
    return break_even.by_operations(scoring, tokens.value, kept.value, parameters=size, epochs=wishes.epochs)
