"""GPUs as they are asked for, and hours by their published peaks."""

from __future__ import annotations

import pytest

from datapruner.errors import UsageError
from datapruner.planning import devices
from datapruner.planning.devices import Gpus


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("8xH100", Gpus(8, "H100")),
        ("h100", Gpus(1, "H100")),
        ("2 x a100", Gpus(2, "A100")),
        ("4", Gpus(4, None)),
    ],
)
def test_a_number_and_a_kind(given: str, found: Gpus) -> None:
    assert devices.parse(given) == found


@pytest.mark.parametrize("given", ["", "0", "0xH100", "8xP9000", "H100x8x2", "-1", "9" * 40])
def test_what_is_no_gpu_is_refused_with_those_that_are_known(given: str) -> None:
    with pytest.raises(UsageError, match="H100") as caught:
        devices.parse(given)
    assert caught.value.field == "gpus"


def test_hours_are_operations_by_the_assumed_part_of_the_peak() -> None:
    """3.6e18 operations at 8 x 989e12 x 0.25 a second."""
    found = devices.hours(3.6e18, Gpus(8, "H100"), 0.25)
    assert found == pytest.approx(3.6e18 / (8 * 989e12 * 0.25) / 3600)
    assert devices.said(Gpus(8, "H100"), 0.25) == (
        "not measured: 25 % of the published 989 TFLOP/s is assumed"
    )
