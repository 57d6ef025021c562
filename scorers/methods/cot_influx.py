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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scorers.column import Column
from scorers.method import Columns, Options, Selection, option, sample_column, token_column
from scorers.selection.cut import first_in_turn, nth_highest
from scorers.selection.ranking import ordered
from scorers.shares import check_share, tolerant_floor
from scorers.signals.columns import TOKEN_SIGNALS, Bools, Floats, Ints, Signals

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
        rank = ordered(signals.ids, -score)
        required = _required(signals, options.protect_end)
        budget = tolerant_floor(share * len(required))
        chosen = _fitting(signals, rank, required, budget, options.token_keep)
        token_keep, least = _most_surprising(signals, chosen, required, budget)
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


def _required(signals: Signals, protect_end: bool) -> Bools:
    """The tokens (M,) that a kept sample keeps anyway: its end tokens, or else its most surprising one."""
    nll = token_column(signals, "nll")
    required = np.zeros(len(nll), dtype=np.bool_)
    for samples, tokens in signals.blocks():
        here, lengths = required[tokens], signals.lengths_in(samples)
        if protect_end:
            here[:] = token_column(signals, "is_end")[tokens]
        owner = np.repeat(np.arange(len(lengths)), lengths)
        bare = (np.bincount(owner[here], minlength=len(lengths)) == 0) & (lengths > 0)
        if bare.any():
            places = np.flatnonzero(bare[owner])
            values, sizes = nll[tokens][places], lengths[bare]
            starts = np.cumsum(sizes) - sizes
            at = np.flatnonzero(values == np.repeat(np.maximum.reduceat(values, starts), sizes))
            of = np.searchsorted(starts, at, side="right")
            here[places[at[np.diff(of, prepend=0) > 0]]] = True  # of each sample the first such
    return required


def _fitting(signals: Signals, rank: Ints, required: Bools, budget: int, token_keep: float) -> Ints:
    """The samples of `rank` up to where their tokens exceed the budget / token_keep; at least the first."""
    least = signals.counted(required)
    fits = (np.cumsum(signals.lengths[rank]) * token_keep <= budget * (1 + 1e-12)) & (
        np.cumsum(least[rank]) <= budget
    )
    return rank[: max(1, int(fits.sum()))]


def _most_surprising(
    signals: Signals, chosen: Ints, required: Bools, budget: int
) -> tuple[Bools, float | None]:
    """Token mask (M,), True outside the chosen samples, and the least surprise kept beside the required.

    chosen: in the order of the ranking. Of their tokens the required ones are kept and as many others, by
    falling nll, as fit.
    """
    nll = token_column(signals, "nll")
    mask = np.ones(len(nll), dtype=np.bool_)
    among = np.zeros(len(signals), dtype=np.bool_)
    among[chosen] = True
    wanted = int(signals.lengths[chosen].sum())
    optional = wanted - int(signals.counted(required)[chosen].sum())
    room = max(0, budget - (wanted - optional))
    if room >= optional:
        return mask, None

    def optionals() -> Iterator[tuple[slice, slice, Bools, Floats]]:
        """The samples at work, their tokens, which of these are optional, and the nll of those."""
        for samples, tokens in signals.blocks():
            here = np.repeat(among[samples], signals.lengths_in(samples)) & ~required[tokens]
            yield samples, tokens, here, nll[tokens][here].astype(np.float64)

    least, last, left = np.inf, -1, 0
    whole = np.zeros(len(signals), dtype=np.bool_)
    if room:
        least = nth_highest(lambda: (values for *_, values in optionals()), optional, room)
        above, ties = 0, np.zeros(len(signals), dtype=np.int64)
        for samples, _, here, values in optionals():
            owner = np.repeat(np.arange(samples.start, samples.stop), signals.lengths_in(samples))[here]
            above += int((values > least).sum())
            ties[samples] = np.bincount(
                owner[values == least] - samples.start, minlength=samples.stop - samples.start
            )
        whole, last, left = first_in_turn(ties[chosen], np.arange(len(chosen)), room - above)
        whole, last = _of_all(len(signals), chosen, whole), int(chosen[last])
    for samples, tokens, here, values in optionals():
        owner = np.repeat(np.arange(samples.start, samples.stop), signals.lengths_in(samples))[here]
        tied = values == least
        kept = (values > least) | (tied & whole[owner])
        kept[np.flatnonzero(tied & (owner == last))[:left]] = True
        mask[tokens.start + np.flatnonzero(here)[~kept]] = False
    return mask, float(least) if room else None


def _of_all(count: int, some: Ints, marked: Bools) -> Bools:
    """Which of `count` are marked, where of `some` these are."""
    found = np.zeros(count, dtype=np.bool_)
    found[some[marked]] = True
    return found
