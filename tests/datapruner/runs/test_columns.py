"""Every column of a run is described, and what is measured and scored is as its description says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from datapruner.corpora import store
from datapruner.corpora.corpus import Corpus
from datapruner.errors import UsageError
from datapruner.judging.ratings import Ratings
from datapruner.measuring.measure import Machine
from datapruner.measuring.passes import measure_views
from datapruner.measuring.targets import TargetSet
from datapruner.measuring.workers.local import IdleWorkers
from datapruner.progress import Silent
from datapruner.query.pool import SandboxPool
from datapruner.request.config import Measuring, MethodChoice, RunConfig
from datapruner.request.keep import Keep
from datapruner.request.needs import needs
from datapruner.result import Result
from datapruner.runs import judged, published, stages
from datapruner.runs.columns import COLUMNS, TOKEN_COLUMNS, sample_texts, token_texts
from datapruner.runs.selection import score
from datapruner.runs.tables import SCALARS
from scorers.column import Column
from scorers.method import Method
from scorers.methods import registry
from scorers.methods.length import Length
from scorers.signals.columns import DERIVED_SIGNALS, SAMPLE_SIGNALS, TOKEN_SIGNALS, Signals, corpus_settings
from tests.signal_factory import make_signals

by_method = pytest.mark.parametrize("method", registry.OWN, ids=lambda method: method.name)
SHARE = 0.3
OTHERWISE = {
    "tied_grad_norm",
    "tied_grad_dot",
    "batch",
    "judge_complexity",
    "judge_quality",
    "nearest_row",
    "nearest_task",
    "taken_at",
}
"""Columns that are not written by default."""

ROUNDING = 1e-5
DTYPES = {"real": "f", "whole": "iu", "text": "U", "truth": "b"}


@pytest.fixture(scope="module")
def measured(
    first_run: Result,
    home: Path,
    tiny_folder: Path,
    reference_folder: Path,
    target_file: Path,
    reward_folder: Path,
    idle: IdleWorkers,
) -> Signals:
    """What the models say of the corpus: all that some method reads by default, and ratings."""
    choices = [MethodChoice(name=method.name) for method in registry.OWN]
    models = {"reference": str(reference_folder), "reward_model": str(reward_folder)}
    measuring = Measuring(model=str(tiny_folder), **models)
    config = RunConfig(methods=choices, keep=None, measuring=measuring)
    path = store.ingest_to(target_file, {}, home, Silent())
    with Corpus(published.corpus_path(first_run.run, home)) as corpus, Corpus(path) as target:
        machine, targets = Machine(["cpu"], idle=idle), [TargetSet("", target)]
        views = measure_views(corpus, targets, config, home, machine, Silent())
        index = corpus.sample_index().filter(pl.col("duplicate_of").is_null())
        ids = index.filter(~pl.col("sample_id").is_in(list(views.errors)))["sample_id"]
        rated = judged.asked(config)
        wanted = needs(choices) - rated | SCALARS | {"token:el2n", "token:top1", "token:is_end"}
        rating = {sample_id: at % 11 / 2 for at, sample_id in enumerate(ids)}
        return Ratings(dict.fromkeys(rated, rating)).onto(views.signals(ids, wanted))


def assert_in_range(column: Column, values: Any) -> None:
    assert values.dtype.kind in DTYPES[column.kind], column
    if column.kind == "text":
        assert not column.values or set(values.tolist()) <= set(column.values), column
        return
    if column.kind == "real" and column.of == "selection":
        values = values[~np.isnan(values)]
    assert np.isfinite(values).all(), column
    assert column.at_least is None or values.min() >= column.at_least - ROUNDING, (column, values.min())
    assert column.at_most is None or values.max() <= column.at_most + ROUNDING, (column, values.max())


def test_real_signals_lie_where_their_descriptions_say(measured: Signals) -> None:
    assert {"nll", "entropy", "el2n", "head_norm", "n_response_tokens"} <= measured.samples.keys()
    assert {"nll", "position", "el2n", "top1", "is_end"} <= measured.tokens.keys()
    samples = {**SAMPLE_SIGNALS, **DERIVED_SIGNALS}
    for described, found in (samples, measured.samples), (TOKEN_SIGNALS, measured.tokens):
        for name, values in found.items():
            if corpus_settings(name) is None:  # those are described by the methods that ask for them
                assert_in_range(described[name], values)


@by_method
def test_real_scores_lie_where_their_descriptions_say_and_the_end_that_is_kept_is_kept(
    method: Method[Any], measured: Signals
) -> None:
    scored = score(measured, [MethodChoice(name=method.name)], Keep(share=SHARE), 0)
    selection = scored.selection
    assert selection is not None
    assert 0 < selection.keep.sum() < len(measured)
    of_kept = np.repeat(selection.keep, measured.lengths)
    unwritten = set()
    for column in method.columns:
        found: Any = selection.thresholds if column.of == "threshold" else scored.samples
        found = scored.tokens(slice(0, len(measured))) if column.of == "token" else found
        if column.name not in found:
            unwritten.add(column.name)
            continue
        values = np.atleast_1d(found[column.name])
        if column.of == "threshold":
            assert_in_range(replace(column, kind="real"), values)
            continue
        assert_in_range(column, values)
        if column.direction is not None:
            kept = selection.token_keep if column.of == "token" else selection.keep
            among = of_kept if column.of == "token" else np.ones(len(measured), dtype=np.bool_)
            if column.name == "ifd":
                among = values < 1
            kept_mean, pruned_mean = values[among & kept].mean(), values[among & ~kept].mean()
            assert (kept_mean > pruned_mean) == (column.direction == "high"), (kept_mean, pruned_mean)
            assert kept_mean != pruned_mean
    assert not any(
        column.name in unwritten and column.of != "threshold" and column.name not in OTHERWISE
        for column in method.columns
    )


def test_every_column_of_a_run_is_described_and_of_its_type(first_run: Result) -> None:
    types = {"real": (pl.Float64, pl.Float32), "whole": (pl.Int64, pl.Int32), "text": (pl.String,)}
    for table, described in (first_run.scores, COLUMNS), (first_run.token_scores, TOKEN_COLUMNS):
        texts = sample_texts(table.columns) if described is COLUMNS else token_texts(table.columns)
        assert texts.keys() == set(table.columns)
        for name, column in described.items():
            assert table[name].dtype in types.get(column.kind, (pl.Boolean,)), column


def test_a_text_says_who_writes_a_column_and_all_that_is_known_of_it() -> None:
    assert sample_texts(["donod", "ppl", "bin", "calibration_kl", "nothing"]) == {
        "donod": "donod: TOPSIS closeness of don and nod (0 to 1; high is kept)",
        "ppl": "response perplexity, exp of the mean nll (at least 1)",
        "bin": "dealrec, ccs: bin of the score, from the easy end on; -1 for a sample cut as too hard "
        "(at least -1)",
        "calibration_kl": "KL(original || compressed with its batch); NaN in none (nats a token; at least 0)",
    }
    assert token_texts(["rho"]) == {
        "rho": "rho: nll less that under the reference model (nats; high is kept)"
    }


class Outside(Length):
    """A method of another package."""

    name = "outside"
    columns: tuple[Column, ...] = (
        Column("far", "how far out", kind="whole", unit="miles", direction="high"),
        Column("far", "how far out", "token", unit="miles"),
        Column("town", "which town", "selection", "text", values=("A", "B")),
    )

    def scores(self, signals: Any, options: Any, seed: int) -> Any:
        return {"far": super().scores(signals, options, seed)["length"]}


class Wordless(Outside):
    """One that describes none of what it writes."""

    name = "wordless"
    columns: tuple[Column, ...] = ()


class Grasping(Outside):
    """One that has other plans for a column of every run."""

    name = "grasping"
    columns: tuple[Column, ...] = (Column("status", "of the sample in society"),)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "OWN", (*registry.OWN, Outside(), Wordless(), Grasping()))


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    with SandboxPool(1, 1) as processes:
        yield processes


def of(method: str, **given: Any) -> RunConfig:
    return RunConfig(methods=[MethodChoice(name=method)], keep=Keep(count=1), **given)


@pytest.mark.usefixtures("outside")
def test_columns_of_a_method_from_outside_are_described_by_it() -> None:
    assert sample_texts(["far", "town"]) == {
        "far": "outside: how far out (miles; high is kept)",
        "town": "outside: which town (A, B)",
    }
    assert token_texts(["far"]) == {"far": "outside: how far out (miles)"}


@pytest.mark.usefixtures("outside")
def test_what_a_method_writes_without_a_word_is_refused() -> None:
    choices = [MethodChoice(name="wordless")]
    registry_without = [method for method in registry.OWN if method.name != "outside"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "OWN", tuple(registry_without))
        with pytest.raises(UsageError, match="method wordless writes far, which it does not describe"):
            score(make_signals(5), choices, None, 0)


@pytest.mark.usefixtures("outside")
def test_a_method_that_takes_a_column_of_every_run_is_refused_before_anything_is_read() -> None:
    with pytest.raises(UsageError, match="method grasping writes the column status, which is another"):
        stages.check(of("grasping"), has_target=False)


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(
    ("method", "expression"),
    [
        ("ppl", "n_truncated = 0 AND ppl < 100 AND shape = 'alpaca'"),
        ("qtuning", "nominal_quadrant IN ('Q2', 'Q4')"),
        ("donod", "don > 0 AND tied_grad_norm < 3"),
        ("topsis", "random < 0.5"),
        ("outside", "far % 2 = 0"),
    ],
)
def test_a_filter_reads_what_is_measured_and_what_its_methods_score(
    method: str, expression: str, pool: SandboxPool
) -> None:
    stages.check(of(method, filter=expression), has_target=False, ask=pool.run)


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(
    ("method", "expression", "column"),
    [
        ("ppl", "don > 0", "don"),
        ("qtuning", "quadrant = 'Q1'", "quadrant"),
        ("ccs", "bin > 3", "bin"),
        ("outside", "town = 'A'", "town"),
        ("ppl", "status = 'kept'", "status"),
        ("ppl", "n_kept_tokens > 3", "n_kept_tokens"),
    ],
)
def test_a_filter_on_what_is_not_known_before_selecting_is_refused(
    method: str, expression: str, column: str, pool: SandboxPool
) -> None:
    with pytest.raises(UsageError, match=f"there is no column '{column}'"):
        stages.check(of(method, filter=expression), has_target=False, ask=pool.run)
