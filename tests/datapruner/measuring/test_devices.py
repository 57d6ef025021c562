"""Which devices there are to measure on, and what NVIDIA's driver is asked for that."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from datapruner.errors import UsageError
from datapruner.measuring import devices, driver
from datapruner.measuring.devices import find_devices, gpus, torch_cuda


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("cpu", ("cpu",)),
        ("cuda:1", ("cuda:1",)),
        ("cuda:0, cuda:1", ("cuda:0", "cuda:1")),
        ("cpu,cpu", ("cpu", "cpu")),
    ],
)
def test_devices_are_taken_as_named(wanted: str, found: tuple[str, ...]) -> None:
    assert find_devices(wanted) == found


@pytest.mark.parametrize("wanted", ["gpu", "", "cuda:", "cuda:x", "cpu,", "0", "CPU"])
def test_a_device_that_does_not_exist_is_a_usage_error(wanted: str) -> None:
    with pytest.raises(UsageError, match=r"no device is called .* \(auto, cpu, cuda"):
        find_devices(wanted)


def test_what_torch_was_built_for_is_known_without_importing_it() -> None:
    assert torch_cuda() == (torch.version.cuda or "")


@pytest.mark.parametrize(
    ("cuda", "said", "count"),
    [
        ("12.8", "2 12080\n", 2),
        ("12.8", "3 12020\n", 3),  # an older driver of the same generation
        ("12.8", "1 13000\n", 1),
        ("12.8", "0 12080\n", 0),
        ("12.8", "2 11080\n", 7),  # too old: only torch knows
        ("12.8", None, 7),
        (None, "2 12080\n", 7),
    ],
)
def test_torch_is_asked_only_where_the_driver_cannot_tell_what_it_will_see(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, said: str | None, count: int
) -> None:
    monkeypatch.setattr(devices, "_ASK_TORCH", ("-c", "print(7)"))
    assert gpus(cuda, said) == count


def test_where_torch_fails_too_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_ASK_TORCH", ("-c", "raise SystemExit(1)"))
    assert gpus(None, None) == 0


class Library:
    """The driver's C library: functions that write through a pointer and return an error, 0 for none."""

    def __init__(self, devices: int = 0, begun: int = 0, counted: int = 0) -> None:
        self.devices, self.begun, self.counted = devices, begun, counted

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802 (the driver's names)
        version._obj.value = 12080
        return 0

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.begun

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.devices
        return self.counted


def test_the_driver_says_how_many_devices_there_are_and_what_cuda_it_knows() -> None:
    assert driver.asked(Library(devices=2)) == (2, 12080)
    assert driver.asked(Library(devices=2, begun=100)) == (0, 12080)  # none that this process may see


@pytest.mark.parametrize("library", [Library(begun=999), Library(counted=3)])
def test_a_driver_that_fails_is_an_error(library: Library) -> None:
    with pytest.raises(driver.DriverError, match=r"error (999|3) of the CUDA driver"):
        driver.asked(library)
