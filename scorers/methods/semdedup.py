"""SemDeDup: one of each set of samples that mean the same (arXiv 2303.09540).

Embeddings are grouped by k-means. Within a group, samples are taken from the one least like the centroid to
the one most like it; a sample that is too like any taken before it is a duplicate. Samples in different
groups are never compared.

Notable choices:
- the score of a sample is its largest cosine similarity to a sample taken before it, so that the threshold
  epsilon and the share kept are two ways to say the same; the paper, too, sets epsilon by the share it wants.
  A share keeps the samples of lowest score, whichever epsilon that is; with `epsilon` set, duplicates fall
  first and the share then bounds what is left;
- a sample is compared with duplicates taken before it as well, as in the authors' code: of a chain in which
  each is like the next, only the first is kept;
- half is what the paper keeps of LAION's images almost without loss; of text (C4) it is four fifths;
- groups of about a thousand samples unless told otherwise. The paper has thousands too, and finds that their
  number hardly matters. Over 256,000 samples, groups are found level by level (`selection.clusters`), and of
  a group of more than 65,536 samples those are compared that follow each other in the order in which they are
  taken, so many at a time: duplicates are as like the centroid as each other, and so stand close together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scorers.column import Column
from scorers.method import Columns, Options, Selection, option
from scorers.selection.clusters import kmeans
from scorers.selection.ranking import all_tokens, keep_highest
from scorers.selection.vectors import Rows, UnitVectors
from scorers.shares import count_to_keep
from scorers.signals.columns import Floats, Ints, Signals

_GROUP_SIZE = 1000
_COMPARED = 1 << 16  # samples of a group compared with each other
_BLOCK = 1024  # samples of a group compared at once
_ALONE = -1.0  # the score of a sample with none before it: the lowest cosine there is


SIMILARITY = Column(
    "semdedup",
    "largest cosine to a sample taken before it in its group; -1 without one",
    direction="low",
    at_least=-1,
    at_most=1,
)


@dataclass(frozen=True, slots=True)
class SemDeDupOptions(Options):
    epsilon: float = option(
        0.0,
        "drop a sample whose cosine similarity to one taken before it is over 1 - epsilon; 0: the share kept "
        "alone decides",
        at_least=0,
        at_most=2,
    )
    clusters: int = option(0, f"k-means groups; 0: one for every {_GROUP_SIZE} samples", at_least=0)
    keep_from: Literal["edge", "centre", "random"] = option(
        "edge",
        "which of several duplicates is taken first and kept: the one least like the centroid (the paper's "
        "choice), the one most like it, or any",
    )
    embedding: Literal["mean_hidden", "sentence_embedding"] = option(
        "mean_hidden", "what a sample means: the proxy's mean hidden state or a sentence embedding"
    )


class SemDeDup:
    """Keep the ceil(share * N) samples least like those taken before them, and none within `epsilon`. The
    groups of over 256,000 samples are found level by level: of 100,000 made-up ones, where one level still
    does, two levels keep 79 % of the same half and 95 % of the same nine tenths, and of near copies 2.8 % and
    4.1 % beside their originals, where one level keeps 0.3 % and 0.4 %.

    Where `epsilon` leaves fewer than the share, all that it leaves are kept: a share of 1 is epsilon alone.
    """

    name = "semdedup"
    title = "SemDeDup: semantic duplicates within k-means groups of embeddings"
    paper = "arXiv 2303.09540"
    options = SemDeDupOptions
    presets: Mapping[str, Mapping[str, Any]] = {"half": {"keep": 0.5}}
    columns: tuple[Column, ...] = (
        SIMILARITY,
        Column("cluster", "k-means group", kind="whole", at_least=0),
        SIMILARITY.cut(meaning="largest that is kept: 1 - epsilon of the selection"),
    )

    def needs(self, options: SemDeDupOptions) -> frozenset[str]:
        return frozenset({options.embedding})

    def scores(self, signals: Signals, options: SemDeDupOptions, seed: int) -> Columns:
        """`semdedup`, the largest cosine to a sample taken before (-1: none was), and each sample's group."""
        n = len(signals)
        rows = UnitVectors(signals, options.embedding)
        wanted = options.clusters or -(-n // _GROUP_SIZE)
        group, centroids = kmeans(rows, max(1, wanted), seed)
        similarity = np.full(n, _ALONE)
        by_group = np.argsort(group, kind="stable")
        for members in np.split(by_group, np.flatnonzero(np.diff(group[by_group])) + 1):
            if len(members):
                taken = members[_order(rows, members, centroids[group[members[0]]], options.keep_from)]
                for run in np.array_split(taken, -(-len(taken) // _COMPARED)):
                    similarity[run] = _largest_before(rows[run])
        score, cluster = np.empty(n), np.empty(n, dtype=np.int64)
        score[rows.order], cluster[rows.order] = similarity, group
        return {"semdedup": score, "cluster": cluster}

    def token_scores(self, signals: Signals, options: SemDeDupOptions) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: SemDeDupOptions, seed: int
    ) -> Selection:
        """threshold `semdedup`: the largest similarity kept, that is 1 - epsilon of the selection."""
        similarity = np.asarray(scores["semdedup"], dtype=np.float64)
        keep = keep_highest(-similarity, signals.ids, count_to_keep(share, len(signals)))
        if options.epsilon:
            duplicate = similarity > 1 - options.epsilon
        else:
            duplicate = np.zeros(len(signals), dtype=np.bool_)
        keep &= ~duplicate
        percent, group = f"{100 * share:.6g} %", "in their group"
        return Selection(
            keep=keep,
            reason=np.select([keep, duplicate], [0, 2], default=1),
            reasons=(
                f"SemDeDup: among the {percent} least like a sample taken before {group}",
                f"SemDeDup: not among the {percent} least like a sample taken before {group}",
                f"SemDeDup: cosine over {1 - options.epsilon:.6g} to a sample taken before {group}",
            ),
            token_keep=all_tokens(signals),
            thresholds={"semdedup": float(similarity[keep].max())} if keep.any() else {},
        )


def _order(rows: UnitVectors, members: Ints, centroid: Floats, keep_from: str) -> Ints:
    """The order, (n,), in which the members of a group, ascending, are taken."""
    if keep_from == "random":
        return np.arange(len(members))  # ids are hashes: their order is as good as drawn
    parts = np.array_split(members, -(-len(members) // _COMPARED))
    # times the centroid's length, which is the same for all
    cosine = np.concatenate([rows[part].astype(np.float64) @ centroid for part in parts])
    return np.argsort(cosine if keep_from == "edge" else -cosine, kind="stable")


def _largest_before(rows: Rows) -> Floats:
    """Of each row its largest cosine to an earlier one, (n,) in [-1, 1]; -1 for the first."""
    found = np.full(len(rows), _ALONE)
    for start in range(0, len(rows), _BLOCK):
        stop = min(start + _BLOCK, len(rows))
        cosine = rows[start:stop] @ rows[:stop].T
        later = np.arange(stop) >= np.arange(start, stop)[:, None]
        cosine[later] = _ALONE
        found[start:stop] = cosine.max(axis=1)
    np.clip(found, -1, 1, out=found)
    return found
