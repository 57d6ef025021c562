"""Exact and near duplicates, found before anything is measured: MinHash proposes, the exact Jaccard decides.

Two samples are near-duplicates when the sets of their word n-grams (shingles) have a Jaccard similarity of
at least the threshold. MinHash signatures (rensa; Broder 1997, doi 10.1109/SEQUEN.1997.666900) cut into
bands (locality-sensitive hashing) propose pairs; each is then compared for real, so that what is reported
is the true Jaccard of the two texts and nothing is dropped for an estimate.

Notable choices:
- rows are taken in order and compared with the rows kept so far only. A dropped row therefore has a kept
  one at Jaccard >= threshold; with connected components, the other usual rule, a chain of small changes
  takes away rows that resemble nothing that is left;
- punctuation marks are words: "2 + 2" and "2 - 2" are different tasks;
- a text shorter than a shingle is one shingle, of all its words; a text without any word has nothing to
  compare and is kept, unless it is an exact copy;
- bands are as selective as a miss of at most 1 % of the pairs right at the threshold allows;
- nothing that there are many of for a text is in memory: its shingles, its signature and what its bands are
  lie on disk (`measuring.spool`);
- a band of one template's thousands of variants is compared with its first 64 kept rows, which bounds the
  work by the number of rows; how many rows met such a band is reported.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import rensa
from numpy.typing import NDArray

from datapruner import validation
from datapruner.corpora import store, texts
from datapruner.corpora.corpus import Corpus
from datapruner.corpora.texts import Hashes, Ints, Part, Ragged
from datapruner.curation.verdicts import Verdicts, settled
from datapruner.home import home_folder
from datapruner.measuring import spool
from datapruner.progress import Progress, Silent
from datapruner.request.parts import Dedup
from datapruner.system.panics import contained
from scorers.signals.columns import let_go

_SLOTS, _SEED = 128, 1
_MISSED = 0.01
# Three standard errors of an estimate from 128 slots: a proposal below it is not compared for real.
_DOUBT = 3 * 0.5 / _SLOTS**0.5
_CROWD = 64
_SIGNED_ROWS = 8192


@dataclass(frozen=True, slots=True)
class Near:
    """Of N texts: of (N,) the index of the kept text that each one duplicates, -1 for a kept one;
    jaccard (N,), NaN for a kept one; crowded: texts that were not compared with all that was proposed."""

    of: Ints
    jaccard: NDArray[np.float64]
    crowded: int


@contained()
def deduplicate(
    source: Any,
    *,
    threshold: float = 0.7,
    shingle: int = 3,
    part: Part = "all",
    mapping: Mapping[str, str] | None = None,
    home: str | Path | None = None,
    progress: Progress | None = None,
) -> Verdicts:
    """Which rows of `source` are exact or near duplicates of an earlier one.

    `threshold` is the least Jaccard similarity (0 < threshold <= 1) of the sets of runs of `shingle` words;
    `part` is what of a sample is compared. The first of its kind is kept. The table has the columns
    duplicate_of (row) and jaccard beside those of `Verdicts`. Raises UsageError or InputError.
    """
    listener = progress or Silent()
    place = Path(home) if home is not None else home_folder()
    about = validation.made(Dedup, threshold=threshold, shingle=shingle, part=part)
    with Corpus(store.ingest_to(source, mapping or {}, place, listener)) as corpus:
        return find(corpus, about, progress=listener)


def find(
    corpus: Corpus, about: Dedup, *, progress: Progress, without: Collection[str] = frozenset()
) -> Verdicts:
    """`deduplicate` on a published corpus, of which the samples `without` are gone: none is a duplicate of
    them."""
    index = corpus.sample_index()
    copies = index.filter(pl.col("duplicate_of").is_not_null())
    progress.stage("reading", len(index) - len(copies), "samples")
    rows, lengths = [np.empty(0, np.int64)], [np.zeros(1, np.int64)]

    def read() -> Iterator[Hashes]:
        done = 0
        for chunk, ids, chunk_texts in texts.sample_texts(corpus, about.part):
            there = [at for at, sample_id in enumerate(ids) if sample_id not in without]
            words = texts.hashed(texts.split([chunk_texts[at] for at in there], symbols=True))
            part = texts.ngrams(words, about.shingle, short=True)
            rows.append(np.array(chunk, dtype=np.int64)[there])
            lengths.append(part.lengths)
            done += len(there)
            progress.at(done)
            yield part.values

    folder = corpus.path.parent
    values = spool.gathered(folder, read(), np.uint64)
    shingles = Ragged(values, np.cumsum(np.concatenate(lengths)))
    found = near_duplicates(shingles, about.threshold, folder, progress)
    at = np.flatnonzero(found.of >= 0)
    numbers = np.concatenate(rows)
    near = pl.DataFrame(
        {"row": numbers[at], "duplicate_of": numbers[found.of[at]], "jaccard": found.jaccard[at]}
    )
    gone = pl.col("duplicate_of").is_in(near["row"].implode())
    exact = copies.filter(~gone).select("row", "duplicate_of", jaccard=pl.lit(1.0))
    said = pl.format("duplicate of row {} at Jaccard {}", "duplicate_of", pl.col("jaccard").round(3))
    dropped = pl.concat(
        [
            near.with_columns(reason=said),
            exact.with_columns(reason=pl.format("exact duplicate of row {}", "duplicate_of")),
        ]
    )
    return settled(
        "dedup",
        corpus,
        dropped,
        about.model_dump(),
        {
            "exact duplicates": len(exact),
            "near duplicates": len(near),
            "copies of near duplicates": len(copies) - len(exact),
            "without words": int((shingles.lengths == 0).sum()),
            "not compared with all": found.crowded,
        },
    )


def near_duplicates(
    shingles: Ragged, threshold: float, folder: Path, progress: Progress | None = None
) -> Near:
    """Go through the texts in order and find for each a kept one at Jaccard >= `threshold`, if there is one.

    `shingles` are the hashed n-grams of N texts; a text without any is kept. In memory are a few numbers of
    each text; what is known of all its bands, some 1.5 kB, is on the disk of `folder` where that is much.
    Raises NoSpaceError.
    """
    told = progress or Silent()
    signed = _signed(shingles, *bands(threshold), folder)
    signatures, table, leaders, kept = signed.signatures, signed.buckets, signed.leaders, signed.kept
    told.stage("comparing", len(shingles), "samples")
    of, jaccard = np.full(len(shingles), -1, dtype=np.int64), np.full(len(shingles), np.nan)
    crowded = 0

    @lru_cache(maxsize=4096)  # one text is the original of many
    def members(at: int) -> frozenset[int]:
        return frozenset(shingles[at].tolist())

    def duplicates(at: int, other: int) -> bool:
        common = len(members(at) & members(other))
        similarity = common / (len(members(at)) + len(members(other)) - common)
        if similarity >= threshold:
            of[at], jaccard[at] = other, similarity
        return similarity >= threshold

    for start in range(0, len(shingles), _SIGNED_ROWS):
        stop = min(start + _SIGNED_ROWS, len(shingles))
        buckets, guess = table[:, start:stop].T, _commonest(leaders[:, start:stop].T)
        for at in (start + np.flatnonzero((buckets >= 0).any(axis=1))).tolist():
            first = int(guess[at - start])
            if first != at and of[first] < 0 and duplicates(at, first):
                continue
            mine = [bucket for bucket in buckets[at - start].tolist() if bucket >= 0]
            proposed = {other for bucket in mine for other in kept[bucket]}
            if proposed and any(
                duplicates(at, other) for other in _likeliest(at, proposed, signatures, threshold)
            ):
                continue
            full = [kept.add(bucket, at) for bucket in mine]
            crowded += not all(full)
        told.at(stop)
        for array in (shingles.values, signatures, table, leaders):
            let_go(array)
        kept.let_go()
    return Near(of, jaccard, crowded)


def _likeliest(at: int, proposed: set[int], signatures: NDArray[np.uint32], threshold: float) -> list[int]:
    """The proposed texts whose estimate does not rule them out, the most similar first."""
    others = np.array(sorted(proposed), dtype=np.int64)
    estimate = (signatures[others] == signatures[at]).mean(axis=1)
    order = np.argsort(-estimate, kind="stable")
    likely: list[int] = others[order[estimate[order] >= threshold - _DOUBT]].tolist()
    return likely


def bands(threshold: float) -> tuple[int, int]:
    """(bands, slots of each): the longest bands of which a pair at the threshold shares one, but for 1 %.

    A pair of Jaccard J shares a band of r slots with probability J^r.
    """
    fitting = [r for r in range(1, _SLOTS + 1) if (1 - threshold**r) ** (_SLOTS // r) <= _MISSED]
    slots = max(fitting, default=1)
    return _SLOTS // slots, slots


@dataclass(frozen=True, slots=True)
class _Signed:
    """What is known of N texts by their signatures, (N, slots), in bands.

    buckets: (bands, N), which texts agree in a band, -1 where a text is alone in it or has no shingle.
    leaders: (bands, N), the text that comes first in each text's bucket. kept: of each bucket.
    """

    signatures: NDArray[np.uint32]
    buckets: Ints
    leaders: NDArray[np.uint32]
    kept: _Kept


class _Kept:
    """The first texts of each bucket that are kept, at most so many."""

    def __init__(self, sizes: NDArray[np.uint8], folder: Path) -> None:
        """sizes: most of each bucket."""
        self._starts = spool.column(folder, len(sizes) + 1, np.int64)
        self._starts[0] = 0
        np.cumsum(sizes, out=self._starts[1:], dtype=np.int64)
        self._texts = np.asarray(spool.column(folder, int(self._starts[-1]), np.uint32))
        self._starts = np.asarray(self._starts)
        self._counts = np.asarray(spool.column(folder, len(sizes), np.uint8))
        self._counts[:] = 0

    def __getitem__(self, bucket: int) -> list[int]:
        start = int(self._starts[bucket])
        found: list[int] = self._texts[start : start + int(self._counts[bucket])].tolist()
        return found

    def add(self, bucket: int, text: int) -> bool:
        """Whether there was room."""
        count = int(self._counts[bucket])
        if count == _CROWD:
            return False
        self._texts[self._starts[bucket] + count] = text
        self._counts[bucket] = count + 1
        return True

    def let_go(self) -> None:
        for array in (self._starts, self._texts, self._counts):
            let_go(array)


def _signed(shingles: Ragged, count: int, slots: int, folder: Path) -> _Signed:
    n = len(shingles)
    signatures = spool.column(folder, n * _SLOTS, np.uint32).reshape(n, _SLOTS)
    keys = spool.column(folder, count * n, np.uint64).reshape(count, n)
    for start in range(0, n, _SIGNED_ROWS):  # the library gives lists of Python numbers
        offsets = shingles.offsets[start : start + _SIGNED_ROWS + 1]
        values = np.asarray(shingles.values[offsets[0] : offsets[-1]])
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            values, (offsets - offsets[0]).astype(np.uint64), _SLOTS, _SEED
        )
        rows = slice(start, start + len(offsets) - 1)
        numbers = chain.from_iterable(matrix.to_rows())
        signatures[rows] = np.fromiter(numbers, np.uint32, (len(offsets) - 1) * _SLOTS).reshape(-1, _SLOTS)
        for band in range(count):
            columns = signatures[rows, band * slots : (band + 1) * slots].astype(np.uint64)
            key = texts.ngrams(Ragged(columns.ravel(), np.arange(len(columns) + 1) * slots), slots).values
            keys[band, rows] = key
        for array in (shingles.values, signatures, keys):
            let_go(array)
    return _bucketed(np.asarray(signatures), np.asarray(keys), shingles.lengths > 0, folder)


def _bucketed(
    signatures: NDArray[np.uint32], keys: Hashes, usable: NDArray[np.bool_], folder: Path
) -> _Signed:
    """keys: (bands, N), of each text in each band; what its bucket is comes in their place."""
    count, n = keys.shape
    buckets, sizes = keys.view(np.int64), [np.empty(0, np.uint8)]
    leaders = np.asarray(spool.column(folder, count * n, np.uint32)).reshape(count, n)
    numbers, begun = np.flatnonzero(usable), 0
    for band in range(count):
        _, first, bucket, found = np.unique(
            keys[band][numbers], return_index=True, return_inverse=True, return_counts=True
        )
        shared = found > 1
        number = np.cumsum(shared) - 1 + begun
        leaders[band] = np.arange(n)
        leaders[band][numbers] = numbers[first[bucket]]
        buckets[band] = -1
        buckets[band][numbers] = np.where(shared[bucket], number[bucket], -1)
        sizes.append(np.minimum(found[shared], _CROWD).astype(np.uint8))
        begun += int(shared.sum())
        let_go(keys)
        let_go(leaders)
    return _Signed(signatures, buckets, leaders, _Kept(np.concatenate(sizes), folder))


def _commonest(table: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The commonest value of each row of (N, k), the least of those that are equally common."""
    table = np.sort(table, axis=1)
    best, run, longest = table[:, 0].copy(), np.ones(len(table), np.int64), np.ones(len(table), np.int64)
    for column in range(1, table.shape[1]):
        run = np.where(table[:, column] == table[:, column - 1], run + 1, 1)
        better = run > longest
        best[better], longest[better] = table[better, column], run[better]
    return best
