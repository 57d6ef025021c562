"""The stages of a recipe around measuring and scoring: what is dropped before, the filter, the calibration.

Notable choices:
- duplicates and contamination are judged first, and what they drop is never measured; a sample that both
  would drop is a duplicate;
- an exact copy stays the copy of its first row, whatever becomes of that;
- the filter reads the scores that the methods give to all measured samples. What it leaves is scored anew:
  a score that depends on the company, such as DONOD's, must not know the samples that are gone;
- of a run that only rewrites, a sample needs the proxy model's signals when the rewriter or the filter reads
  them; without, such a run starts no measuring process;
- where nothing reads the model, samples are tokenised and no model is loaded: the columns that it would fill
  are null, unless it has read all of them before.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from datapruner.corpora.corpus import Corpus
from datapruner.curation import calibration, contamination, duplicates, gate
from datapruner.curation.contamination import EvaluationSet
from datapruner.curation.verdicts import Verdicts
from datapruner.errors import NothingSurvivedError, UsageError
from datapruner.measuring.measure import Machine, Measurement, Pass
from datapruner.progress import Progress
from datapruner.query.sandbox import run_sql
from datapruner.request import needs
from datapruner.request.config import RunConfig, find
from datapruner.request.parts import Contamination, Dedup, Gate
from datapruner.runs import filters, judged
from datapruner.runs.columns import COLUMNS, COUNTS, MEASURED
from datapruner.runs.reasons import CALIBRATED, FILTERED
from datapruner.runs.selection import Scored
from scorers.method import Method, Selection
from scorers.methods import registry
from scorers.methods.topsis_columns import NAME as TOPSIS
from scorers.signals.columns import Bools, Signals, reads_proxy

_SHAPES: Mapping[str, pa.DataType] = {"shape": pa.string(), "n_turns": pa.int64(), "n_chars": pa.int64()}
_TYPES = {"real": pa.float64(), "whole": pa.int64(), "text": pa.string(), "truth": pa.bool_()}

_BY_MODEL = re.compile(rf"\b({'|'.join(MEASURED.keys() - COUNTS)})\b", re.IGNORECASE)
"""The columns that only the model can fill, where a filter may read them."""

Evaluations = Callable[[str], Any]
"""The rows of an evaluation set, by what the configuration calls their source."""

Compared = dict[str, dict[str, Any]]
"""What tells whether evaluation sets are the same as in another run, by their names."""


def check(config: RunConfig, *, has_target: bool, ask: filters.Ask = run_sql) -> None:
    """Raise UsageError, naming the setting, for what can be known to be wrong before anything is read."""
    _check_columns(find(choice.name) for choice in config.methods)
    needs.check(config, has_target=has_target)
    if config.rewrite is not None:
        from datapruner.rewriting import rows  # few runs do, and its libraries take time

        try:
            rows.check(config.rewrite)
        except UsageError as error:
            inner = (
                error.field if error.field in ("method", "pattern", "options") else f"options.{error.field}"
            )
            raise UsageError(error.message, remedy=error.remedy, field=f"rewrite.{inner}") from error
    if config.filter is not None:
        filters.check(config.filter, _filtered_by(config), ask=ask)


def reads_signals(config: RunConfig) -> bool:
    """Whether samples are to be measured: for methods, the filter, or what rewrites. Raises UsageError."""
    return bool(config.methods) or judges_signals(config) or _rewriting_asks(config) == "proxy"


def judges_signals(config: RunConfig) -> bool:
    """Whether a stage before scoring judges samples by what was measured."""
    return config.filter is not None or (config.gate is not None and config.gate.reads_model)


def reads_model(config: RunConfig) -> bool:
    """Whether the proxy model has to read the samples that are measured; else their tokens are enough. Raises
    UsageError."""
    return (
        any(map(reads_proxy, needs.needs(config.methods, config.combine)))
        or config.calibrate is not None
        or (config.gate is not None and config.gate.reads_model)
        or (config.filter is not None and _BY_MODEL.search(config.filter) is not None)
        or _rewriting_asks(config) == "proxy"
    )


def asks_teacher(config: RunConfig) -> bool:
    """Whether what is kept is rewritten by a teacher. Raises UsageError."""
    return _rewriting_asks(config) == "teacher"


def _rewriting_asks(config: RunConfig) -> str | None:
    """Whom rewriting asks, None where nothing is rewritten. Raises UsageError."""
    if config.rewrite is None:
        return None
    from datapruner.rewriting import methods

    return methods.find(config.rewrite.method).asks


def _check_columns(methods: Iterable[Method[Any]]) -> None:
    """Raise UsageError when a method has other plans for a column of every run."""
    for method in methods:
        for column in method.columns:
            ours = COLUMNS.get(column.name)
            if column.place[0] == "sample" and ours is not None and not ours.agrees(column):
                raise UsageError(
                    f"method {method.name} writes the column {column.name}, which is another in every run",
                    remedy="call it otherwise in the method",
                    field="methods",
                )


def _filtered_by(config: RunConfig) -> dict[str, pa.DataType]:
    """The columns that a filter may read."""
    methods = [find(choice.name) for choice in config.methods]
    if any(method.name == TOPSIS for method in methods):  # it shows the scores of whatever it combines
        methods = list(registry.methods().values())
    scores = [column for method in methods for column in method.columns if column.of == "sample"]
    return dict(_SHAPES) | {column.name: _TYPES[column.kind] for column in (*MEASURED.values(), *scores)}


# Before measuring


@dataclass(frozen=True, slots=True)
class Dropped:
    """What was dropped before measuring. reasons: by sample id. notes: of each stage, counts by name.
    evaluations: what the rows were compared with, by name, for the lineage."""

    reasons: dict[str, str] = field(default_factory=dict)
    notes: dict[str, dict[str, int]] = field(default_factory=dict)
    evaluations: Compared = field(default_factory=dict)


def drop(corpus: Corpus, config: RunConfig, evaluations: Evaluations, progress: Progress) -> Dropped:
    """Judge the samples of a corpus by the stages in `JUDGES`. Raises InputError, UsageError."""
    dropped = Dropped()
    for stage, judge in JUDGES.items():
        asked = getattr(config, stage)
        if asked is not None:
            found, compared = judge(corpus, asked, dropped.reasons.keys(), evaluations, progress)
            _add(dropped, corpus, found, config)
            dropped.evaluations.update(compared)
    return dropped


def _defective(
    corpus: Corpus, asked: Gate, _: Collection[str], __: Evaluations, progress: Progress
) -> tuple[Verdicts, Compared]:
    return gate.find(corpus, asked, progress=progress), {}


def _near_duplicates(
    corpus: Corpus, asked: Dedup, gone: Collection[str], _: Evaluations, progress: Progress
) -> tuple[Verdicts, Compared]:
    return duplicates.find(corpus, asked, progress=progress, without=gone), {}


def _contaminated(
    corpus: Corpus, asked: Contamination, _: Collection[str], evaluations: Evaluations, progress: Progress
) -> tuple[Verdicts, Compared]:
    progress.stage("reading evaluation sets", len(asked.against), "sets")
    sets = [
        contamination.evaluation_set(name, evaluations(source), asked.convention)
        for name, source in asked.against.items()
    ]
    found = contamination.find(corpus, sets, asked.convention, progress=progress)
    return found, {each.name: _identity(each) for each in sets}


_Judge = Callable[[Corpus, Any, Collection[str], Evaluations, Progress], tuple[Verdicts, Compared]]
JUDGES: Mapping[str, _Judge] = {
    "gate": _defective,
    "dedup": _near_duplicates,
    "contamination": _contaminated,
}
"""The stages before measuring, in their order: by a corpus, the stage's settings and the samples that are
gone already, a verdict on every row, and with what rows were compared."""


def _add(dropped: Dropped, corpus: Corpus, found: Verdicts, config: RunConfig) -> None:
    """Add what a stage says of the samples that none before it has dropped.

    Where exact copies go in any case, their rows are counted where duplicates are looked for.
    """
    first = corpus.sample_index().filter(pl.col("duplicate_of").is_null()).select("row")
    lines = found.table.filter(status="dropped").join(first, on="row", how="semi", maintain_order="left")
    new = {
        sample_id: reason
        for sample_id, reason in lines.select("sample_id", "reason").iter_rows()
        if sample_id not in dropped.reasons
    }
    dropped.reasons.update(new)
    copies = corpus.counts().duplicates if found.step == "dedup" else 0
    count = _rows_of(new, corpus, config) + copies
    dropped.notes[found.step] = {"dropped": count, **found.notes}


def _rows_of(samples: Collection[str], corpus: Corpus, config: RunConfig) -> int:
    """How many rows go with these samples, by their ids: their copies, too, unless those went before."""
    if not config.keeps_copies:
        return len(samples)
    return corpus.sample_index().filter(pl.col("sample_id").is_in(list(samples))).height


def _identity(each: EvaluationSet) -> dict[str, Any]:
    """What tells whether an evaluation set is the same as in another run."""
    digest = hashlib.sha256()
    for column in (each.grams, each.holders.values, each.holders.offsets, each.row, each.sizes):
        digest.update(np.ascontiguousarray(column).tobytes())
    return {"rows": each.rows, "ngram": each.n, "sha256": digest.hexdigest()}


# Of what was measured


def passed(
    corpus: Corpus, config: RunConfig, chosen: pl.DataFrame, measured: pl.DataFrame, base: Measurement
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The samples that the gate lets through now that they are measured, of these lines of the sample index;
    and the lines of `measured`, `tables.measured_columns` of the same samples, of the others, with a reason.

    Raises NothingSurvivedError.
    """
    assert config.gate is not None, "there is no gate"
    ends = gate.ends(base.cache, chosen["sample_id"].to_list())
    found = gate.of_measured(corpus, chosen["row"].to_list(), measured["ppl"], ends, config.gate)
    reason = pl.Series("reason", [found.get(row) for row in chosen["row"].to_list()], dtype=pl.String)
    if len(found) == len(chosen):
        raise NothingSurvivedError(
            f"the gate leaves none of {len(found):,} samples", remedy=f"the first: {reason[0]}"
        )
    return chosen.filter(reason.is_null()), measured.with_columns(reason).filter(reason.is_not_null())


