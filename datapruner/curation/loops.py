"""Loops: responses that say the same again and again, as a model does that has lost its thread.

    share    of a response's runs of 16 words, those that stand in it before
    copies   how often one passage follows itself word by word, without anything between

Notable choices:
- words are compared, not signs: rules of tables, brackets and operators are no words, so that tables, code,
  regular expressions and formulas do not repeat themselves;
- a response is in a loop when most of it was said before, or when a passage stands at least four times in a
  row and makes up a good part of it: refrains, forms and lists of alike items are far from both;
- each response is looked at alone: what a conversation says again in another turn is no loop;
- texts of few words, those that are mostly numbers, and short ones full of brackets are not judged, nor what
  a prompt asks to repeat.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datapruner.corpora import texts
from datapruner.corpora.texts import Ints, Ragged

_RUN = 16
_FEWEST = 24
_COPIES, _COPIED = 4, 0.35
"""Fewest copies of a passage in a row, and the least share of the words that they make up."""
_SIGNS, _SHORT = r"[{}()\[\]<>=;\\|]", 500
"""What code and markup are full of, which repeat themselves for good reasons in texts of so many words."""
_ASKED = r"(?i)\brepeat|\b(?:times|over and over|again and again)\b"


def loops(turns: pl.DataFrame, share: float) -> pl.DataFrame:
    """Rows of which a response is in a loop: row, reason.

    turns: a line per trained response: row, turn, content, and the prompts before it as `asked`. share: the
    least share of a response that was said before.
    """
    words = texts.split(turns["content"].to_list())
    grams = texts.ngrams(texts.hashed(words), _RUN)
    said, copies, copied = repeats(grams)
    lettered = turns["content"].str.count_matches(r"\p{L}[\p{L}\p{M}\p{N}_]*")
    found = (
        turns.select("row", "turn", "asked")
        .with_columns(
            said=pl.Series(said),
            copies=pl.Series(copies),
            copied=pl.Series(copied),
            words=words.list.len(),
            lettered=lettered,
            signs=turns["content"].str.count_matches(_SIGNS),
        )
        .filter(
            ((pl.col("said") >= share) | ((pl.col("copies") >= _COPIES) & (pl.col("copied") >= _COPIED)))
            & (pl.col("words") >= _FEWEST)
            & (pl.col("lettered") * 2 >= pl.col("words"))
            & ((pl.col("signs") * 2 < pl.col("words")) | (pl.col("words") >= _SHORT))
            & ~pl.col("asked").str.contains(_ASKED)
        )
        .unique("row", keep="first", maintain_order=True)
    )
    shown = pl.col("said").mul(100).round().cast(pl.Int64)
    return found.select(
        "row",
        reason=pl.when(pl.col("copies") >= _COPIES)
        .then(pl.format("a loop: it says one passage {} times in a row", "copies"))
        .otherwise(pl.format("a loop: it says {} % of its text again", shown)),
    )


def repeats(grams: Ragged) -> tuple[NDArray[np.float64], Ints, NDArray[np.float64]]:
    """Of N texts, given their runs of n words: the share of runs that stand in the text before (N,); how many
    copies of a passage follow one another at most (N,), 1 where none does; and the share of the words that
    they make up (N,)."""
    owner = grams.owners
    at = np.arange(len(owner))
    order = np.lexsort((grams.values, owner))  # stable: those that are alike stay in their order
    same = (owner[order[1:]] == owner[order[:-1]]) & (grams.values[order[1:]] == grams.values[order[:-1]])
    back = np.zeros(len(owner), dtype=np.int64)
    back[order[1:][same]] = (at[order[1:]] - at[order[:-1]])[same]
    counts = np.maximum(grams.lengths, 1)
    share = np.bincount(owner[back > 0], minlength=len(grams)) / counts
    copies, copied = np.ones(len(grams), dtype=np.int64), np.zeros(len(grams))
    if len(owner):
        new = np.flatnonzero(np.concatenate([[True], (back[1:] != back[:-1]) | (owner[1:] != owner[:-1])]))
        period, of = back[new], owner[new]
        matched = np.diff(np.append(new, len(owner))) + _RUN - 1
        looped = period > 0
        times = np.where(looped, matched // np.maximum(period, 1) + 1, 1)
        np.maximum.at(copies, of, times)
        words = counts + _RUN - 1
        whole = np.where(looped & (times >= _COPIES), matched + period, 0) / words[of]
        np.maximum.at(copied, of, whole)
    return share, copies, copied
