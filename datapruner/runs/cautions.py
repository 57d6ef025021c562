"""What a run warns of: that the method did not do quite what was asked, or what its result mostly is.

Notable choices, with what was measured on samples of public corpora (Alpaca, Dolly, GSM8K and others) by
SmolLM2-135M:

- a target counts as missed when fewer samples than asked for are kept, or a tenth more. A method whose
  share is one of tokens hits it by the tokens;
- weights of tokens are told of in every run that has them, for nothing fails where they are not read;
- very short is at most 10 response tokens, the end-of-turn token among them: one in seven of Alpaca's rows,
  no row of GSM8K. EL2N's hardest tenth of Alpaca is such by 54 %, its hardest quarter by 26 %;
- a score is mostly response length at a rank correlation beyond 0.8 either way. DONOD's `nod` and DEALRec's
  `effort` reach -0.93 on Alpaca and Dolly, `dealrec` itself -0.77 and -0.83; `donod` stays at -0.26 (Alpaca),
  `ppl`, `entropy` and `el2n` within 0.35 there and on GSM8K. Fewer than ten samples correlate by chance, and
  a score that is the length itself says so by its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datapruner.request.keep import Keep
from scorers.method import Selection
from scorers.shares import count_to_keep, tolerant_floor
from scorers.signals.columns import Ints, Signals

if TYPE_CHECKING:
    import polars as pl

VERY_SHORT = 10
MOSTLY_LENGTH = 0.8
_FEWEST = 10
_OVER = 1.1


def weighted(selection: Selection, name: str) -> Iterator[str]:
    """That weights of tokens are for a trainer to read."""
    if selection.token_weight is not None:
        yield (
            f"{name} weights tokens: a trainer that does not read token_weight trains on all of them alike "
            "(export --for writes rows for trainers that do)"
        )


def missed_target(
    signals: Signals, selection: Selection, keep: Keep, trained: Ints, name: str
) -> Iterator[str]:
    """Whether what `name` selects is as much as was asked for. trained: (N,) tokens of each sample."""
    n, kept, tokens = len(signals), int(selection.keep.sum()), int(trained.sum())
    if keep.tokens is not None:
        if tokens * _OVER < keep.tokens and kept < n:
            yield (
                f"{name}: {tokens:,} trained tokens kept of a budget of {keep.tokens:,}: by its own rule the "
                "next larger selection is beyond it"
            )
        return
    if keep.share is not None and selection.share_of == "tokens":
        got, whole, what = tokens, int(signals.lengths.sum()), "response tokens"
        least, most = int(keep.share * whole / _OVER), int(keep.share * whole)
    elif keep.share is not None:
        got, what = kept, "samples"
        least, most = tolerant_floor(keep.share * n), count_to_keep(keep.share, n)
    else:
        assert keep.count is not None
        got, what, least, most = kept, "samples", keep.count, keep.count
    if got < least:
        yield f"{name}: {got:,} {what} kept of {most:,} asked for: its own rule leaves no more"
    elif got > most * _OVER:
        yield f"{name}: {got:,} {what} kept where {most:,} were asked for: its own rule keeps no fewer"


def mostly_length(scores: Mapping[str, NDArray[np.generic]], length: Ints) -> Iterator[str]:
    """Which of the scores, (N,) each, are mostly the length of the responses in tokens, (N,)."""
    import polars as pl  # clients of a service import this file, and do without

    from datapruner.runs.correlation import spearman

    found = []
    for name, values in scores.items():
        if values.dtype.kind != "f" or np.array_equal(np.abs(values), length):
            continue
        known = np.isfinite(values)
        if known.sum() < _FEWEST:
            continue
        correlation = spearman(pl.DataFrame({"score": values[known], "length": length[known]}))
        if correlation is not None and abs(correlation) > MOSTLY_LENGTH:
            found.append(f"{name} {correlation:+.2f}")
    if found:
        yield (
            "mostly response length (rank correlation of the score with it, below 0 where the short ones are "
            f"high): {', '.join(found)}"
        )


def mostly_short(kept: pl.Series, everything: pl.Series) -> Iterator[str]:
    """Whether the kept rows are mostly very short, given the response tokens of these and of all rows."""
    if not len(kept):
        return
    share, before = ((lengths <= VERY_SHORT).sum() / len(lengths) for lengths in (kept, everything))
    if share > 0.5:
        yield (
            f"{100 * share:.0f} % of the kept rows have at most {VERY_SHORT} response tokens "
            f"({100 * before:.0f} % of all rows do)"
        )
