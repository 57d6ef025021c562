"""Selection past memory: every method over ten million rows of made-up signals, and what parts cost.

    python -m benchmarks.past_memory [--rows 10000000] [--tokens 63] [--only METHOD[:OPTION=VALUE...] ...]
                                     [--folder FOLDER] [--loss-rows 100000]

Each method, and the search for near duplicates of texts, is run on a tenth of the rows and on all, in a
process of its own. A method scores and selects a quarter, with its defaults or the options that it is given;
weights of tokens are read as tables are written. Processor seconds are compared with those of the tenth by
N log N, and peak memory, libraries included, with 4 GB. Ids and token columns lie
in files (17 bytes a token, 12 GB for ten million rows), as the signal cache has them for so many; vectors are
made up each time they are read, which is part of the seconds, with as many dimensions as SmolLM2-135M's
unless told otherwise.

What compares samples does so in parts where they are many. Over `--loss-rows` rows, of which one in ten has a
near copy, the parts are compared with the exact result.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import figure
from benchmarks.processes import alone, peak_mib, timed
from benchmarks.synthetic import PROMPT, TARGETS, VOCABULARY, WIDTH, signals_for
from datapruner.commands.options import assignments, method_options
from datapruner.corpora.texts import Ragged
from datapruner.curation import duplicates
from datapruner.errors import UsageError
from datapruner.measuring import spool
from datapruner.request.config import MethodChoice
from datapruner.request.keep import parse_keep
from datapruner.runs.selection import score
from datapruner.runs.tables import SCALARS
from scorers.methods import divprune, registry
from scorers.selection import clusters
from scorers.signals.columns import (
    ALIGNED_VIEWS,
    DERIVED_SIGNALS,
    SAMPLE_SIGNALS,
    TOKEN_SIGNALS,
    VECTOR_SIGNALS,
    Ints,
    Signals,
    needs_by_view,
)

SHARE, SEED, MIB_OF_4_GB = 0.25, 0, 4e9 / 2**20
TOKENS_AT_ONCE, IDS_AT_ONCE = 1 << 22, 1 << 17
LOOKED_AT = 5000
NEAR_DUPLICATES, JACCARD, SHINGLES, TEXTS_AT_ONCE = "near-duplicates", 0.7, 40, 8192
PARTS: tuple[tuple[str, float, tuple[tuple[ModuleType, str, int], ...]], ...] = (
    ("semdedup", 0.5, ((clusters, "_AT_ONCE", 16),)),
    ("semdedup", 0.9, ((clusters, "_AT_ONCE", 16),)),
    ("divprune", 0.25, ((divprune, "_EXACT", 1),)),
    ("divprune", 0.9, ((divprune, "_EXACT", 1),)),
)
"""A method, a share, and what limits how many it compares: with which value parts begin at any size."""
HOLDING = ("qtuning:budget=plane", "token-prob:mode=weight")
"""Settings in which what is decided of a token depends on all others, or is a number."""
COUNTS = frozenset({"n_tokens", "n_prompt_tokens", "n_response_tokens"})
DIRECTIONS, ROWS_OF_TOPIC, PAIRED, NOISE, APART = 8192, 200, 10, 0.5, 0.1
"""Of made-up vectors: directions that they are made of; rows to a topic, which is a direction that they
share; one row in so many has a near copy after it; how much of others is added to a topic; and to a copy."""


class MadeUp:
    """Vectors of N rows that are made when they are read: clusters of them, and near copies."""

    def __init__(self, rows: int, width: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.shape: tuple[int, ...] = (rows, width)
        self._topics = min(DIRECTIONS, max(1, rows // ROWS_OF_TOPIC))
        spread = (np.arange(1, width + 1) ** -0.25).astype(np.float32)
        self._directions = rng.standard_normal((DIRECTIONS, width), dtype=np.float32) * spread

    def __getitem__(self, rows: Ints) -> NDArray[np.float32]:
        original = np.where(rows % PAIRED == 1, rows - 1, rows).astype(np.uint64)
        found: NDArray[np.float32] = self._drawn(original, 1, self._topics)
        found += np.float32(NOISE) * self._drawn(original, 2)
        found += np.float32(NOISE) * self._drawn(original, 3)
        found += np.float32(APART) * self._drawn(rows.astype(np.uint64), 4)
        return found

    def _drawn(self, rows: NDArray[np.uint64], which: int, most: int = DIRECTIONS) -> NDArray[np.float32]:
        mixed = (rows * np.uint64(8) + np.uint64(which)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
        found: NDArray[np.float32] = self._directions[(mixed >> np.uint64(40)) % np.uint64(most)]
        return found


def offsets_of(rows: int, tokens: int) -> Ints:
    drawn = np.random.default_rng(SEED).lognormal(0, 0.6, rows)
    drawn *= tokens / 1.2
    return np.concatenate([[0], np.cumsum(np.clip(drawn, 1, 40 * tokens).astype(np.int64))])


def token_file(folder: Path, view: str, name: str) -> Path:
    return folder / f"{view or 'corpus'}-{name}"


def make_tokens(folder: Path, offsets: Ints, names: Sequence[tuple[str, str]]) -> None:
    """The token columns of views, by both their names, some million tokens at a time."""
    for number, (view, name) in enumerate(names):
        if token_file(folder, view, name).exists():
            continue
        rng = np.random.default_rng([SEED, number])
        with token_file(folder, view, name).open("wb") as file:
            for start in range(0, int(offsets[-1]), TOKENS_AT_ONCE):
                at = np.arange(start, min(start + TOKENS_AT_ONCE, int(offsets[-1])))
                if name in ("position", "is_end"):
                    owner = np.searchsorted(offsets, at, side="right")
                    values = (
                        at + 1 == offsets[owner] if name == "is_end" else at - offsets[owner - 1] + PROMPT
                    )
                    file.write(values.astype(kind_of(name)).tobytes())
                else:
                    file.write(rng.standard_exponential(len(at), dtype=np.float32).tobytes())


def kind_of(name: str) -> type[np.generic]:
    kinds: dict[str, type[np.generic]] = {"real": np.float32, "whole": np.int32, "truth": np.bool_}
    return kinds[TOKEN_SIGNALS[name].kind]


def make_ids(folder: Path, rows: int) -> None:
    rng = np.random.default_rng(SEED)
    if not (folder / "ids").exists():
        with (folder / "ids").open("wb") as file:
            for start in range(0, rows, IDS_AT_ONCE):
                text = rng.bytes(16 * min(IDS_AT_ONCE, rows - start)).hex().encode()
                file.write(np.frombuffer(text, dtype="S32").astype("<U32").tobytes())


def sample_columns(names: frozenset[str], lengths: Ints, seed: int) -> dict[str, NDArray[np.generic]]:
    rng, found = np.random.default_rng(seed), dict[str, NDArray[np.generic]]()
    for name in sorted(names):
        match name:
            case "n_tokens":
                found[name] = lengths + PROMPT
            case "n_prompt_tokens":
                found[name] = np.full(len(lengths), PROMPT)
            case "n_response_tokens":
                found[name] = lengths
            case "head_norm":
                found[name] = np.full(len(lengths), 100.0)
            case "vocabulary":
                found[name] = np.full(len(lengths), VOCABULARY)
            case "prompt":
                found[name] = rng.integers(0, max(1, len(lengths) * 2 // 3), len(lengths))
            case _:
                column = {**SAMPLE_SIGNALS, **DERIVED_SIGNALS}.get(name)
                values = rng.standard_normal(len(lengths))
                if column is not None and column.at_least is not None:
                    np.exp(values, out=values)
                    values *= (column.at_most or 1) / (values.max() if column.at_most else 1)
                found[name] = values
    return found


def signals_of(folder: Path, needs: frozenset[str], rows: int, tokens: int, width: int) -> Signals:
    """Signals of so many rows with all that is needed, views included."""
    ids: NDArray[np.str_] = np.memmap(folder / "ids", "<U32", "r")
    offsets = offsets_of(rows, tokens)
    lengths, made = np.diff(offsets), dict[str, Signals]()
    for number, (view, names) in enumerate(sorted(needs_by_view(needs).items())):
        if view and view not in ALIGNED_VIEWS:
            made[view] = signals_for(names, TARGETS, tokens, "clusters")
            wide = {name: MadeUp(TARGETS, width, SEED) for name in names & set(VECTOR_SIGNALS)}
            made[view] = Signals(made[view].ids, made[view].samples, {}, made[view].offsets, wide)
            continue
        of_tokens = [name.removeprefix("token:") for name in names if name.startswith("token:")]
        plain = names - set(VECTOR_SIGNALS) - {f"token:{name}" for name in of_tokens}
        columns: dict[str, NDArray[np.generic]] = {
            name: np.memmap(token_file(folder, view, name), kind_of(name), "r") for name in of_tokens
        }
        vectors = {name: MadeUp(rows, width, SEED) for name in names & set(VECTOR_SIGNALS)}
        plain |= COUNTS if not view else frozenset()
        made[view] = Signals(ids, sample_columns(plain, lengths, number), columns, offsets, vectors)
    corpus = made.pop("")
    return Signals(corpus.ids, corpus.samples, corpus.tokens, offsets, corpus.vectors, made)


def choice_of(named: str) -> MethodChoice:
    """A method, by its name and what may follow of its options. Raises UsageError."""
    name, *given = named.split(":")
    choice, _ = MethodChoice.of(name, method_options(name, assignments(given, "option")))
    return choice


def known(named: str) -> str:
    """What `--only` is given, where that is something."""
    try:
        if named != NEAR_DUPLICATES:
            choice_of(named)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return named


def needs_of(named: str) -> frozenset[str]:
    if named == NEAR_DUPLICATES:
        return frozenset()
    choice = choice_of(named)
    return registry.get(choice.name).needs(choice.parsed()) | SCALARS


def token_needs(names: Sequence[str]) -> list[tuple[str, str]]:
    found = {
        (view, need.removeprefix("token:"))
        for name in names
        for view, needs in needs_by_view(needs_of(name)).items()
        for need in needs
        if need.startswith("token:")
    }
    return sorted(found)


def select(named: str, folder: Path, rows: int, tokens: int, width: int) -> None:
    """In a process of its own."""
    signals = signals_of(folder, needs_of(named), rows, tokens, width)
    read = peak_mib()
    with timed() as took:
        scored = score(signals, [choice_of(named)], parse_keep(SHARE), SEED)
        assert scored.selection is not None
        if (weights := scored.selection.token_weight) is not None:
            for _, some in signals.blocks():
                weights(some)
    kept = int(scored.selection.keep.sum())
    print(
        json.dumps({"cpu": took.processor, "wall": took.wall, "peak": peak_mib(), "read": read, "kept": kept})
    )


def made_up_texts(rows: int) -> Iterator[NDArray[np.uint64]]:
    """The shingles of so many texts, some thousand at a time; copies with some of them replaced."""
    for start in range(0, rows, TEXTS_AT_ONCE):
        row = np.arange(start, min(start + TEXTS_AT_ONCE, rows), dtype=np.uint64)[:, None]
        place = np.arange(SHINGLES, dtype=np.uint64)[None, :]
        copied = (row % np.uint64(PAIRED) == 1) & (place >= replaced(row))
        mixed = (row - copied) * np.uint64(SHINGLES) + place + np.uint64(1)
        for shift in (31, 29):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(0x9E3779B97F4A7C15)
        yield mixed.ravel()


def replaced(row: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """How many shingles of a copy are others: a third of the copies is too different to be one."""
    found: NDArray[np.uint64] = row // np.uint64(PAIRED) % np.uint64(12)
    return found


def deduplicate(folder: Path, rows: int) -> None:
    """In a process of its own."""
    values = spool.gathered(folder, made_up_texts(rows), np.uint64)
    shingles = Ragged(values, np.arange(rows + 1) * SHINGLES)
    with timed() as took:
        found = duplicates.near_duplicates(shingles, JACCARD, folder)
    row = np.arange(1, rows, PAIRED)
    alike = SHINGLES - replaced(row.astype(np.uint64)).astype(np.int64)
    copies = int((alike / (2 * SHINGLES - alike) >= JACCARD).sum())
    told = {"cpu": took.processor, "wall": took.wall, "peak": peak_mib(), "copies": copies}
    print(json.dumps(told | {"found": int((found.of >= 0).sum())}))


def measured(name: str, folder: Path, rows: int, given: argparse.Namespace) -> Any:
    sizes = (f"--rows={rows}", f"--tokens={given.tokens}", f"--width={given.width}")
    return alone("past_memory", "--method", name, "--folder", str(folder / str(rows)), *sizes)


def report(folder: Path, given: argparse.Namespace) -> None:
    few, many = given.rows // 10, given.rows
    expected = many * math.log(many) / (few * math.log(few))
    for rows in (few, many):
        (folder / str(rows)).mkdir(exist_ok=True)
        make_ids(folder / str(rows), rows)
        make_tokens(folder / str(rows), offsets_of(rows, given.tokens), token_needs(given.only))
    for name in given.only:
        first, last = (measured(name, folder, rows, given) for rows in (few, many))
        exponent = math.log(last["cpu"] / max(first["cpu"], 1e-3)) / math.log(many / few)
        print(
            f"\n{name}: {last['wall']:.1f} s for {many:,} rows, grown by N^{exponent:.2f}; "
            f"{(last['peak'] - first['peak']) * 2**20 / (many - few):,.0f} bytes a row"
        )
        grown = max(first["cpu"], 1e-3) * expected
        figure(f"{name}, processor", last["cpu"], against="a tenth of the rows, by N log N", baseline=grown)
        what = f"{name}, peak memory"
        figure(what, last["peak"], against="4 GB", baseline=MIB_OF_4_GB, unit="MiB", at_most=1)
        if "copies" in last:
            figure(f"{name}, found", last["found"], against="all", baseline=last["copies"], unit="rows")


def pairs_kept(keep: NDArray[np.bool_]) -> int:
    """Of how many near copies the original is kept, too."""
    copies = np.arange(1, len(keep), PAIRED)
    return int((keep[copies] & keep[copies - 1]).sum())


def mean_distance(vectors: MadeUp, keep: NDArray[np.bool_]) -> float:
    """1 - cosine from a sample to the nearest that is kept, mean over some samples."""

    def unit(rows: Ints) -> NDArray[np.float32]:
        found = vectors[rows]
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        return found

    some = unit(np.random.default_rng(SEED).permutation(len(keep))[:LOOKED_AT])
    nearest = np.full(len(some), -1, dtype=np.float32)
    for kept in np.array_split(np.flatnonzero(keep), max(1, int(keep.sum()) // 4096)):
        nearest = np.maximum(nearest, (some @ unit(kept).T).max(axis=1))
    return float(1 - nearest.mean(dtype=np.float64))


def losses(rows: int, width: int) -> None:
    """What parts change, of rows that all could be compared with all."""
    vectors, ids = MadeUp(rows, width, SEED), signals_for((), rows, 1).ids
    signals = Signals(ids, {}, {}, np.arange(rows + 1), {"mean_hidden": vectors})
    for name, share, limits in PARTS:
        method, kept, took = registry.get(name), [], []
        for most in (rows, 0):
            with limited(limits, most), timed() as seconds:
                options = method.options()
                scores = method.scores(signals, options, SEED)
                kept.append(method.select(signals, scores, share, options, SEED).keep)
            took.append(seconds.processor)
        exact, parts = kept
        what = f"{name} of {share:g} in parts"
        print(f"\n{what}: {rows:,} rows")
        figure(f"{what}: processor", took[1], against="exact", baseline=took[0])
        figure(
            f"{what}: kept alike", (exact & parts).sum(), against="exact", baseline=exact.sum(), unit="rows"
        )
        distances = [mean_distance(vectors, each) for each in (parts, exact)]
        figure(
            f"{what}: mean distance to the nearest kept",
            distances[0],
            against="exact",
            baseline=distances[1],
            unit="",
        )
        copies = [pairs_kept(each) for each in (parts, exact)]
        figure(
            f"{what}: near copies kept beside the original",
            copies[0],
            against=f"exact, of {len(range(1, rows, PAIRED)):,}",
            baseline=max(copies[1], 1),
            unit="rows",
        )


@contextmanager
def limited(limits: Sequence[tuple[ModuleType, str, int]], rows: int) -> Iterator[None]:
    """With other limits to how many are compared: as they are, or where there are no rows, these."""
    before = [getattr(module, name) for module, name, _ in limits]
    for module, name, most in limits:
        setattr(module, name, rows or most)
    yield
    for (module, name, _), value in zip(limits, before, strict=True):
        setattr(module, name, value)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = [*(method.name for method in registry.OWN), *HOLDING, NEAR_DUPLICATES]
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--tokens", type=int, default=63, help="response tokens of a row, on average")
    parser.add_argument("--width", type=int, default=WIDTH, help="dimensions of a vector")
    parser.add_argument("--only", nargs="*", type=known, default=every, metavar="METHOD[:OPTION=VALUE...]")
    parser.add_argument("--loss-rows", type=int, default=100_000, help="0: no comparison with exact results")
    parser.add_argument("--folder", type=Path, help="where token columns are made, and found again")
    parser.add_argument("--method", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.method == NEAR_DUPLICATES:
        deduplicate(given.folder, given.rows)
        return
    if given.method:
        select(given.method, given.folder, given.rows, given.tokens, given.width)
        return
    with tempfile.TemporaryDirectory() as fresh:
        folder = given.folder or Path(fresh)
        folder.mkdir(exist_ok=True)
        report(folder, given)
    if given.loss_rows:
        losses(given.loss_rows, given.width)


if __name__ == "__main__":
    main()
