"""How much an evaluation does in the time that it has."""

from __future__ import annotations

from datapruner.evaluation.plan import Amounts, plan

AMOUNTS = Amounts(
    whole=4000,
    inputs={"random": 2.0, "a run": 3.0},
    sets={"held-out": (100, 5000)},
    writing={},
    seeds=3,
    rates=(1e-4, 3e-4, 1e-3),
)


def test_without_a_limit_all_there_is_is_done() -> None:
    made = plan(AMOUNTS, None, 0.0)
    assert (made.trained_tokens, made.rows, made.rates) == (4000, {"held-out": 100}, [1e-4, 3e-4, 1e-3])


def test_the_largest_rung_whose_trainings_and_readings_fit_is_taken() -> None:
    # By hand, at 1,024 tokens of 0.01 s: reading 0.4 * 50 * 61 = 1,220 for rows of 50 tokens; 3 seeds of
    # (2,048 + 3,072 + 2 * 1,220), and two more rates of (2,048 + 1,220), are 29,216 tokens: 292 s.
    assert plan(AMOUNTS, 292.2 / 0.75, 0.01).trained_tokens == 1024
    assert plan(AMOUNTS, 292.0 / 0.75, 0.01).trained_tokens == 512


def test_where_nothing_fits_the_least_is_done_with_the_middle_rate_alone() -> None:
    made = plan(AMOUNTS, 1.0, 0.01)
    assert (made.trained_tokens, made.rates) == (256, [3e-4])
