"""How fast duplicates and contamination are found, and in how much memory.

    python -m benchmarks.duplicates [--rows 100000] [--repeats 1]

Makes a published corpus of synthetic Alpaca-like rows, of which a quarter repeat an earlier one with a few
words changed, and an evaluation set of 1,000 rows, of which a tenth are in the corpus. Everything is timed
from the corpus file to the verdict on each row; each time is the median of the repeats. The ratio is against
the named baseline: the same samples read from the same file and searched for equal texts only, in a Python
set. It is one of processor seconds: on a machine with other work, seconds measure that work too. Peak memory
is that of a process of its own.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.figures import figure
from benchmarks.processes import alone, in_turns, peak_mib
from datapruner.corpora import texts
from datapruner.corpora.corpus import Corpus
from datapruner.corpora.ingest import ingest
from datapruner.curation import contamination, duplicates
from datapruner.curation.contamination import Convention
from datapruner.progress import Silent
from datapruner.request.parts import Dedup

EVALUATION_ROWS = 1000
BASELINE = "equal texts only, a Python set"


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


def case_alone(path: str, case: str) -> None:
    """Prints the peak memory of this process, in MiB."""
    with Corpus(path) as corpus:
        CASES[case](corpus)
    print(peak_mib())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--alone", nargs=2, metavar=("CORPUS", "CASE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.alone:
        case_alone(*arguments.alone)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.duckdb"
        ingest(synthetic(arguments.rows), out=path)
        with Corpus(path) as corpus:
            print(f"{arguments.rows:,} rows")
            took = in_turns({case: partial(find, corpus) for case, find in CASES.items()}, arguments.repeats)
        baseline = took.pop(BASELINE).processor
        least = alone("duplicates", "--alone", str(path), BASELINE)
        for case, each in took.items():
            figure(case, each.processor, against=BASELINE, baseline=baseline, unit="processor s")
            peak = alone("duplicates", "--alone", str(path), case)
            figure(f"{case}: peak memory", peak, against=BASELINE, baseline=least, unit="MiB")


if __name__ == "__main__":
    main()
