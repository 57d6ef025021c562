"""A night that adds few rows to a large corpus, on cached signals: run and export against those of the first.

    python -m benchmarks.nightly [--rows 20000] [--new 200] [--tokens 60]

The baseline is the run and the export of the corpus before the rows were added. Neither measures anything:
signals are made up, and what is left is reading them, scoring, selecting, the tables and the subset.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

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
        made_up_signals(home, both, arguments.tokens, with_vectors=False)
        second = night(home, both)
        for what in first:
            figure(
                f"{what} of {arguments.rows + arguments.new:,} rows, {arguments.new:,} of them new",
                second[what].processor,
                against=f"the {what} of the night before",
                baseline=first[what].processor,
                unit="CPU s",
            )


if __name__ == "__main__":
    main()
