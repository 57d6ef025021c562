"""What NVIDIA's driver says of GPUs, asked through the C interface of its library.

Run as a script it prints the number of devices, those that `CUDA_VISIBLE_DEVICES` leaves, and the version of
CUDA that the driver knows, 12080 for 12.8.
"""

from __future__ import annotations

import ctypes
from typing import Any

_LIBRARY = "libcuda.so.1"
_NO_DEVICE = 100


class DriverError(Exception):
    """The driver does not answer."""


def asked(library: Any) -> tuple[int, int]:
    """(devices, CUDA version) as its library says. Raises DriverError."""
    count, version = ctypes.c_int(), ctypes.c_int()
    _check(library.cuDriverGetVersion(ctypes.byref(version)))
    begun = library.cuInit(0)
    if begun != _NO_DEVICE:
        _check(begun)
        _check(library.cuDeviceGetCount(ctypes.byref(count)))
    return count.value, version.value


def _check(code: int) -> None:
    if code:
        raise DriverError(f"error {code} of the CUDA driver")


if __name__ == "__main__":
    print(*asked(ctypes.CDLL(_LIBRARY)))
