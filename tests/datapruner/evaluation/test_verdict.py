"""Verdicts: per held-out set and over all, in words and as numbers."""

from __future__ import annotations

import numpy as np
import pytest

from datapruner.evaluation.readings import Readings
from datapruner.evaluation.verdict import verdicts

RUN = "fedcba9876543210"


def readings(
    arm: str, better: float = 0.0, *, held_out: str = "questions", seeds: int = 3, rows: int = 40
) -> list[Readings]:
    """Of an arm whose loss is `better` nats per token lower than 2, give or take 0.004 by seed and row."""
    made = []
    for seed in range(seeds):
        random = np.random.default_rng([seed, len(arm)])
        tokens = np.random.default_rng(1).integers(5, 50, rows)
        loss = 2.0 - better + 0.004 * random.standard_normal() + 0.004 * random.standard_normal(rows)
        made.append(Readings(arm, seed, held_out, loss * tokens, tokens))
    return made


@pytest.mark.parametrize(("better", "verdict"), [(0.2, "better"), (0.0, "no difference"), (-0.2, "worse")])
def test_a_subset_is_better_no_different_or_worse_than_random_rows(better: float, verdict: str) -> None:
    found = verdicts([*readings(RUN, better), *readings("random")], RUN, ["random"])
    [against] = found.by_set["questions"]
    assert against.verdict == verdict
    assert against.nats_per_token.difference == pytest.approx(-better, abs=0.01)
    assert against.nats_per_token.low < against.nats_per_token.difference < against.nats_per_token.high
    assert (against.seeds, against.rows, against.covers_seeds) == (3, 40, True)
    assert found.overall == [against]


def test_the_sentence_says_the_verdict_the_difference_and_its_interval() -> None:
    [against] = verdicts([*readings(RUN, 0.2), *readings("random")], RUN, ["random"]).overall
    loss = against.nats_per_token
    assert against.said == (
        "The subset is better than random rows: trained on it, a model's loss on held-out rows is "
        f"{-loss.difference:.4f} nats lower a token (95 % interval: {-loss.low:.4f} nats lower to "
        f"{-loss.high:.4f} nats lower; 3 seeds, 40 rows)."
    )
    [same] = verdicts([*readings(RUN), *readings("longest")], RUN, ["longest"]).overall
    assert same.said.startswith("No difference between the subset and the longest rows is shown: ")
    assert "nats lower to" in same.said
    assert "nats higher; 3 seeds" in same.said


def test_one_seed_shows_nothing_however_large_the_difference_and_says_so() -> None:
    found = verdicts([*readings(RUN, 0.5, seeds=1), *readings("random")], RUN, ["random"])
    [against] = found.overall
    assert against.verdict == "no difference"
    assert against.nats_per_token.high < -0.4
    assert not against.covers_seeds
    assert against.said.endswith(
        "The interval does not cover other seeds, which takes two or more, so nothing is shown."
    )


def test_a_handful_of_rows_shows_nothing_and_that_is_said() -> None:
    found = verdicts([*readings(RUN, 0.5, rows=4), *readings("random", rows=4)], RUN, ["random"])
    assert found.overall[0].verdict == "no difference"
    assert found.overall[0].said.endswith("A held-out set of fewer than 5 rows shows nothing.")


def test_sets_count_alike_over_all_and_each_has_its_own_verdict() -> None:
    found = verdicts(
        [
            *readings(RUN, 0.3),
            *readings("random"),
            *readings(RUN, -0.1, held_out="answers", rows=400),
            *readings("random", held_out="answers", rows=400),
        ],
        RUN,
        ["random"],
    )
    assert {name: each.verdict for name, [each] in found.by_set.items()} == {
        "questions": "better",
        "answers": "worse",
    }
    [overall] = found.overall
    assert overall.nats_per_token.difference == pytest.approx(-0.1, abs=0.01)
    assert overall.rows == 440
    assert "440 rows of 2 sets" in overall.said


def test_a_control_that_was_not_read_on_every_set_has_no_verdict_over_all() -> None:
    found = verdicts(
        [
            *readings(RUN),
            *readings("random"),
            *readings("longest"),
            *readings(RUN, held_out="answers"),
            *readings("random", held_out="answers"),
        ],
        RUN,
        ["random", "longest", "all"],
    )
    assert [each.control for each in found.overall] == ["random"]
    assert [each.control for each in found.by_set["questions"]] == ["random", "longest"]
    assert [each.control for each in found.by_set["answers"]] == ["random"]


def test_only_seeds_that_both_arms_were_trained_with_are_compared() -> None:
    found = verdicts([*readings(RUN, seeds=3), *readings("random", seeds=2)], RUN, ["random"])
    assert found.overall[0].seeds == 2


def test_right_answers_are_compared_where_all_were_asked_for_them() -> None:
    given = []
    for arm, right in ((RUN, 0.75), ("random", 0.25)):
        for each in readings(arm):
            correct = np.arange(40) < 40 * right
            given.append(Readings(arm, each.seed, each.held_out, each.nll, each.tokens, correct))
    [against] = verdicts(given, RUN, ["random"]).overall
    assert against.exact_match is not None
    assert against.exact_match.difference == pytest.approx(0.5)
    assert against.exact_match.low < 0.5 < against.exact_match.high
    [without] = verdicts([*given[:3], *readings("random")], RUN, ["random"]).overall
    assert without.exact_match is None


def test_an_arm_that_diverged_is_named_and_compared_with_nothing_and_the_others_are() -> None:
    broken = readings("random")
    broken[1].nll[3] = np.nan
    broken[2].nll[:] = np.inf
    others = [*readings(RUN, 0.2), *readings("longest")]
    found = verdicts([*others, *broken], RUN, ["random", "longest"])
    assert found.diverged == {"random": [1, 2]}
    assert found.overall == found.by_set["questions"] == verdicts(others, RUN, ["longest"]).overall


def test_a_subset_that_diverged_on_one_set_has_no_verdict_on_any() -> None:
    broken = readings(RUN, held_out="answers")
    broken[0].nll[0] = np.inf
    whole = [*readings(RUN), *readings("random"), *readings("random", held_out="answers")]
    found = verdicts([*whole, *broken], RUN, ["random"])
    assert found.diverged == {RUN: [0]}
    assert (found.overall, found.by_set) == ([], {"questions": [], "answers": []})
