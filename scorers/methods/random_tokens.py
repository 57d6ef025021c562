"""Random tokens: the control of methods that prune tokens.

Of each kept sample a share of the response tokens is trained on, drawn by the seed. Which samples are kept is
drawn as by `random`, so that at `--keep 100%` only the tokens are drawn.

Notable choices:
- of T tokens of a sample `floor(token_keep * T)` are kept, at least one, as by Q-Tuning's rule;
- end-of-turn tokens are kept first, unless asked otherwise, and use up budget as the others do, but
  all of them stay even when they exceed it;
- a token's draw is a hash of the seed, its sample's id and its place, like `random`'s own of a sample.

To draw as many tokens of each row as another run trains on is an evaluation's control of the same name
(`datapruner evaluate`), as only that knows the other run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scorers.column import Column
from scorers.method import Columns, Options, Selection, option, token_column
from scorers.methods.random_control import DRAW
from scorers.selection.ranking import all_tokens, draws, ranked_selection
from scorers.shares import tolerant_floor
from scorers.signals.columns import Bools, Floats, Ints, Signals

_STEP = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class RandomTokensOptions(Options):
    token_keep: float = option(
        0.5, "share of each kept sample's response tokens that are trained on", above=0, at_most=1
    )
    protect_end: bool = option(True, "keep end-of-turn tokens before others")


class RandomTokens:
    """Keep the ceil(share * N) samples with the highest seeded draw, and of each as many tokens as its share,
    drawn."""

    name = "random-tokens"
    title = "Random tokens control"
    paper = "none (control)"
    options = RandomTokensOptions
    presets: Mapping[str, Mapping[str, Any]] = {}
    columns: tuple[Column, ...] = (DRAW, DRAW.cut())

    def needs(self, options: RandomTokensOptions) -> frozenset[str]:
        return frozenset({"token:is_end"} if options.protect_end else ())

    def scores(self, signals: Signals, options: RandomTokensOptions, seed: int) -> Columns:
        return {"random": draws(signals.ids, seed)}

    def token_scores(self, signals: Signals, options: RandomTokensOptions) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: RandomTokensOptions, seed: int
    ) -> Selection:
        draw = np.asarray(scores["random"], dtype=np.float64)
        chosen = ranked_selection(
            signals, draw, share, among="random draw among the highest", shown={"random": draw}
        )
        mask = all_tokens(signals)
        for samples, tokens in signals.blocks():
            first = np.zeros(tokens.stop - tokens.start, dtype=np.bool_)
            if options.protect_end:
                first = token_column(signals, "is_end")[tokens].astype(np.bool_)
            mask[tokens] = _drawn(draw[samples], signals.lengths_in(samples), first, options.token_keep)
        kept = f"; {100 * options.token_keep:.6g} % of its tokens drawn"
        return Selection(
            keep=chosen.keep,
            reason=chosen.reason,
            reasons=(chosen.reasons[0] + kept, chosen.reasons[1]),
            token_keep=mask,
            thresholds=chosen.thresholds,
        )


def _drawn(draw: Floats, lengths: Ints, first: Bools, share: float) -> Bools:
    """Of n samples with these draws and lengths, (n,), the tokens that are kept, (m,): all that
    are `first`, (m,), before the others."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    begins = np.cumsum(lengths) - lengths
    place = np.arange(len(owner)) - begins[owner]
    random = _mixed((draw * 2.0**53).astype(np.uint64)[owner] + place.astype(np.uint64) * _STEP)
    order = np.lexsort((random, ~first, owner))
    rank = np.empty(len(owner), dtype=np.int64)
    rank[order] = place  # in each sample as many ranks as places, in their order
    budget = np.array([max(1, tolerant_floor(share * length)) for length in lengths.tolist()])
    kept: Bools = (rank < budget[owner]) | first
    return kept


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of SplitMix64 (Steele, Lea and Flood 2014, 10.1145/2660193.2660195): of states that
    are `_STEP` apart, numbers that behave as random ones."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
