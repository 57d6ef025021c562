"""A million rows: seconds, peak memory and growth of everything that follows measuring.

    python -m benchmarks.million [--rows 1000000] [--tokens 63] [--only STAGE ...] [--folder FOLDER]

Writes a corpus of made-up rows and signals of real shape for all of them into a folder that goes afterwards
(6 GiB for a million rows), once for a tenth of the rows and once for all. Each stage then runs in a process
of its own over both: scores and selection of every method, a whole run with its tables, the exports of it,
and SQL over it.

Processor seconds are those of all threads and ended child processes; the processes of SQL are not among them,
its wall time tells. Peaks include the interpreter and the libraries.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.figures import figure
from benchmarks.ingest import synthetic
from benchmarks.processes import alone, peak_mib, timed
from benchmarks.reprune import SHARD_ROWS, made_up_shard
from benchmarks.synthetic import VOCABULARY
from datapruner.corpora import store
from datapruner.corpora.corpus import Corpus
from datapruner.measuring import derived
from datapruner.measuring.measure import Machine, proxy_for
from datapruner.measuring.signal_cache import SignalCache, shard_name
from datapruner.measuring.workers import shards
from datapruner.outputs import exports
from datapruner.progress import Silent
from datapruner.query.sandbox import QueryLimits, run_sql
from datapruner.request.config import Measuring, MethodChoice, RunConfig
from datapruner.request.keep import parse_keep
from datapruner.rows import row_files
from datapruner.runs import pipeline, published
from datapruner.runs.selection import score
from datapruner.runs.tables import SCALARS
from scorers.methods import registry
from scorers.signals.columns import (
    ALIGNED_VIEWS,
    DERIVED_SIGNALS,
    VECTOR_SIGNALS,
    Signals,
    corpus_settings,
    needs_by_view,
)

SHARE, SEED, TARGETS, SQL_SECONDS = 0.25, 0, 1000, 600.0
FORMATS = (".parquet", ".jsonl", ".csv")
QUERIES = {
    "join": "SELECT t.sample_id, avg(t.nll - s.ppl) AS gap FROM token_scores t JOIN sample_scores s "
    "USING (sample_id) GROUP BY t.sample_id ORDER BY gap DESC, t.sample_id LIMIT 10",
    "sort": "SELECT max(place) FROM (SELECT row_number() OVER (ORDER BY nll DESC, row, position) AS place "
    "FROM token_scores)",
}
Stage = Callable[[Path], float]
"""Does its work in the folder of a corpus; gives the bytes of the signals that it reads."""


def measuring(home: Path) -> Measuring:
    """Settings that name a model which nobody loads: all that counts is that its files have hashes."""
    folder = home / "model"
    if not folder.is_dir():
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "tokenizer.json").write_text('{"model": {"vocab": {}}}')
        (folder / "model.safetensors").write_bytes(b"")
    return Measuring(model=str(folder), dtype="float32")


def signal_cache(home: Path) -> SignalCache:
    return SignalCache(home, proxy_for(measuring(home), home, ("cpu",)).key)


def ids_of(home: Path) -> pl.Series:
    with Corpus(next((home / "corpora").glob("*.duckdb"))) as corpus:
        return corpus.sample_index()["sample_id"]


def write_shards(home: Path, tokens: int, first: int, ids: Sequence[str]) -> None:
    cache, rng = signal_cache(home), np.random.default_rng(first)
    for start in range(0, len(ids), SHARD_ROWS):
        part = list(ids[start : start + SHARD_ROWS])
        shards.publish(cache.folder / shard_name(part), made_up_shard(part, tokens, rng, True))


def build(home: Path, rows: int, tokens: int) -> None:
    """A corpus of made-up rows, and signals for all of them."""
    home.mkdir()
    source = home / "rows.jsonl"
    with source.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in synthetic(rows))
    store.ingest_to(str(source), {}, home, Silent())
    source.unlink()
    signal_cache(home).create()
    ids = ids_of(home).to_list()
    step = SHARD_ROWS * 16
    with ProcessPoolExecutor() as pool:
        written = [
            pool.submit(write_shards, home, tokens, at, ids[at : at + step]) for at in range(0, rows, step)
        ]
        for each in written:
            each.result()


def read_signals(home: Path, needs: frozenset[str]) -> tuple[Signals, float]:
    """Signals with all views, of the same cache; and how many bytes their columns have."""
    cache, ids = signal_cache(home), ids_of(home)
    by_view = needs_by_view(needs)
    made: dict[str, Signals] = {}
    size = 0
    for view, names in sorted(by_view.items()):
        fitted = {need for need in names if corpus_settings(need)}
        some = ids[:TARGETS] if view == "target" else ids
        found = cache.signals(some, names - fitted - DERIVED_SIGNALS.keys())
        samples = dict(found.samples)
        if "vocabulary" in names:
            samples["vocabulary"] = np.full(len(found), VOCABULARY)
        if "prompt" in names:
            samples["prompt"] = derived.prompts(cache.places(some))
        found = replace(found, samples=samples)
        if view in ALIGNED_VIEWS:  # as a run has them
            found = replace(found, ids=made[""].ids)
        made[view] = found
        size += sum(column.nbytes for column in (*found.samples.values(), *found.tokens.values()))
        size += sum(math.prod(found.vectors[name].shape) * 4 for name in names & set(VECTOR_SIGNALS))
    return replace(made.pop(""), others=made), float(size)


def select(name: str) -> Stage:
    def stage(home: Path) -> float:
        choice, _ = MethodChoice.of(name, {})
        needs = registry.get(name).needs(choice.parsed())
        signals, size = read_signals(home, needs | SCALARS)
        score(signals, [choice], parse_keep(SHARE), SEED)
        return size

    return stage


def whole_run(home: Path) -> float:
    """Q-Tuning at a quarter, from the cache, with all tables."""
    config = RunConfig(
        methods=[MethodChoice.of("qtuning", {})[0]], keep=parse_keep(SHARE), measuring=measuring(home)
    )
    with Corpus(next((home / "corpora").glob("*.duckdb"))) as corpus:
        run = pipeline.run_on(corpus, config, home, Machine(("cpu",)), Silent())
    assert run.measured == 0, run
    return 0.0


def export(suffix: str, *, plain: bool = False) -> Stage:
    def stage(home: Path) -> float:
        run = published.latest(home)
        with (
            Corpus(published.corpus_path(run, home)) as corpus,
            tempfile.TemporaryDirectory(dir=home) as folder,
        ):
            rows = exports.plain(run, corpus) if plain else exports.canonical(run, corpus, home)
            count = row_files.write(Path(folder) / f"subset{suffix}", rows)
        assert count == run.report.kept, (count, run.report)
        return 0.0

    return stage


def query(sql: str) -> Stage:
    def stage(home: Path) -> float:
        run = published.latest(home)
        found = run_sql(sql, {"": [run.database, run.tokens]}, limits=QueryLimits(seconds=SQL_SECONDS))
        assert found.table.num_rows, sql
        return 0.0

    return stage


STAGES: dict[str, Stage] = {
    **{
        f"select-{method.name}": select(method.name)
        for method in registry.OWN
        if not any(
            need.startswith("sentence") or need in DERIVED_SIGNALS or corpus_settings(need)
            for need in method.needs(method.options())
        )
    },
    "run": whole_run,
    **{f"export{suffix}": export(suffix) for suffix in FORMATS},
    **{f"plain{suffix}": export(suffix, plain=True) for suffix in FORMATS},
    **{f"sql-{name}": query(sql) for name, sql in QUERIES.items()},
}


def in_this_process(stage: str, home: Path) -> None:
    with timed() as took:
        size = STAGES[stage](home)
    print(json.dumps({"cpu": took.processor, "wall": took.wall, "peak": peak_mib(), "size": size / 2**20}))


def report(few: int, many: int, folder: Path, stages: Sequence[str]) -> None:
    expected = many * math.log(many) / (few * math.log(few))
    for stage in stages:
        first, last = (
            alone("million", "--stage", stage, "--folder", str(folder / str(rows))) for rows in (few, many)
        )
        print(f"\n{stage}: {last['wall']:.1f} s, peak {last['peak']:,.0f} MiB")
        grown = max(first["cpu"], 0.01) * expected
        figure(f"{stage}, processor", last["cpu"], against="a tenth of the rows, by N log N", baseline=grown)
        if last["size"]:
            what = f"{stage}, peak memory"
            figure(what, last["peak"], against="what it reads", baseline=last["size"], unit="MiB")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--tokens", type=int, default=63, help="response tokens of a row, on average")
    parser.add_argument("--only", nargs="*", default=list(STAGES), metavar="STAGE", help="stages to run")
    parser.add_argument(
        "--folder", type=Path, help="where corpora are made, and found again when they are there"
    )
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.stage:
        in_this_process(given.stage, given.folder)
        return
    few, many = given.rows // 10, given.rows
    with tempfile.TemporaryDirectory() as fresh:
        folder = given.folder or Path(fresh)
        for rows in (few, many):
            if not (folder / str(rows)).is_dir():
                build(folder / str(rows), rows, given.tokens)
        report(few, many, folder, [name for name in STAGES if any(map(name.startswith, given.only))])


if __name__ == "__main__":
    main()
