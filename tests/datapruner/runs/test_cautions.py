"""What a run warns of: in words, in its report and in its summary, and of nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import datapruner
from datapruner.request.config import MethodChoice
from datapruner.request.keep import Keep
from datapruner.result import Result
from datapruner.runs.cautions import mostly_length, mostly_short
from datapruner.runs.selection import score
from scorers.signals.columns import Signals
from tests.command_line import Said
from tests.pipeline import Prune
from tests.signal_factory import make_signals

SIGNALS = make_signals(200, seed=3)


def warned(method: str, keep: Keep, signals: Signals = SIGNALS, **options: Any) -> list[str]:
    """What a method warns of beside scores that are mostly length."""
    choice = MethodChoice.of(method, options)[0]
    found = score(signals, [choice], keep, 0).warnings
    return [text for text in found if not text.startswith("mostly response length")]


# A target that is missed


@pytest.mark.parametrize("method", ["ppl", "donod", "el2n", "dealrec", "divprune", "semdedup", "random"])
@pytest.mark.parametrize("keep", [Keep(share=0.25), Keep(count=31), Keep(tokens=500)])
def test_a_target_that_is_met_is_not_warned_of(method: str, keep: Keep) -> None:
    assert warned(method, keep) == []


def test_a_share_of_the_tokens_is_met_by_tokens() -> None:
    assert warned("cot-influx", Keep(share=0.25)) == []
    [text] = warned("cot-influx", Keep(count=50))  # of samples it keeps another number
    assert "samples kept where 50 were asked for: its own rule keeps no fewer" in text


def test_a_method_that_drops_by_a_rule_of_its_own_says_how_many_are_left() -> None:
    assert warned("ifd", Keep(share=0.25)) == []
    signals = make_signals(200, seed=3)
    for view in ("free", "bare"):  # half of the prompts do not help
        signals.others[view].samples["nll"][100:] = signals.samples["nll"][100:] / 2
    assert warned("ifd", Keep(share=0.9), signals) == [
        "ifd: 100 samples kept of 180 asked for: its own rule leaves no more"
    ]


def test_samples_cut_first_leave_fewer_than_asked_for() -> None:
    [text] = warned("el2n", Keep(share=0.9), cut_hardest=0.2)
    assert text == "el2n: 160 samples kept of 180 asked for: its own rule leaves no more"
    [text] = warned("semdedup", Keep(share=1.0), epsilon=1.0)
    assert text.startswith("semdedup: ")
    assert "of 200 asked for: its own rule leaves no more" in text


def test_a_token_budget_that_the_next_selection_goes_beyond_is_told() -> None:
    lengths = np.array([900, 10, 10, 10])
    few = make_signals(4, seed=1)
    tokens = {name: np.resize(column, lengths.sum()) for name, column in few.tokens.items()}
    samples = few.samples | {"n_response_tokens": lengths, "nll": np.array([2.0, 1.0, 3.0, 4.0])}
    signals = Signals(few.ids, samples, tokens, np.concatenate([[0], np.cumsum(lengths)]))
    [text] = warned("ppl", Keep(tokens=800), signals)
    assert text.startswith("ppl: 10 trained tokens kept of a budget of 800")
    assert warned("ppl", Keep(tokens=10_000), signals) == []  # all there is


def test_quadrants_that_hold_too_few_are_told_with_how_much_is_fill() -> None:
    choice = MethodChoice.of("qtuning", {})[0]
    found = score(SIGNALS, [choice], Keep(share=0.75), 0)
    assert found.selection is not None
    reasons = np.array(found.selection.reasons)[found.selection.reason[found.selection.keep]]
    added = sum(reason.startswith("fill from") for reason in reasons.tolist())
    assert f"{added / 1.5:.0f} % of the 150 kept samples are fill" in found.warnings[0]
    assert f"hold only {150 - added}; fill=" in found.warnings[0]
    assert warned("qtuning", Keep(share=0.1)) == []


@pytest.mark.parametrize("method", ["ccs", "dealrec"])
def test_the_hardest_are_not_all_cut_where_too_few_would_be_left(method: str) -> None:
    [text] = warned(method, Keep(share=0.95))
    assert "10 of the highest cut where hard_prune asks for 20, as 190 are to be kept" in text


def test_tokens_that_stay_anyway_may_be_more_than_the_share() -> None:
    [text] = warned("rho", Keep(share=0.5), token_keep=0.01)
    assert "tokens kept, over the " in text
    assert warned("rho", Keep(share=0.5), token_keep=0.9) == []


# Scores that are mostly length


def test_a_score_is_mostly_length_beyond_the_limit_either_way() -> None:
    rng = np.random.default_rng(0)
    length = rng.permutation(np.arange(100))
    near, far = length + rng.normal(0, 10, 100), length + rng.normal(0, 45, 100)
    unknown = np.where(length > 5, np.nan, near)
    scores = {
        "near": near,
        "against": -near,
        "far": far,
        "itself": length.astype(float),
        "unknown": unknown,
        "constant": np.ones(100),
        "cluster": length.astype(np.int64) // 2,
        "quadrant": np.array(["Q1"] * 100),
    }
    [text] = mostly_length(scores, length)
    assert text.startswith("mostly response length")
    assert text.endswith("near +0.95, against -0.95")


def test_dealrec_says_that_its_effort_is_mostly_how_short_a_response_is() -> None:
    norms = 5 / np.sqrt(SIGNALS.lengths)
    signals = replace(SIGNALS, samples={**SIGNALS.samples, "head_grad_norm": norms})
    found = score(signals, [MethodChoice.of("dealrec", {})[0]], Keep(share=0.5), 0)
    [text] = [text for text in found.warnings if text.startswith("mostly response length")]
    assert "effort -1.00" in text


def test_a_few_samples_prove_nothing() -> None:
    length = np.arange(9)
    assert list(mostly_length({"score": length / 2}, length)) == []
    assert list(mostly_length({"score": np.arange(10) / 2}, np.arange(10)))


# Kept rows that are mostly very short


def test_rows_are_mostly_short_when_more_than_half_are() -> None:
    everything = pl.Series([5, 10, 11, 400])
    assert list(mostly_short(pl.Series([10, 10, 11, 11]), everything)) == []
    [text] = mostly_short(pl.Series([10, 10, 11]), everything)
    assert text == "67 % of the kept rows have at most 10 response tokens (50 % of all rows do)"
    assert list(mostly_short(pl.Series([], dtype=pl.Int64), everything)) == []


# Where it is told


def test_warnings_are_in_the_report_the_run_file_and_the_summary(
    corpus_file: Path,
    home: Path,
    options: dict[str, Any],
    prune: Prune,
    command: Callable[..., Said],
    tmp_path: Path,
) -> None:
    result = prune("qtuning", 0.75)
    [quadrants] = [text for text in result.report.warnings if text.startswith("qtuning")]
    result.export(tmp_path / "subset.parquet")
    document = json.loads((tmp_path / "subset.run.json").read_text())
    assert document["report"]["warnings"] == result.report.warnings
    given = ("prune", corpus_file, "--keep", "0.75", "--model", options["model"], "--device", "cpu")
    shown = command(*given, home=home)
    assert shown.code == 0, shown.err
    assert f"warning: {quadrants}" in " ".join(shown.out.split())
    assert command(*given, "--json", home=home).json["report"]["warnings"] == result.report.warnings


def test_what_is_kept_is_short_by_what_is_exported(
    tmp_path: Path, home: Path, options: dict[str, Any]
) -> None:
    steps = "\n\n".join(["a b", "c d", "e f", "g h"])
    rows = [{"question": f"Why {n}?", "answer": f"{steps}:y"} for n in range(12)]
    recipe = tmp_path / "recipe.yaml"
    text = f"methods: [random]\nkeep: 100%\nmeasuring: {{model: {options['model']}}}\n"
    recipe.write_text(text)
    whole = datapruner.run_recipe(recipe, rows, home=home, device="cpu")
    assert whole.report.warnings == []
    pattern = r"(?s)(?P<reasoning>.*):"
    asked = f"rewrite: {{method: asap, options: {{max_tokens: 1}}, pattern: '{pattern}'}}\n"
    recipe.write_text(text + asked)
    cut = datapruner.run_recipe(recipe, rows, home=home, device="cpu")
    short, _, long = cut.report.warnings
    assert short == "100 % of the kept rows have at most 10 response tokens (0 % of all rows do)"
    assert long.startswith("asap: 12 of 12 rows with reasoning stay longer than the budget")


def test_weights_of_tokens_are_told_of(weighted: Result, first_run: Result) -> None:
    [text] = [each for each in weighted.report.warnings if "weights tokens" in each]
    assert text.startswith("token-prob weights tokens: a trainer that does not read token_weight")
    assert not any("weights tokens" in each for each in first_run.report.warnings)
