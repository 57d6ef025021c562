"""How fast duplicates and contamination are found, and in how much memory.

    python benchmarks/duplicates.py [--rows 100000] [--repeats 3]

Makes a published corpus of synthetic Alpaca-like rows, of which a quarter repeat an earlier one with a few
words changed, and an evaluation set of 1,000 rows, of which a tenth are in the corpus. Everything is timed
from the corpus file to the verdict on each row; each time is the least of the repeats. The ratio is against
the named baseline: the same samples read from the same file and searched for equal texts only, in a Python
set. It is one of processor seconds: on a machine with other work, seconds measure that work too. Peak memory
is that of a process of its own (Linux only).
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from datapruner.corpora import texts  # noqa: E402
from datapruner.corpora.corpus import Corpus  # noqa: E402
from datapruner.corpora.ingest import ingest  # noqa: E402
from datapruner.curation import contamination, duplicates  # noqa: E402
from datapruner.curation.contamination import Convention  # noqa: E402
from datapruner.progress import Silent  # noqa: E402
from datapruner.request.parts import Dedup  # noqa: E402

EVALUATION_ROWS = 1000
BASELINE = "equal texts only, a Python set (baseline)"


def synthetic(count: int) -> Iterator[dict[str, str]]:
    """Alpaca-like rows; every fourth is an earlier one with up to a tenth of its words replaced."""
    rng = random.Random(7)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(20_000)]
    written: list[tuple[list[str], list[str]]] = []
    for number in range(count):
        if number % 4 == 3:
            prompt, response = rng.choice(written)
            response = [rng.choice(words) if rng.random() < 0.05 else word for word in response]
        else:
            prompt, response = rng.choices(words, k=12), rng.choices(words, k=rng.randint(20, 80))
            written.append((prompt, response))
        yield {"instruction": " ".join(prompt), "output": " ".join(response)}


def evaluation_rows(count: int) -> list[dict[str, str]]:
    """The instructions of the first rows of the corpus, a tenth of the set, and others."""
    found = [row["instruction"] for row in synthetic(EVALUATION_ROWS // 10)]
    rng = random.Random(8)
    others = [" ".join("".join(rng.choices("xyzqkvw", k=5)) for _ in range(30)) for _ in range(count)]
    return [{"question": text} for text in [*found, *others][:count]]


def equal_texts(corpus: Corpus) -> int:
    """Samples whose text, in lower case, is that of an earlier one."""
    seen: set[str] = set()
    count = 0
    for _, _, chunk in texts.sample_texts(corpus, "all"):
        count += len(chunk)
        seen.update(text.lower() for text in chunk)
    return count - len(seen)


def near_duplicates(corpus: Corpus) -> int:
    return duplicates.find(corpus, Dedup(), progress=Silent()).counts["dropped"]


def contaminated(corpus: Corpus, convention: Convention) -> int:
    chosen = contamination.evaluation_set("synthetic", evaluation_rows(EVALUATION_ROWS), convention)
    return contamination.find(corpus, [chosen], convention, progress=Silent()).counts["dropped"]


CASES: dict[str, Callable[[Corpus], int]] = {
    BASELINE: equal_texts,
    "near duplicates, MinHash, Jaccard 0.7": near_duplicates,
    "contamination, 13-gram": lambda corpus: contaminated(corpus, "13-gram"),
    "contamination, 8-gram": lambda corpus: contaminated(corpus, "8-gram"),
}


def timed(corpus: Corpus, case: str) -> tuple[float, float, int]:
    """Wall seconds, processor seconds, rows found."""
    wall, processor = time.perf_counter(), time.process_time()
    found = CASES[case](corpus)
    return time.perf_counter() - wall, time.process_time() - processor, found


def peak_mib(path: Path, case: str) -> float:
    """Peak memory of a process that does this alone."""
    done = subprocess.run(
        [sys.executable, __file__, "--alone", str(path), case], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def alone(path: str, case: str) -> None:
    with Corpus(path) as corpus:
        CASES[case](corpus)
    # Not getrusage: what it calls the peak begins at the size of the process that started this one.
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alone", nargs=2, metavar=("CORPUS", "CASE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        alone(*arguments.alone)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.duckdb"
        ingest(synthetic(arguments.rows), out=path)
        times: dict[str, list[tuple[float, float, int]]] = {case: [] for case in CASES}
        with Corpus(path) as corpus:
            for _ in range(arguments.repeats):  # in turns, so that a busy machine slows all alike
                for case in CASES:
                    times[case].append(timed(corpus, case))
        title = f"{arguments.rows:,} rows, best of {arguments.repeats}"
        table = Table("", "found", "seconds", "processor s", "times baseline", "peak MiB", title=title)
        least = {
            case: [min(column) for column in zip(*measured, strict=True)] for case, measured in times.items()
        }
        for case, (wall, processor, found) in least.items():
            ratio, peak = processor / least[BASELINE][1], peak_mib(path, case)
            table.add_row(
                case, f"{found:,}", f"{wall:.2f}", f"{processor:.2f}", f"{ratio:.1f}", f"{peak:,.0f}"
            )
        Console(width=110).print(table)


if __name__ == "__main__":
    main()
