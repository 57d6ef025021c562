"""A night that adds few rows to a large corpus, on cached signals: run and export against those of the first.

    python -m benchmarks.nightly [--rows 20000] [--new 200] [--tokens 60]

One baseline is the run and the export of the corpus before the rows were added. Neither measures anything:
signals are made up, and what is left is reading them, scoring, selecting, the tables and the subset. The
other is the floor: what would be left if all that did not change were free, done by polars alone. A threshold
is of all scores and a row's line says on which side of it the row is, so every night N scores are read and
sorted and N lines are written; and a subset is one file, so that all its rows are.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from benchmarks.figures import figure
from benchmarks.processes import Took, timed
from benchmarks.reprune import made_up_signals, write_rows
from datapruner.corpora import store
from datapruner.corpora.append import append
from datapruner.corpora.corpus import Corpus
from datapruner.home import home_folder
from datapruner.measuring.measure import Machine
from datapruner.outputs import exports
from datapruner.progress import Silent
from datapruner.request.config import MethodChoice, RunConfig
from datapruner.request.keep import parse_keep
from datapruner.rows import row_files
from datapruner.runs import pipeline


def night(home: Path, corpus_file: Path) -> dict[str, Took]:
    """What a run over this corpus takes, and the export of its subset."""
    config = RunConfig(methods=[MethodChoice.of("qtuning", {})[0]], keep=parse_keep(0.5))
    with Corpus(corpus_file) as corpus:
        with timed() as running:
            run = pipeline.run_on(corpus, config, home, Machine(("cpu",)), Silent())
        with timed() as exporting:
            row_files.write(home / "subset.parquet", exports.canonical(run, corpus, home))
    assert run.measured == 0, f"{run.measured} samples were measured; all should be cached"
    return {"run": running, "export": exporting}


def floor(home: Path, cache: Path) -> dict[str, Took]:
    """What a run and an export have to do, whatever they know of the night before."""
    scores = ["sample_id", "nll_mean", "entropy_mean", "el2n_mean", "head_grad_norm", "head_grad_dot"]
    with timed() as running:
        lines = pl.read_parquet(sorted(cache.glob("*.parquet")), columns=scores, glob=False)
        lines.sort("nll_mean").write_parquet(home / "lines.parquet")
    with timed() as exporting:
        pl.read_parquet(home / "subset.parquet", glob=False).write_parquet(home / "again.parquet")
    return {"run": running, "export": exporting}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--new", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=60, help="response tokens of a row, on average")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        home.mkdir()
        (home / "models").symlink_to(home_folder() / "models")
        before, after = (
            store.ingest_to(
                write_rows(Path(folder, name), rows, arguments.tokens, first=first), {}, home, Silent()
            )
            for name, rows, first in (
                ("first.jsonl", arguments.rows, 0),
                ("new.jsonl", arguments.new, arguments.rows),
            )
        )
        both = Path(folder, "both.duckdb")
        append(before, after, both, only_new=True)
        made_up_signals(home, before, arguments.tokens, with_vectors=False)
        night(home, before)  # what is paid once in a process
        first = night(home, before)
        cache = made_up_signals(home, both, arguments.tokens, with_vectors=False)
        second = night(home, both)
        floor(home, cache.folder)
        least = floor(home, cache.folder)
        for what in first:
            name = f"{what} of {arguments.rows + arguments.new:,} rows, {arguments.new:,} of them new"
            for against, baseline in (
                (f"the {what} of the night before", first[what]),
                ("the floor, if all that did not change were free", least[what]),
            ):
                value = second[what].processor
                figure(name, value, against=against, baseline=baseline.processor, unit="CPU s")


if __name__ == "__main__":
    main()
