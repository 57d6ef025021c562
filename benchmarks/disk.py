"""What the signals of a sample take on disk, column by column, and what storing vectors in 16 bits changes.

    python -m benchmarks.disk [--data rows.jsonl|.parquet] [--rows 200] [--model smollm2-135m]

Rows are measured, and their signals written twice: as shards, and as plain Parquet with float32 vectors and
the defaults of its writer. Errors are those of the cosines between any two samples, against float32, beside
those of half precision; and how many rows methods that read vectors select otherwise.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.figures import figure
from benchmarks.forward import encode
from benchmarks.processes import in_turns
from benchmarks.rows import rows_of
from datapruner.home import home_folder
from datapruner.measuring.measure import proxy_for
from datapruner.measuring.signal_cache import SignalCache, shard_name
from datapruner.measuring.vectors import unpack
from datapruner.measuring.workers import shards
from datapruner.request.config import Measuring, MethodChoice
from datapruner.request.keep import parse_keep
from datapruner.request.needs import needs
from datapruner.runs.selection import score
from scorers.models.proxy import load
from scorers.models.sources import resolve
from scorers.signals.forward import ForwardPass, Measured

VECTORS = ("head_grad_projection", "mean_hidden", "weighted_hidden")
METHODS = ("dealrec", "divprune", "semdedup")
SHARD_ROWS = 256
_READINGS = 20  # in a turn: one is too short to time
Vectors = Mapping[str, NDArray[Any]]


def measured(model: str, data: Path | None, count: int) -> tuple[list[dict[str, Any]], pa.Schema]:
    """The rows of a shard, of as many samples, and its schema."""
    proxy = load(resolve(model, home_folder()).path, device="cpu", dtype="float32")
    run = ForwardPass(proxy)
    samples = encode(proxy, rows_of(data, count))
    rows = [
        shards.measured_row(f"{index:064x}", samples[index], result, run.head_norm)
        for index, result in sorted(run.measure(samples), key=lambda each: each[0])
        if isinstance(result, Measured)
    ]
    return rows, shards.schema(*(len(rows[0][name]) for name in ("head_grad_projection", "mean_hidden")))


def write_plain(path: Path, rows: Sequence[dict[str, Any]], shape: pa.Schema) -> None:
    """What shards were before: float32 vectors, and Parquet's own choices."""
    fields = [
        pa.field(each.name, pa.list_(pa.float32(), len(rows[0][each.name]))) if each.name in VECTORS else each
        for each in shape
    ]
    columns = [pa.array([row.get(each.name) for row in rows], type=each.type) for each in fields]
    pq.write_table(pa.Table.from_arrays(columns, schema=pa.schema(fields)), path, compression="zstd")


def column_bytes(files: Sequence[Path]) -> Counter[str]:
    """Compressed bytes of each column, and what is in no column as "footers"."""
    found: Counter[str] = Counter()
    for path in files:
        about = pq.read_metadata(path).row_group(0)
        for number in range(about.num_columns):
            column = about.column(number)
            found[column.path_in_schema.partition(".")[0]] += column.total_compressed_size
        found["footers"] += path.stat().st_size
    found["footers"] -= sum(size for name, size in found.items() if name != "footers")
    return found


def cosine_error(found: NDArray[Any], exact: NDArray[Any]) -> float:
    """The largest difference of a cosine between any two samples."""

    def cosines(vectors: NDArray[Any]) -> NDArray[np.float64]:
        unit = vectors.astype(np.float64)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        product: NDArray[np.float64] = unit @ unit.T
        return product

    return float(np.abs(cosines(found) - cosines(exact)).max())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args(argv)
    rows, shape = measured(given.model, given.data, given.rows)
    tokens = sum(row["n_response_tokens"] for row in rows)
    print(f"{len(rows):,} rows, {tokens:,} response tokens")
    with tempfile.TemporaryDirectory() as folder:
        cache = SignalCache(
            Path(folder), proxy_for(Measuring(model=given.model), home_folder(), ("cpu",)).key
        )
        cache.create()
        plain = []
        for start in range(0, len(rows), SHARD_ROWS):
            part = rows[start : start + SHARD_ROWS]
            shards.write(cache.folder / shard_name([row["sample_id"] for row in part]), part, shape)
            plain.append(Path(folder) / f"{start}.parquet")
            write_plain(plain[-1], part, shape)
        sizes(column_bytes(cache.shards()), column_bytes(plain), tokens)
        reading(cache.shards(), plain, given.repeats)
        errors(cache, rows)


def sizes(ours: Counter[str], plain: Counter[str], tokens: int) -> None:
    unit = tokens / 1e6 * 2**20
    print(f"{'MiB a million response tokens':32}{'shards':>10}{'plain':>10}")
    for name, size in ours.most_common():
        print(f"{name:32}{size / unit:10.2f}{plain[name] / unit:10.2f}")
    against = "plain Parquet, float32"
    for what, names in (("all columns", list(ours)), ("vectors", [*VECTORS])):
        value, baseline = (sum(some[name] for name in names) / unit for some in (ours, plain))
        figure(f"{what}, a million response tokens", value, against=against, baseline=baseline, unit="MiB")


def reading(ours: list[Path], plain: list[Path], repeats: int) -> None:
    def read(files: list[Path], vectors_of: Callable[[pl.Series], NDArray[Any]]) -> None:
        for _ in range(_READINGS):
            frame = pl.read_parquet(files, columns=[*VECTORS], glob=False)
            for name in VECTORS:
                vectors_of(frame[name])

    took = in_turns(
        {"ours": lambda: read(ours, unpack), "plain": lambda: read(plain, pl.Series.to_numpy)}, repeats
    )
    value, baseline = (took[name].processor / _READINGS for name in ("ours", "plain"))
    figure("reading vectors, processor", value, against="plain Parquet, float32", baseline=baseline)


def errors(cache: SignalCache, rows: Sequence[dict[str, Any]]) -> None:
    ids = [row["sample_id"] for row in rows]
    wanted = {name: MethodChoice.of(name, {})[0] for name in METHODS}
    signals = cache.signals(ids, needs([*wanted.values()]) | {*VECTORS})
    exact: Vectors = {name: np.stack([row[name] for row in rows]) for name in VECTORS}
    half: Vectors = {name: exact[name].astype(np.float16).astype(np.float32) for name in VECTORS}
    stored: Vectors = {name: signals.vectors[name][np.arange(len(ids))] for name in VECTORS}
    for name in VECTORS:
        value, baseline = (cosine_error(some[name], exact[name]) for some in (stored, half))
        figure(f"cosines of {name}, largest error", value, against="float16", baseline=baseline, unit="of 1")

    def kept(choice: MethodChoice, vectors: Vectors) -> NDArray[np.bool_]:
        selection = score(replace(signals, vectors=vectors), [choice], parse_keep(0.25), 0).selection
        assert selection is not None
        return selection.keep

    for name, choice in wanted.items():
        right = kept(choice, exact)
        ours, theirs = ((kept(choice, some) & ~right).sum() for some in (stored, half))
        print(f"{name}, a quarter kept: {ours} of {right.sum()} rows are others, {theirs} with float16")


if __name__ == "__main__":
    main()
