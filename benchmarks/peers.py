"""Our command against what users would run instead: the same rows and model, start-up included.

    python -m benchmarks.peers [--rows 48] [--data rows.parquet] [--interpreters FOLDER] [--only NAME ...]

Each program of `peer_programs` runs in a process of its own, by an interpreter that has its library: that of
this project, or that of the virtual environment FOLDER/PACKAGE (`python -m venv FOLDER/wana`, then its
`pip install wana`). One whose library is nowhere is reported as not installed. Processor seconds, of the
process and what it started; ours take turns with theirs.

A program that gives one loss a row is compared with the command that gives our signals, scores, masks and a
subset of them (`prune --method qtuning`); one for IFD with ours for IFD, which has those besides.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks.figures import figure
from benchmarks.processes import ROOT, Took, timed
from benchmarks.rows import rows_of
from datapruner.home import home_folder
from scorers.models.sources import resolve


@dataclass(frozen=True)
class Peer:
    """A program, in words; the method of ours that it is compared with; the package that it needs."""

    words: str
    method: str
    package: str
    at_most: float = 1.0
    """Of its processor seconds."""


PEERS = {
    "loop": Peer("a transformers loop, row by row", "qtuning", "transformers"),
    "batched": Peer("a transformers loop, 8 rows at a time", "qtuning", "transformers"),
    "autograd": Peer("autograd norms of the head, row by row", "qtuning", "transformers"),
    "data_juicer_perplexity": Peer("Data-Juicer's perplexity operator", "qtuning", "py-data-juicer"),
    "data_juicer_ifd": Peer("Data-Juicer's IFD operator", "ifd", "py-data-juicer"),
    "wana_ifd": Peer("wana's IFD, 4-bit weights in llama.cpp", "ifd", "wana", at_most=1 / 3),
    "llama_cpp": Peer("llama.cpp's log-probabilities, 4-bit weights", "qtuning", "llama-cpp-python"),
    "vllm": Peer("vLLM's log-probabilities", "qtuning", "vllm"),
    "bergson": Peer("bergson's projected gradients of all layers", "qtuning", "bergson"),
}
WITHIN = {"llama-cpp-python": "wana"}
"""Package -> the environment that has it besides, weights included."""


def interpreter(package: str, folder: Path | None) -> Path | None:
    """Python that has the package; None where there is none."""
    pythons = [Path(sys.executable)]
    if folder is not None:
        pythons.insert(0, folder / WITHIN.get(package, package) / "bin" / "python")
    asks = f"import importlib.metadata as m; m.version({package!r})"
    for python in pythons:
        if (
            python.exists()
            and subprocess.run([python, "-c", asks], stderr=subprocess.DEVNULL).returncode == 0
        ):
            return python
    return None


@dataclass(frozen=True)
class Rows:
    """A file of rows, the model as its users name it, and a folder to write to."""

    file: Path
    model: str
    folder: Path

    def ours(self, method: str, turn: int) -> Took:
        """Our command in a fresh home folder."""
        home = self.folder / f"home-{method}-{turn}"
        home.mkdir()
        (home / "models").symlink_to(home_folder() / "models")
        command = [sys.executable, "-m", "datapruner", "prune", str(self.file), "--method", method]
        command += ["--keep", "0.5", "--model", self.model, "--device", "cpu", "--quiet"]
        return _took(
            [*command, "--out", str(home / "subset.parquet")], home / "log", DATAPRUNER_HOME=str(home)
        )

    def theirs(self, name: str, python: Path, turn: int) -> Took:
        scratch = self.folder / f"{name}-{turn}"
        scratch.mkdir()
        program = ROOT / "benchmarks" / "peer_programs.py"
        model = resolve(self.model, home_folder()).path
        command = [str(python), "-P", str(program), name, str(self.file), str(model), str(scratch)]
        offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(scratch), "DATA_JUICER_CACHE_HOME": str(scratch)}
        return _took(command, scratch / "log", **offline)


def _took(command: list[str], log: Path, **environment: str) -> Took:
    """Raises RuntimeError with the end of what was printed when the command fails."""
    with log.open("wb") as out, timed() as took:
        done = subprocess.run(command, stdout=out, stderr=out, env=os.environ | environment)
    if done.returncode:
        raise RuntimeError(log.read_text(errors="replace")[-800:])
    return took


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=None, help="rows to read (default: Alpaca-like ones)")
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument(
        "--interpreters",
        type=Path,
        default=os.environ.get("BENCHMARK_INTERPRETERS"),
        help="a folder of virtual environments (default: what BENCHMARK_INTERPRETERS says)",
    )
    parser.add_argument("--method", default=None, help="ours for all (default: what says the same or more)")
    parser.add_argument("--only", nargs="+", choices=PEERS, default=tuple(PEERS))
    given = parser.parse_args(argv)
    rows = [row for row in rows_of(given.data, given.rows) if row["output"].strip()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "rows.jsonl"
        file.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        data = Rows(file, given.model, folder)
        print(f"{len(rows)} rows, {given.model}")
        for turn, name in enumerate(given.only):
            peer = PEERS[name]
            python = interpreter(peer.package, given.interpreters)
            if python is None:
                print(f"{peer.words}: not installed (pip install {peer.package})")
                continue
            try:
                theirs = data.theirs(name, python, turn)
            except RuntimeError as error:
                print(f"{peer.words}: failed\n{error}")
                continue
            method = given.method or peer.method
            ours = data.ours(method, turn)
            found = figure(
                f"prune --method {method}",
                ours.processor,
                against=peer.words,
                baseline=theirs.processor,
                unit="processor s",
                at_most=peer.at_most,
            )
            print(
                f"    wall {ours.wall:.1f} s against {theirs.wall:.1f} s; ratio {found.ratio:.2f}", flush=True
            )


if __name__ == "__main__":
    main()