def filtered(
    config: RunConfig, chosen: pl.DataFrame, measured: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The samples that the filter lets through, of these lines of the sample index, and the others, as in
    `passed`.

    measured: `tables.measured_columns` of the same samples. Raises UsageError, NothingSurvivedError.
    """
    assert config.filter is not None, "there is no filter"
    passes = filters.passing(config.filter, chosen.select(*_SHAPES).hstack(measured.drop("sample_id")))
    if not passes.any():
        raise NothingSurvivedError(
            f"the filter leaves none of {len(passes):,} samples", remedy=f"it is: {config.filter}"
        )
    reason = pl.lit(f"{FILTERED}{config.filter}")
    return chosen.filter(pl.Series(passes)), measured.filter(pl.Series(~passes)).with_columns(reason=reason)


# Of what is kept


def narrowed(
    scored: Scored,
    signals: Signals,
    base: Measurement,
    config: RunConfig,
    machine: Machine,
    progress: Progress,
) -> tuple[Scored, dict[str, dict[str, int]]]:
    """The scores after the stages in `NARROWING`, and what each took away. Raises as they do."""
    counts: dict[str, dict[str, int]] = {}
    for stage, narrow in NARROWING.items():
        if getattr(config, stage) is None:
            continue
        kept = _kept(scored)
        scored = narrow(scored, signals, base, config, machine, progress)
        counts[stage] = {"dropped": int((kept & ~_kept(scored)).sum())}
    return scored, counts


def _kept(scored: Scored) -> Bools:
    assert scored.selection is not None, "nothing was selected"
    return scored.selection.keep


def calibrated(
    scored: Scored,
    signals: Signals,
    base: Measurement,
    config: RunConfig,
    machine: Machine,
    progress: Progress,
) -> Scored:
    """The scores with, of what is kept, the one batch to calibrate with; two columns say which others there
    were: calibration_batch, -1 for none, and its calibration_kl in nats a token, NaN for none.

    Raises UsageError when too few are kept, ModelError and WorkerError.
    """
    selection, draw = scored.selection, config.calibrate
    assert selection is not None, "nothing was selected"
    assert draw is not None, "there is nothing to calibrate"
    order = calibration.drawn(signals.ids[selection.keep].tolist(), config.seed)
    chosen = calibration.first_distinct(base.cache, order, draw)
    wanted = Pass(base.proxy, base.cache.key)
    found = calibration.divergences(chosen, draw, wanted, base.cache.folder, machine, progress)
    best = int(np.argmin(found))
    place = {sample_id: index for index, sample_id in enumerate(signals.ids.tolist())}
    batch, divergence = np.full(len(signals), -1), np.full(len(signals), np.nan)
    keep, reason = np.zeros(len(signals), dtype=np.bool_), selection.reason.copy()
    told = [*selection.reasons, f"{CALIBRATED}{calibration.NOT_DRAWN}"]
    reason[selection.keep] = len(told) - 1
    numbers: dict[str, int] = {}
    for sample_id, number in zip(chosen["sample_id"], calibration.batch_of(draw), strict=True):
        at, why = place[sample_id], calibration.why_not(number, best)
        text = f"{CALIBRATED}{why or f'batch {best}, which changes the model least'}"
        reason[at] = numbers.setdefault(text, len(told) + len(numbers))
        keep[at] = why is None
        if number is not None:
            batch[at], divergence[at] = number, found[number]
    thresholds = {**selection.thresholds, "calibration_kl": found[best]}
    changed: Selection = replace(
        selection, keep=keep, reason=reason, reasons=(*told, *numbers), thresholds=thresholds
    )
    columns = {"calibration_batch": batch, "calibration_kl": divergence}
    return replace(scored, samples=scored.samples | columns, selection=changed)


_Narrow = Callable[[Scored, Signals, Measurement, RunConfig, Machine, Progress], Scored]
NARROWING: Mapping[str, _Narrow] = {"calibrate": calibrated}
"""The stages that keep a part of what is kept, in their order."""


def dropped_by(
    corpus: Corpus,
    config: RunConfig,
    before: Dropped,
    left_out: Mapping[str, pl.DataFrame],
    selected: Scored,
    after: Mapping[str, dict[str, int]],
) -> dict[str, dict[str, int]]:
    """Rows that each stage up to rewriting took away, and what else there is to count of it.

    `left_out` are the lines of `passed` and `filtered` by their stages, `selected` the scores before
    `narrowed`, and `after` what that counted. Nothing of a run that only selects: its report says it all.
    """
    counts = {stage: dict(notes) for stage, notes in before.notes.items()}
    for stage, lines in left_out.items():
        count = _rows_of(lines["sample_id"].to_list(), corpus, config)
        if stage == "gate":
            counts[stage]["dropped"] += count
            of_ends = lines.filter(pl.col("reason").str.contains(gate.UNEXPECTED, literal=True)).height
            counts[stage] |= {"gibberish": len(lines) - of_ends, "unexpected ends": of_ends}
        else:
            counts[stage] = {"dropped": count}
    if selected.selection is None or not (counts or after or config.rewrite):
        return counts
    return {**counts, "keep": {"dropped": int((~selected.selection.keep).sum())}, **after}


def needed_teacher(config: RunConfig, given: Any = None, *, store: Path | None = None) -> Any:
    """When methods or rewriting ask a teacher the one that is given, or else that of this machine's
    environment; else None. Raises UsageError.

    `store` is where the environment's keeps its answers, by default with those of all runs.
    """
    if not (judged.asked(config) or _rewriting_asks(config) == "teacher"):
        return None
    if given is not None:
        return given
    from datapruner.teacher.client import Teacher
    from datapruner.teacher.settings import load

    return Teacher(load(), store=store)
