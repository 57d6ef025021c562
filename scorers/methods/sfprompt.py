"""SFPrompt's data pruning: the hardest samples of each group by EL2N (arXiv 2407.17533).

In the paper each client of a federation prunes its own data. Pruned group by group, no group loses all that
it has because others are harder.

Notable choices:
- who the clients are is no signal of a sample, so groups are k-means groups of embeddings: what a client's
  data have in common stands in for the client. `groups=1` is one client, and then this is `el2n`;
- ceil(share * N) samples are kept in all, divided over the groups by their sizes: each group keeps
  floor(share * size), and what is left goes one by one to the groups with the largest remainders (at equal
  remainders to larger groups, then to those numbered first).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scorers.column import Column
from scorers.method import Columns, Options, Selection, option, sample_column
from scorers.selection.clusters import kmeans
from scorers.selection.ranking import all_tokens, keep_highest
from scorers.selection.vectors import UnitVectors
from scorers.shares import check_share, count_to_keep, tolerant_floor
from scorers.signals.columns import SAMPLE_SIGNALS, Ints, Signals

EL2N = SAMPLE_SIGNALS["el2n"]


@dataclass(frozen=True, slots=True)
class SfPromptOptions(Options):
    groups: int = option(
        10, "k-means groups of the embeddings, each pruned on its own; 1: the corpus is one group", at_least=1
    )
    embedding: Literal["mean_hidden", "sentence_embedding"] = option(
        "mean_hidden", "what samples are grouped by: the proxy's mean hidden state or a sentence embedding"
    )


class SfPrompt:
    """Keep the hardest share of each group, ceil(share * N) samples in all."""

    name = "sfprompt"
    title = "SFPrompt: hardest samples of each group by EL2N"
    paper = "arXiv 2407.17533"
    options = SfPromptOptions
    presets: Mapping[str, Mapping[str, Any]] = {}
    columns: tuple[Column, ...] = (
        EL2N.kept("high"),
        Column("group", "k-means group", kind="whole", at_least=0),
        EL2N.cut("el2n_lowest", "least cut among the groups"),
        EL2N.cut("el2n_highest", "greatest cut among the groups"),
    )

    def needs(self, options: SfPromptOptions) -> frozenset[str]:
        return frozenset({"el2n", options.embedding} if options.groups > 1 else {"el2n"})

    def scores(self, signals: Signals, options: SfPromptOptions, seed: int) -> Columns:
        """el2n, and the group of each sample, from 0."""
        group = np.zeros(len(signals), dtype=np.int64)
        if options.groups > 1:
            rows = UnitVectors(signals, options.embedding)
            group[rows.order], _ = kmeans(rows, options.groups, seed)
        return {"el2n": sample_column(signals, "el2n"), "group": group}

    def token_scores(self, signals: Signals, options: SfPromptOptions) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: SfPromptOptions, seed: int
    ) -> Selection:
        """thresholds: `el2n_lowest` and `el2n_highest`, the least and the greatest cut among the groups."""
        check_share(share)
        el2n = np.asarray(scores["el2n"], dtype=np.float64)
        group = np.asarray(scores["group"], dtype=np.int64)
        keep = np.zeros(len(signals), dtype=np.bool_)
        cuts = []
        for g, count in enumerate(_shared_out(np.bincount(group), share)):
            members = np.flatnonzero(group == g)
            kept = members[keep_highest(el2n[members], signals.ids, int(count), among=members)]
            keep[kept] = True
            if len(kept):
                cuts.append(float(el2n[kept].min()))
        hardest = f"among the hardest {100 * share:.6g} % of its group"
        return Selection(
            keep=keep,
            reason=np.where(keep, 0, 1),
            reasons=(f"EL2N {hardest}", f"EL2N not {hardest}"),
            token_keep=all_tokens(signals),
            thresholds={"el2n_lowest": min(cuts), "el2n_highest": max(cuts)} if cuts else {},
        )


def _shared_out(sizes: Ints, share: float) -> Ints:
    """How many of each group to keep, (groups,), so that they add up to `count_to_keep` of all."""
    counts = np.array([tolerant_floor(share * size) for size in sizes.tolist()], dtype=np.int64)
    left = count_to_keep(share, int(sizes.sum())) - int(counts.sum())
    order = np.lexsort((-sizes, counts - share * sizes))  # largest remainder first
    counts[order[:left]] += 1
    return counts
