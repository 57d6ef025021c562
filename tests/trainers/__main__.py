"""Rows written for each trainer, fed to it: `make trainers`, or `python -m tests.trainers NAME`.

Each has an environment of its own with the versions of `pins/`, made where it is missing. What the trainer's
own loading, preprocessing and collator make of the rows is compared with what was exported, row by row. When
all have run, the table in `docs/trainers.md` is written.

torchvision and torchaudio are in no pins: what the index has does not load beside a PyTorch for CPUs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from transformers import AutoTokenizer

from datapruner.outputs.trainers import writing
from datapruner.outputs.trainers.registry import find
from datapruner.outputs.trainers.trainer import AsFile
from tests.compose import ROOT
from tests.docs import table
from tests.tiny_model import POSITIONS, save_tiny_model
from tests.trainers.cases import LIMIT, Row, kept, training_rows, within

HERE = Path(__file__).parent
MADE = ROOT / ".trainers"
_MARKED = re.compile(r"(?<=^<!-- round trips -->$).*?(?=^<!-- end -->$)", re.MULTILINE | re.DOTALL)

FED = {
    "llamafactory": "trained by its `run_exp`",
    "ms-swift": "trained by its `sft_main`",
    "axolotl": "trained by its `do_train`",
    "verl": "its dataset, collator and loss; not its processes on GPUs",
    "automodel": "its recipe's loader and collators; not its processes on GPUs",
}
"""What of each trainer is run."""

CASES = [(limit, packing) for limit in (POSITIONS, LIMIT) for packing in (False, True)]
"""Tokens a row may have, and whether rows are packed. Nothing is cut at the first limit."""

NO_PACKING = {"verl": "its trainer pads nothing and packs nothing"}


AT_ONCE = 3
"""Trainers that are run beside each other: they import for longer than they train."""


def environment(name: str) -> tuple[Path, float]:
    """The trainer's interpreter, and GB; made where it is missing or of other pins."""
    pins, folder = HERE / "pins" / f"{name}.txt", MADE / name
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()
    python, about = folder / "bin" / "python", folder / "made.json"
    made = json.loads(about.read_bytes()) if about.is_file() else {}
    if made.get("pins") != digest:
        shutil.rmtree(folder, ignore_errors=True)
        start = perf_counter()
        venv.create(folder, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, "--constraint", str(pins), "torch"], check=True)
        subprocess.run([*install, "--no-deps", "--requirement", str(pins)], check=True)
        size = sum(path.lstat().st_size for path in folder.rglob("*"))
        made = {"pins": digest, "gigabytes": size / 1e9}
        about.write_text(json.dumps(made), encoding="utf-8")
        print(f"{name}: an environment made in {perf_counter() - start:.0f} s", flush=True)
    return python, made["gigabytes"]


def fed(name: str, python: Path, rows: list[Row], model: Path, place: Path, case: tuple[int, bool]) -> Any:
    """What the trainer was fed of the rows: {"rows", "versions"}."""
    limit, packing = case
    trainer = find(name)
    path = place / (f"rows{trainer.suffix}" if isinstance(trainer, AsFile) else "rows")
    given = training_rows(rows, str(model), limit)
    writing.write(trainer, path, given)
    job = {
        "configuration": trainer.note(path, given),
        "model": str(model),
        "limit": limit,
        "packing": packing,
        "place": str(place),
        "fed": str(place / "fed.json"),
    }
    (place / "job.json").write_text(json.dumps(job), encoding="utf-8")
    script = HERE / "feeding" / f"feed_{name.replace('-', '_')}.py"
    apart = {"HF_HOME": str(place / "hf"), "MODELSCOPE_CACHE": str(place / "ms"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [str(python), str(script), str(place / "job.json")],
        cwd=place,
        env=os.environ | apart,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout[-4000:]}\n{name} failed")
    return json.loads((place / "fed.json").read_bytes())


def differing(expected: list[Row], got: list[list[list[int]]]) -> int:
    """Rows that should be there and are not, and those that are and should not."""
    wanted, found = Counter(expected), Counter((tuple(ids), tuple(labels)) for ids, labels in got)
    return (wanted - found).total() + (found - wanted).total()


def round_trips(name: str, rows: list[Row], model: Path) -> tuple[object, ...]:
    """A line of the table."""
    python, gigabytes = environment(name)
    outcomes: list[str] = []
    versions: dict[str, str] = {}
    for limit, packing in CASES:
        if packing and name in NO_PACKING:
            outcomes.append("—")
            continue
        expected = within(rows, limit)
        with TemporaryDirectory() as place:
            got = fed(name, python, rows, model, Path(place), (limit, packing))
        versions = got["versions"]
        wrong = differing(expected, got["rows"])
        trained = sum(label != -100 for _, labels in expected for label in labels)
        outcomes.append(
            f"{wrong} rows differ" if wrong else f"equal ({len(expected)} rows, {trained} tokens)"
        )
        print(f"{name}, at most {limit} tokens{', packed' * packing}: {outcomes[-1]}", flush=True)
    told = ", ".join(f"{package} {version}" for package, version in versions.items())
    return (f"`{name}`", told, FED[name], *outcomes, f"{gigabytes:.1f} GB")


def lines(results: list[tuple[object, ...]]) -> Iterator[str]:
    yield from table(
        "Trainer", "Versions", "What is run", "Rows", "Packed", "Cut", "Cut, packed", "Environment",
        rows=results,
    )  # fmt: skip


def main(names: list[str]) -> int:
    with TemporaryDirectory() as place:
        model = save_tiny_model(Path(place))
        rows = kept(AutoTokenizer.from_pretrained(model))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            results = list(pool.map(partial(round_trips, rows=rows, model=model), names or FED))
    text = "\n".join(lines(results))
    if names:
        print(text)
    else:
        page = ROOT / "docs" / "trainers.md"
        page.write_text(_MARKED.sub(lambda _: f"\n\n{text}\n\n", page.read_text("utf-8")), encoding="utf-8")
    return int("differ" in text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
