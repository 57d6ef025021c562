"""Examples, then tokens, under one budget: CoT-Influx without reinforcement learning (arXiv 2312.08901).

CoT-Influx fits more worked examples into a context window: first it chooses examples, more than fit, then it
drops tokens from those chosen until they do. It trains a policy to do both; here a signal ranks the examples
and the surprise of a token ranks the tokens.

- Coarse: examples from the top of the ranking down, while their response tokens fit the budget divided by
  `token_keep`.
- Fine: of all the tokens of the chosen examples together, the most surprising ones that fit the budget.

Notable choices:
- the share kept is a share of the response tokens, and the budget is exact but for the floor below; the kept
  samples are a larger share;
- tokens compete across samples: one that the model finds easy gives up more of its tokens than a hard one;
- predictable tokens go first, as in compressing prompts by self-information. Q-Tuning drops the surprising
  ones; the two have opposite aims;
- every chosen sample keeps its end-of-turn tokens (unless told not to) and at least one token, and the
  first-ranked sample is chosen even when it is longer than the budget;
- ties between tokens go to the sample ranked higher, then to the earlier token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scorers.column import Column
from scorers.method import Columns, Options, Selection, option, sample_column, token_column
from scorers.shares import check_share, tolerant_floor
from scorers.signals.columns import TOKEN_SIGNALS, Bools, Ints, Signals

RANKING = Column(
    "cot_influx", "the signal that ranks the examples, negated where low values come first", direction="high"
)


@dataclass(frozen=True, slots=True)
class CotInfluxOptions(Options):
    rank_by: Literal["entropy", "nll", "el2n", "n_response_tokens"] = option(
        "el2n", "the signal that ranks the examples"
    )
    prefer: Literal["high", "low"] = option("high", "which values of that signal come first")
    token_keep: float = option(
        0.5,
        "share of the chosen examples' tokens that the budget holds; 1 prunes no tokens",
        above=0,
        at_most=1,
    )
    protect_end: bool = option(True, "never prune end-of-turn tokens")


class CotInflux:
    """Keep floor(share * M) of the M response tokens: those most surprising, in the examples ranked first."""

    name = "cot-influx"
    title = "Examples, then tokens, under one token budget (CoT-Influx without reinforcement learning)"
    paper = "arXiv 2312.08901"
    options = CotInfluxOptions
    presets: Mapping[str, Mapping[str, Any]] = {}
    columns: tuple[Column, ...] = (
        RANKING,
        RANKING.cut(meaning="of the last example chosen"),
        TOKEN_SIGNALS["nll"].cut("token_nll", "least surprise for which a token was kept"),
    )

    def needs(self, options: CotInfluxOptions) -> frozenset[str]:
        always = {options.rank_by, "token:nll"}
        return frozenset(always | {"token:is_end"} if options.protect_end else always)

    def scores(self, signals: Signals, options: CotInfluxOptions, seed: int) -> Columns:
        """`cot_influx`: the ranking signal, negated where low values come first, so that high is first."""
        values = sample_column(signals, options.rank_by)
        return {"cot_influx": values if options.prefer == "high" else -values}

    def token_scores(self, signals: Signals, options: CotInfluxOptions) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: CotInfluxOptions, seed: int
    ) -> Selection:
        """thresholds: `cot_influx`, the score of the last example chosen; `token_nll`, the least surprise of
        a token that was kept for its surprise.
        """
        check_share(share)
        score = np.asarray(scores["cot_influx"], dtype=np.float64)
        rank = np.lexsort((signals.ids, -score))
        nll = token_column(signals, "nll")
        required = _required(signals, nll, options.protect_end)
        budget = tolerant_floor(share * len(nll))
        chosen = _fitting(signals, rank, required, budget, options.token_keep)
        token_keep, least = _most_surprising(signals, chosen, nll, required, budget)
        keep = np.zeros(len(signals), dtype=np.bool_)
        keep[chosen] = True
        thresholds = {"cot_influx": float(score[chosen[-1]])} if len(chosen) else {}
        if least is not None:
            thresholds["token_nll"] = least
        pruned = "" if options.token_keep == 1 else "; its most predictable tokens pruned"
        ranked = f"ranked by {options.prefer} {options.rank_by}"
        return Selection(
            keep=keep,
            reason=np.where(keep, 0, 1),
            reasons=(
                f"{ranked}: within a budget of {100 * share:.6g} % of the response tokens{pruned}",
                f"{ranked}: beyond a budget of {100 * share:.6g} % of the response tokens",
            ),
            token_keep=token_keep,
            thresholds=thresholds,
            share_of="tokens",
        )


def _required(signals: Signals, nll: NDArray[np.generic], protect_end: bool) -> Bools:
    """The tokens (M,) that a kept sample keeps anyway: its end tokens, or else its most surprising one."""
    if protect_end:
        required = token_column(signals, "is_end").astype(np.bool_).copy()
    else:
        required = np.zeros(len(nll), dtype=np.bool_)
    bare = (signals.counted(required) == 0) & (signals.lengths > 0)
    if bare.any():
        tokens = np.flatnonzero(np.repeat(bare, signals.lengths))
        values, lengths = nll[tokens], signals.lengths[bare]
        starts = np.cumsum(lengths) - lengths
        largest = np.maximum.reduceat(values, starts)
        at = np.flatnonzero(values == np.repeat(largest, lengths))
        owner = np.searchsorted(starts, at, side="right")
        required[tokens[at[np.diff(owner, prepend=0) > 0]]] = True  # of each sample the first such
    return required


def _fitting(signals: Signals, rank: Ints, required: Bools, budget: int, token_keep: float) -> Ints:
    """The samples of `rank` up to where their tokens exceed the budget / token_keep; at least the first."""
    least = signals.counted(required)
    fits = (np.cumsum(signals.lengths[rank]) * token_keep <= budget * (1 + 1e-12)) & (
        np.cumsum(least[rank]) <= budget
    )
    return rank[: max(1, int(fits.sum()))]


def _most_surprising(
    signals: Signals, chosen: Ints, nll: NDArray[np.generic], required: Bools, budget: int
) -> tuple[Bools, float | None]:
    """Token mask (M,), True outside the chosen samples, and the least surprise kept beside the required.

    Of the chosen samples' tokens the required ones are kept and as many others, by falling nll, as fit.
    """
    mask = np.ones(len(nll), dtype=np.bool_)
    lengths = signals.lengths[chosen]
    narrow = np.int32 if len(nll) < 2**31 else np.int64
    tokens = np.arange(int(lengths.sum()), dtype=narrow)  # in the order of the ranking
    shift = signals.offsets[chosen] - (np.cumsum(lengths) - lengths)
    np.add(tokens, np.repeat(shift.astype(narrow), lengths), out=tokens)
    optional = tokens[~required[tokens]]
    room = max(0, budget - (len(tokens) - len(optional)))
    if room >= len(optional):
        return mask, None
    if room == 0:
        mask[optional] = False
        return mask, None
    falling = -nll[optional].astype(np.float32, copy=False)
    least = np.partition(falling, room - 1)[room - 1]
    kept = falling < least
    ties = np.flatnonzero(falling == least)
    kept[ties[: room - int(kept.sum())]] = True
    mask[optional[~kept]] = False
    return mask, float(-least)
