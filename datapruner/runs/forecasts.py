"""Forecasts: kept in the home until the run that they are of, and then beside it with what came of them.

`plans/{id}.json` is the last forecast of a request, `runs/{run}/forecast.json` how far it was off. The
request is what decides the work: the rows by their content, the methods with their options, the models, how
much to keep; not what the rows' file is called, nor what measures them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from pydantic import ValidationError

from datapruner.corpora.corpus import Corpus
from datapruner.errors import InputError
from datapruner.measuring.measure import Machine
from datapruner.measuring.signal_cache import ProxyKey, SignalCache
from datapruner.request.config import RunConfig
from datapruner.runs import folders
from datapruner.runs.published import Run
from datapruner.schemas.plans import Expected, Outcome, Plan, Settled
from datapruner.system.files import publishing
from datapruner.validation import first_problem

_FILE = "forecast.json"
_NOT_OURS = {"source", "target", "mapping", "engine"}
"""Settings that say where rows are and where they are measured, not what they hold and what comes of it."""


def plan_id(corpus: Corpus, targets: Sequence[Corpus], config: RunConfig) -> str:
    """What a request is known by, before and after it was done."""
    return _id(corpus.path.stem, [each.path.stem for each in targets], config)


def _id(corpus: str, targets: Sequence[str], config: RunConfig) -> str:
    asked = config.model_dump(mode="json", exclude=_NOT_OURS)
    document = {"corpus": corpus, "targets": list(targets), "config": asked}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def keep(plan: Plan, home: Path) -> Path:
    """Store a forecast for the run that it is of; an earlier one of the same request is replaced. Raises
    OSError."""
    path = home / "plans" / f"{plan.id}.json"
    path.parent.mkdir(exist_ok=True)
    with publishing(path) as file:
        file.write(plan.model_dump_json(indent=2).encode() + b"\n")
    return path


def of_run(run: Run, home: Path) -> Plan | None:
    """The forecast of the request that a run did; None when there is none that can be read."""
    targets = [each["corpus"] for each in run.lineage.get("target", ())]
    path = home / "plans" / f"{_id(run.lineage['corpus'], targets, run.config)}.json"
    try:
        return Plan.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def settle(run: Run, home: Path, seconds: float, machine: Machine) -> Settled | None:
    """How far the forecast of a run was off, which is kept beside it; None where there was none, or where
    the run found measured what was forecast to be measured: what is beside it then stays.

    `seconds`: that its passes took on this machine. Raises OSError.
    """
    plan = of_run(run, home)
    if plan is None:
        return None
    missing = sum(each.missing for each in plan.passes if each.by_sample)
    if missing and not run.measured:
        return None
    found = Settled(
        plan=plan.id,
        created_at=plan.created_at,
        outcomes=list(_outcomes(plan, run, home)),
        notes=[],
    )
    if plan.seconds is None or plan.probe is None:
        pass
    elif run.measured != missing:
        why = f"{run.measured:,} readings of samples were done where {missing:,} were forecast"
        found.notes.append(f"seconds are not compared: {why}")
    elif (where := _elsewhere(plan.probe.device, machine)) is not None:
        found.notes.append(f"seconds are not compared: forecast on {plan.probe.device}, done on {where}")
    else:
        found.outcomes.append(_outcome("measuring", "s", plan.seconds, seconds))
        loads = f"{plan.probe.load:.1f} when rows were tried and {os.getloadavg()[0]:.1f} at its end"
        found.notes.append(f"seconds depend on what else the machine does: its load was {loads}")
    with publishing(run.folder / _FILE) as file:
        file.write(found.model_dump_json(indent=2).encode() + b"\n")
    return found


def _elsewhere(device: str, machine: Machine) -> str | None:
    """Where a run measured, if that is not the kind of device that rows were tried on."""
    if machine.cluster is not None:
        return "a Ray cluster"
    done = machine.devices[0]
    return None if done.partition(":")[0] == device.partition(":")[0] else done


def read(folder: Path) -> Settled | None:
    """What came of the forecast of the run in `folder`; None where it had none. Raises InputError."""
    path = folder / _FILE
    if not path.is_file():
        return None
    try:
        return Settled.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        why = first_problem(error, "document").message if isinstance(error, ValidationError) else str(error)
        raise InputError(
            f"{path}: not what came of a forecast: {why}", remedy="remove it; it changes nothing of the run"
        ) from error


def _outcomes(plan: Plan, run: Run, home: Path) -> Iterator[Outcome]:
    report = run.report
    with Corpus(folders.corpus(run.lineage, home)) as corpus:
        index = corpus.sample_index()
    samples = index.filter(pl.col("duplicate_of").is_null())["sample_id"]
    yield _outcome("samples", "samples", Expected.counted(plan.samples), len(samples))
    if plan.passes:
        cache, ids = _measured(run.lineage["proxy"], home, samples)
        counts = cache.columns(ids.to_list(), ["n_tokens", "n_response_tokens"])
        yield _outcome("tokens", "tokens", plan.tokens, int(counts["n_tokens"].sum()))
        responses = int(counts["n_response_tokens"].sum())
        yield _outcome("response tokens", "tokens", plan.response_tokens, responses)
        yield _outcome("signals on disk", "bytes", plan.signals_bytes, _bytes(run, home, samples))
    if plan.kept_rows is not None:
        yield _outcome("rows kept", "rows", plan.kept_rows, report.kept)
        if plan.kept_tokens is not None and plan.passes:
            kept = counts.join(_kept(run), on="sample_id", how="semi")
            yield _outcome("tokens of rows kept", "tokens", plan.kept_tokens, int(kept["n_tokens"].sum()))


def _outcome(what: str, unit: str, forecast: Expected, measured: float) -> Outcome:
    error = None if not forecast.value else (measured - forecast.value) / forecast.value
    return Outcome(
        what=what,
        unit=unit,
        forecast=forecast,
        measured=float(measured),
        error=error,
        held=forecast.holds(measured),
    )


def _kept(run: Run) -> pl.DataFrame:
    with duckdb.connect(str(run.database), read_only=True) as connection:
        found = connection.sql("SELECT DISTINCT sample_id FROM sample_scores WHERE keep").to_arrow_table()
    frame = pl.from_arrow(found)
    assert isinstance(frame, pl.DataFrame), type(frame)
    return frame


def _measured(proxy: Mapping[str, Any], home: Path, ids: pl.Series) -> tuple[SignalCache, pl.Series]:
    """A cache by its key's document, and those of these samples that it has signals of."""
    cache = SignalCache(home, ProxyKey(**proxy))
    return cache, cache.status(ids).filter(pl.col("error").is_null())["sample_id"]


def _bytes(run: Run, home: Path, samples: pl.Series) -> int:
    """Of the signals of all the run's passes."""
    lineage = run.lineage
    views: Mapping[str, Any] = {view: each["proxy"] for view, each in lineage.get("views", {}).items()}
    of_corpus = [lineage["proxy"], *(key for view, key in views.items() if view != "target")]
    of_corpus += [lineage[name] for name in ("embedder", "reward_model") if name in lineage]
    reads = [(key, samples) for key in of_corpus]
    for target in lineage.get("target", ()) if "target" in views else ():
        with Corpus(home / "corpora" / f"{target['corpus']}.duckdb") as corpus:
            index = corpus.sample_index()
        reads.append((views["target"], index.filter(pl.col("duplicate_of").is_null())["sample_id"]))
    found = 0
    for key, ids in reads:
        found += SignalCache(home, ProxyKey(**key)).held_bytes(ids)
    return found
