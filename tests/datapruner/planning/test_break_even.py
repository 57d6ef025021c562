"""Scoring and training on less against training on everything, by figures worked by hand."""

from __future__ import annotations

import pytest

from datapruner.errors import UsageError
from datapruner.planning import break_even


def test_seven_billion_parameters_over_three_epochs() -> None:
    """Scoring: 2 x 135e6 x 1e6 = 2.7e14. All: 6 x 7e9 x 3 x 1e6 = 1.26e17; a quarter of it is kept."""
    found = break_even.by_operations(2.7e14, 1e6, 2.5e5, parameters=7 * 10**9, epochs=3)
    assert (found.training_on_all, found.training_on_kept) == (1.26e17, 3.15e16)
    assert found.share == pytest.approx((2.7e14 + 3.15e16) / 1.26e17)
    assert found.break_even_parameters == pytest.approx(2.7e14 / (6 * 3 * 7.5e5))  # 20 million
    assert found.pays
    assert found.said == (
        "Scoring, and training a model of 7 billion parameters for 3 epochs on what is kept, takes 25.2 % of "
        "the work of training it on everything: 0.214 % to score, 25 % to train. As many random rows save "
        "the same training and need no scoring. Selecting pays for models of more than 20 million parameters."
    )


def test_a_model_at_the_break_even_takes_as_much_either_way() -> None:
    even = break_even.by_operations(2.7e14, 1e6, 2.5e5, parameters=20 * 10**6, epochs=3)
    assert even.share == pytest.approx(1)


def test_what_is_measured_already_pays_for_a_model_of_any_size() -> None:
    found = break_even.by_operations(0.0, 1e6, 5e5, parameters=10**9, epochs=1)
    assert "0 % to score, 50 % to train" in found.said
    assert found.said.endswith("Selecting pays for a model of any size.")


def test_what_keeps_all_saves_nothing_for_a_model_of_any_size() -> None:
    found = break_even.by_operations(1.0, 1e6, 1e6, parameters=10**12, epochs=1)
    assert found.break_even_parameters is None
    assert not found.pays


def test_a_training_that_was_timed_is_compared_by_seconds() -> None:
    """1e6 tokens at 500 a second for two epochs: 4,000 s; half of it 2,000 s."""
    found = break_even.by_seconds(600, 1e6, 5e5, rate=500, parameters=10**9, epochs=2)
    assert (found.training_on_all, found.training_on_kept, found.unit) == (4000, 2000, "seconds")
    assert found.share == pytest.approx(0.65)
    assert (
        "takes 65 % of the 1.1 hours of training it on everything: 600 s to score, 2,000 s to" in found.said
    )


@pytest.mark.parametrize(
    ("given", "count"), [("7B", 7 * 10**9), ("1.5b", 1_500_000_000), ("135M", 135 * 10**6), ("12", 12)]
)
def test_sizes_are_read_as_they_are_written(given: str, count: int) -> None:
    assert break_even.parse_size(given) == count


@pytest.mark.parametrize("given", ["", "big", "-7B", "0", "7BB", "9" * 30])
def test_what_is_no_size_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match="is not a number of parameters") as caught:
        break_even.parse_size(given)
    assert caught.value.field == "train_model_size"
