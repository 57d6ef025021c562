"""Which devices there are to measure on.

Notable choice: the driver is asked, by a process that takes a tenth of a second; one that imports torch takes
seconds.
"""

from __future__ import annotations

import re
import runpy
import subprocess
from importlib.util import find_spec
from pathlib import Path

from datapruner.errors import UsageError
from scorers.interpreter import PYTHON

_DEVICE = re.compile(r"cpu|cuda(:\d+)?")
_TRACES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg")
_ASK_DRIVER = ("-m", "datapruner.measuring.driver")
_ASK_TORCH = ("-c", "import torch; print(torch.cuda.device_count())")


def find_devices(wanted: str = "auto") -> tuple[str, ...]:
    """Devices to measure on: "auto" is every GPU or else the CPU; or a list such as "cpu" or "cuda:0,cuda:1".

    Raises UsageError for a name that is no device's.
    """
    if wanted != "auto":
        devices = tuple(part.strip() for part in wanted.split(","))
        for device in devices:
            if not _DEVICE.fullmatch(device):
                raise UsageError(
                    f"no device is called {device!r}", remedy="auto, cpu, cuda, cuda:1 or cuda:0,cuda:1"
                )
        return devices
    cuda = torch_cuda()
    if cuda == "" or not any(Path(trace).exists() for trace in _TRACES):
        return ("cpu",)
    return tuple(f"cuda:{i}" for i in range(gpus(cuda, _said(*_ASK_DRIVER)))) or ("cpu",)


def gpus(cuda: str | None, driver: str | None) -> int:
    """How many GPUs torch will see.

    `cuda`: the version of CUDA that torch was built for. `driver`: what `datapruner.measuring.driver` said.
    Where either is not known, or they may not get on with each other, torch is asked in a process of its own.
    """
    if cuda is not None and driver is not None:
        count, version = map(int, driver.split())
        if version // 1000 >= int(cuda.partition(".")[0]):
            return count
    return int(_said(*_ASK_TORCH) or 0)


def torch_cuda() -> str | None:
    """The version of CUDA that torch was built for, "" for none; None where its file does not say."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        return None
    version = Path(found.origin).with_name("version.py")
    if not version.is_file():
        return None
    names = runpy.run_path(str(version))
    if "cuda" not in names or names.get("hip") is not None:
        return None
    return names["cuda"] or ""


def _said(*arguments: str) -> str | None:
    """What a process of ours prints, None if it fails."""
    answer = subprocess.run([*PYTHON, *arguments], capture_output=True, text=True, check=False)
    return answer.stdout if answer.returncode == 0 else None
