"""Measuring against what training on less saves, by figures worked by hand."""

from __future__ import annotations

import pytest

from datapruner.evaluation.cost import Epoch, Measured, cost

ALL, QUARTER = Epoch(tokens=1_000_000, trained=400_000), Epoch(tokens=250_000, trained=100_000)


def test_the_break_even_is_where_three_epochs_saved_cost_what_measuring_did() -> None:
    # 2 x 135 million x 1 million = 2.7e14 FLOPs; 3 x 750,000 tokens fewer at 6 FLOPs are 1.35e7 a parameter.
    found = cost(
        Measured(135_000_000, forward=1_000_000, seconds=90.0),
        ALL,
        QUARTER,
        trained_parameters=8_000_000_000,
        epochs=3,
    )
    assert found.measuring_flops == 2.7e14
    assert found.break_even_parameters == pytest.approx(20e6)
    assert (found.saved_trained_tokens, found.measured_tokens) == (300_000, 1_000_000)
    assert found.pays
    assert found.said == (
        "Training on the subset reads 750,000 tokens fewer an epoch. Over 3 epochs that is more work than "
        "measuring for models of more than 20 million parameters; the one trained here has 8 billion."
    )


def test_tokens_measured_backward_too_count_three_times_as_much() -> None:
    # 2e8 + 6e8 FLOPs a token of 100 million parameters; one epoch saves 4.5e6 a parameter.
    found = cost(Measured(100_000_000, forward=900_000, backward=300_000), ALL, QUARTER, trained_parameters=1)
    assert found.measuring_flops == 3.6e14
    assert found.break_even_parameters == pytest.approx(80e6)


def test_selecting_does_not_pay_for_a_model_of_the_size_of_a_large_proxy() -> None:
    found = cost(Measured(600_000_000, forward=1_000_000), ALL, QUARTER, trained_parameters=135_000_000)
    assert not found.pays
    assert found.said.endswith(
        "more than 267 million parameters; the one trained here has 135 million, for which selecting does "
        "not pay."
    )


@pytest.mark.parametrize("subset", [ALL, Epoch(1_200_000, 500_000)])
def test_a_subset_that_saves_no_tokens_pays_for_no_model(subset: Epoch) -> None:
    found = cost(Measured(1_000, forward=10), ALL, subset, trained_parameters=10**12)
    assert not found.pays
    assert found.break_even_parameters is None
    assert "does not pay" in found.said


@pytest.mark.parametrize(
    ("verdict", "said"),
    [("no difference", "not shown to be better than those"), ("worse", "worse than those")],
)
def test_a_subset_no_better_than_random_rows_does_not_pay_however_large_the_model(
    verdict: str, said: str
) -> None:
    found = cost(
        Measured(1_000, forward=10),
        ALL,
        QUARTER,
        trained_parameters=10**12,
        verdict=verdict,  # type: ignore[arg-type]
    )
    assert not found.pays
    assert said in found.said
    assert cost(Measured(1_000, 10), ALL, QUARTER, trained_parameters=10**12, verdict="better").pays
