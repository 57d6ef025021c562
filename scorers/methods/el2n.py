"""EL2N: the distance between prediction and answer (arXiv 2107.07075), as SFPrompt prunes local data by it.

Notable choice: noise is hardest of all, so the very hardest samples may be cut first (`cut_hardest`); the cut
is off by default, as in SFPrompt (arXiv 2407.17533).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scorers.column import Column
from scorers.method import Columns, Options, Selection, option, sample_column
from scorers.selection.ranking import all_tokens, keep_highest
from scorers.shares import count_to_keep, tolerant_floor
from scorers.signals.columns import SAMPLE_SIGNALS, Signals

EL2N = SAMPLE_SIGNALS["el2n"]


@dataclass(frozen=True, slots=True)
class El2nOptions(Options):
    cut_hardest: float = option(
        0.0,
        "share of the samples, the very hardest, to drop before the hardest are kept",
        at_least=0,
        below=1,
    )


class El2n:
    """Keep the ceil(share * N) hardest samples, after dropping the floor(cut_hardest * N) very hardest.

    Where the two overlap (share 1 with a cut of 0.1) all but the cut is kept: fewer than asked for.
    """

    name = "el2n"
    title = "EL2N: hardest samples by the error norm of the prediction"
    paper = "arXiv 2107.07075, 2407.17533"
    options = El2nOptions
    presets: Mapping[str, Mapping[str, Any]] = {}
    columns: tuple[Column, ...] = (
        EL2N.kept("high"),
        EL2N.cut("el2n_kept", "least that is kept"),
        EL2N.cut("el2n_cut", "least that is cut as among the very hardest (cut_hardest)"),
    )

    def needs(self, options: El2nOptions) -> frozenset[str]:
        return frozenset({"el2n"})

    def scores(self, signals: Signals, options: El2nOptions, seed: int) -> Columns:
        return {"el2n": sample_column(signals, "el2n")}

    def token_scores(self, signals: Signals, options: El2nOptions) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: El2nOptions, seed: int
    ) -> Selection:
        el2n = np.asarray(scores["el2n"], dtype=np.float64)
        n = len(el2n)
        cut_count = max(0, min(n - 1, tolerant_floor(options.cut_hardest * n)))
        cut = keep_highest(el2n, signals.ids, cut_count)
        keep = keep_highest(el2n, signals.ids, min(n, cut_count + count_to_keep(share, n))) & ~cut
        hardest = f"among the hardest {100 * share:.6g} %"
        thresholds = {"el2n_kept": el2n[keep].min()} if n else {}
        if cut_count:
            thresholds["el2n_cut"] = el2n[cut].min()
        return Selection(
            keep=keep,
            reason=np.select([keep, cut], [0, 2], default=1),
            reasons=(
                f"EL2N {hardest}",
                f"EL2N not {hardest}",
                f"EL2N among the very hardest {100 * options.cut_hardest:.6g} %, cut as likely noise",
            ),
            token_keep=all_tokens(signals),
            thresholds={name: float(value) for name, value in thresholds.items()},
        )
