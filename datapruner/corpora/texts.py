"""The text of a sample, and its words and n-grams as numbers: what duplicates and contamination compare.

Notable choices:
- system prompts and tool schemas are left out of a sample's text: thousands of samples share one, and it
  would make all of them near-duplicates;
- a word is a run of letters, digits and marks in lower case; in scripts written without spaces (Chinese,
  Japanese, Thai, ...) each character is a word, or else a whole clause would be one;
- a word's number is a hash of its text alone, the same on every machine and in every version: which
  samples are found must not depend on the release of a library or on the company of other rows;
- n-grams never cross from one text into the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from datapruner.corpora.corpus import Corpus

Part = Literal["all", "prompt", "response"]
"""What of a sample is compared: all turns but system prompts, those before a response, or the responses."""

Hashes = NDArray[np.uint64]
Ints = NDArray[np.int64]

CHUNK_SAMPLES = 8192

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = rf"[{_UNSPACED}]|[\w--[{_UNSPACED}]]+"
_WORD_OR_SYMBOL = rf"{_WORD}|[^\w\s]"
_ROLES: dict[Part, tuple[str, ...]] = {
    "all": ("user", "assistant", "tool"),
    "prompt": ("user", "tool"),
    "response": ("assistant",),
}
_MIX = np.uint64(0xFF51AFD7ED558CCD)
_SHIFT = np.uint64(32)


@dataclass(frozen=True, slots=True)
class Ragged:
    """N lists of 64-bit numbers. values: (M,) one list after another; offsets: (N + 1,)."""

    values: Hashes
    offsets: Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Hashes:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> Ints:
        return np.diff(self.offsets)

    @property
    def owners(self) -> Ints:
        """Which list each value belongs to, (M,)."""
        return np.repeat(np.arange(len(self)), self.lengths)


def sample_texts(
    corpus: Corpus, part: Part, rows: Sequence[int] | None = None
) -> Iterator[tuple[list[int], list[str], list[str]]]:
    """Chunks of (rows, sample ids, texts) of the corpus's unique samples, or of those at `rows`, in row
    order."""
    return corpus.texts(_ROLES[part], CHUNK_SAMPLES, rows)


def split(texts: Sequence[str], *, symbols: bool = False) -> pl.Series:
    """The words of each text, (N,) lists of strings; with `symbols`, punctuation marks as words too."""
    lowered = pl.Series(texts, dtype=pl.String).str.to_lowercase()
    return lowered.str.extract_all(_WORD_OR_SYMBOL if symbols else _WORD)


def hashed(words: pl.Series) -> Ragged:
    """Lists of words as lists of their hashes."""
    lengths = words.list.len().to_numpy().astype(np.int64)
    flat = words.filter(words.list.len() > 0).list.explode(empty_as_null=False)
    coded = flat.to_arrow().cast(pa.large_string()).dictionary_encode()
    vocabulary = np.array([_hash(word) for word in coded.dictionary.to_pylist()], dtype=np.uint64)
    values = vocabulary[coded.indices.to_numpy()] if len(vocabulary) else np.empty(0, np.uint64)
    return Ragged(values, _offsets(lengths))


def ngrams(words: Ragged, n: int, *, short: bool = False) -> Ragged:
    """Hashes of each text's runs of `n` words, in order, repeats included: L - n + 1 for L words.

    A text of fewer words has none, or with `short` one, of all its words (none if it has no word).
    """
    floor = np.minimum(words.lengths, 1) if short else 0
    offsets = _offsets(np.maximum(words.lengths - n + 1, floor))
    padded = np.concatenate([words.values, np.zeros(n - 1, np.uint64)])
    values = _mixed([padded[step : step + len(words.values)] for step in range(n)])
    # The n-grams that start where a text's do; those of short texts, which run on into the next one, anew.
    counts = np.diff(offsets)
    values = values[np.arange(offsets[-1]) + np.repeat(words.offsets[:-1] - offsets[:-1], counts)]
    few = np.flatnonzero((words.lengths < n) & (counts > 0))
    last = words.offsets[few + 1] - 1
    columns = []
    for step in range(n):
        at = words.offsets[few] + step
        columns.append(np.where(at <= last, padded[np.minimum(at, last)], 0).astype(np.uint64))
    values[offsets[few]] = _mixed(columns)
    return Ragged(values, offsets)


def _mixed(columns: Sequence[Hashes]) -> Hashes:
    """One hash for each row of equally long columns, in which their order counts."""
    values = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        values *= _MIX  # wraps around, as it should
        values += column
        values ^= values >> _SHIFT
    return values


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def _offsets(lengths: Ints) -> Ints:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
