"""What is kept of ratings."""

from __future__ import annotations

import numpy as np

from scorers.methods.judge import Judge, JudgeOptions
from tests.signal_factory import sample_signals

RATINGS = [4.5, 1.0, 5.0, 4.5, 3.0, 4.5]


def of_one(options: JudgeOptions, ratings: list[float]) -> dict[str, list[float]]:
    (need,) = Judge().needs(options)
    return {need: ratings}


def test_the_highest_are_kept_and_ties_go_by_id() -> None:
    options = JudgeOptions()
    signals = sample_signals(**of_one(options, RATINGS))
    scores = Judge().scores(signals, options, 0)
    selection = Judge().select(signals, scores, 0.5, options, 0)
    tied = sorted((str(signals.ids[at]), at) for at in (0, 3, 5))
    assert set(np.flatnonzero(selection.keep)) == {2, tied[0][1], tied[1][1]}
    assert selection.thresholds == {"judge": 4.5}


def test_at_least_cuts_between_ratings_and_the_share_bounds_what_is_left() -> None:
    for share, kept in ((1.0, [0, 2, 3, 5]), (0.1, [2])):
        options = JudgeOptions(at_least=4.5)
        signals = sample_signals(**of_one(options, RATINGS))
        selection = Judge().select(signals, Judge().scores(signals, options, 0), share, options, 0)
        assert np.flatnonzero(selection.keep).tolist() == kept
        assert {selection.reasons[at] for at in selection.reason[[1, 4]]} == {
            "the teacher's rating under 4.5"
        }


def test_nothing_at_least_so_good_is_nothing_kept() -> None:
    options = JudgeOptions(at_least=6)
    signals = sample_signals(**of_one(options, RATINGS))
    selection = Judge().select(signals, Judge().scores(signals, options, 0), 1.0, options, 0)
    assert not selection.keep.any()
    assert selection.thresholds == {}


def test_deitas_score_is_complexity_times_quality() -> None:
    options = JudgeOptions(rubric="deita")
    by_score = {need.partition("score=")[2].partition("&")[0]: need for need in Judge().needs(options)}
    signals = sample_signals(
        **{by_score["complexity"]: [3.0, 9.0, 1.0], by_score["quality"]: [5.0, 2.0, 6.0]}
    )
    scores = Judge().scores(signals, options, 0)
    assert {name: column.tolist() for name, column in scores.items()} == {
        "judge": [15.0, 18.0, 6.0],
        "judge_complexity": [3.0, 9.0, 1.0],
        "judge_quality": [5.0, 2.0, 6.0],
    }
