"""RHO-1: tokens by their excess loss over a reference model (arXiv 2404.07965).

The excess of a token is its nll under the proxy model less that under a reference model, one trained on data
of the wanted kind. High is what the proxy has yet to learn and can; low is what it knows, or what nobody can
predict. Trained on are the tokens with the highest excess.

Notable choices:
- the paper ranks the tokens of a batch with the weights of the moment, inside training. Pruning ahead of
  training sees the whole corpus, so one ranking over the tokens of all kept samples is made;
- which samples are kept is ours: those with the highest mean excess. The paper keeps all (`--keep 100%`);
- the presets are the shares of tokens that it publishes, 60 % for a model of 1B and 70 % for one of 7B, and
  no more of it: its batches, weights of the moment and unprotected ends are left out;
- a kept sample keeps its highest token at least, and its end-of-turn tokens unless asked otherwise: a model
  that never sees one does not learn to stop. Both use up budget, but stay even when they exceed it;
- ties go to the smaller sample id, then to the earlier token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scorers.column import Column
from scorers.method import Columns, Options, Selection, option, token_column, view
from scorers.selection.cut import first_in_turn, nth_highest
from scorers.selection.ranking import all_tokens, ranked_selection
from scorers.shares import count_to_keep
from scorers.signals.columns import Bools, Floats, Ints, Signals

RHO = Column("rho", "mean excess loss over the reference model", unit="nats", direction="high")
EXCESS = Column("rho", "nll less that under the reference model", "token", unit="nats", direction="high")


@dataclass(frozen=True, slots=True)
class RhoOptions(Options):
    token_keep: float = option(
        0.6, "share of the kept samples' response tokens that are trained on", above=0, at_most=1
    )
    protect_end: bool = option(True, "never prune end-of-turn tokens; off is the paper's behaviour")


class Rho:
    """Keep the ceil(share * N) samples of highest mean excess, and the ceil(token_keep * M) highest of their
    M tokens."""

    name = "rho"
    title = "RHO-1: tokens by excess loss over a reference model"
    paper = "arXiv 2404.07965"
    options = RhoOptions
    presets: Mapping[str, Mapping[str, Any]] = {
        "tokens-60": {"keep": 1.0, "token_keep": 0.6},
        "tokens-70": {"keep": 1.0, "token_keep": 0.7},
    }
    columns: tuple[Column, ...] = (
        RHO,
        EXCESS,
        RHO.cut(),
        EXCESS.cut("rho_token", "least excess by which a token was kept"),
    )

    def needs(self, options: RhoOptions) -> frozenset[str]:
        always = {"token:nll", "reference:token:nll"}
        return frozenset(always | {"token:is_end"} if options.protect_end else always)

    def scores(self, signals: Signals, options: RhoOptions, seed: int) -> Columns:
        """rho: mean excess loss, nats."""
        total = np.empty(len(signals))
        for samples, _, excess in _excesses(signals):
            lengths = signals.lengths_in(samples)
            owner = np.repeat(np.arange(len(lengths)), lengths)
            total[samples] = np.bincount(owner, weights=excess, minlength=len(lengths))
        return {"rho": total / np.maximum(signals.lengths, 1)}

    def token_scores(self, signals: Signals, options: RhoOptions) -> Columns:
        """Excess loss of every response token, float32."""
        column = np.empty(int(signals.offsets[-1]), dtype=np.float32)
        for _, tokens, excess in _excesses(signals):
            column[tokens] = excess
        return {"rho": column}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: RhoOptions, seed: int
    ) -> Selection:
        """thresholds: `rho`, the lowest mean that is kept, and `rho_token`, the lowest excess that made its
        token one of the highest."""
        values = np.asarray(scores["rho"], dtype=np.float64)
        chosen = ranked_selection(
            signals, values, share, among="mean excess loss among the highest", shown={"rho": values}
        )
        token_keep, cut, warnings = _keep_tokens(signals, chosen.keep, options)
        kept = f"; {100 * options.token_keep:.6g} % of the tokens of all such samples kept"
        return Selection(
            keep=chosen.keep,
            reason=chosen.reason,
            reasons=(chosen.reasons[0] + kept, chosen.reasons[1]),
            token_keep=token_keep,
            thresholds={**chosen.thresholds, **({} if cut is None else {"rho_token": cut})},
            warnings=warnings,
        )


def _excesses(signals: Signals) -> Iterator[tuple[slice, slice, Floats]]:
    """All samples, some at a time, their tokens, and of each its nll under the proxy less that under the
    reference, float64.

    Raises ValueError when the reference model was not measured, or read other tokens.
    """
    reference = view(signals, "reference")
    ours, theirs = token_column(signals, "nll"), token_column(reference, "nll")
    if not np.array_equal(signals.offsets, reference.offsets):
        at = int(np.argmax(signals.lengths != reference.lengths))
        raise ValueError(
            f"sample {signals.ids[at]} has {signals.lengths[at]} response tokens, but "
            f"{reference.lengths[at]} for the reference model; use one with the same tokenizer"
        )
    for samples, tokens in signals.blocks():
        yield samples, tokens, ours[tokens].astype(np.float64) - theirs[tokens].astype(np.float64)


def _keep_tokens(
    signals: Signals, keep: Bools, options: RhoOptions
) -> tuple[Bools, float | None, tuple[str, ...]]:
    """Token mask (M,), True outside of the kept samples, the lowest excess within the budget, and a warning
    where what must stay is more than the budget."""
    mask = all_tokens(signals)
    count = int(signals.lengths[keep].sum())
    if not count:
        return mask, None, ()
    for samples, tokens, excess in _excesses(signals):
        lengths = signals.lengths_in(samples)
        must = _highest(excess, lengths)
        if options.protect_end:
            must |= token_column(signals, "is_end")[tokens].astype(np.bool_)
        mask[tokens] = must | ~np.repeat(keep[samples], lengths)
    needed = int(signals.counted(mask)[keep].sum())
    wanted, cut = count_to_keep(options.token_keep, count), None
    others = count - needed
    more = min(max(0, wanted - needed), others)
    if more:  # outside of the kept samples all is marked, so that these are others of theirs

        def free() -> Iterator[Floats]:
            return (excess[~mask[tokens]] for _, tokens, excess in _excesses(signals))

        cut = nth_highest(free, others, more)
        _add_highest(signals, mask, cut, more)
    over = f"rho: {needed:,} tokens kept, over the {wanted:,} of token_keep: the last and the highest stay"
    return mask, cut, (over,) if needed > wanted else ()


def _add_highest(signals: Signals, mask: Bools, cut: float, count: int) -> None:
    """Mark of the tokens that are not yet marked in (M,) those over `cut`, and as many that are at it, by the
    order of their samples' ids and then by their own, as there are `count` in all."""
    above, ties = 0, np.zeros(len(signals), dtype=np.int64)
    for samples, tokens, excess in _excesses(signals):
        lengths, free = signals.lengths_in(samples), ~mask[tokens]
        above += int((free & (excess > cut)).sum())
        owner = np.repeat(np.arange(len(lengths)), lengths)
        ties[samples] = np.bincount(owner[free & (excess == cut)], minlength=len(lengths))
    tied = np.flatnonzero(ties)
    whole, last, left = first_in_turn(ties[tied], np.argsort(signals.ids[tied], kind="stable"), count - above)
    chosen = np.zeros(len(signals), dtype=np.bool_)
    chosen[tied[whole]] = True
    for samples, tokens, excess in _excesses(signals):
        lengths, free = signals.lengths_in(samples), ~mask[tokens]
        at_cut = free & (excess == cut)
        more = (free & (excess > cut)) | (at_cut & np.repeat(chosen[samples], lengths))
        if left and samples.start <= tied[last] < samples.stop:
            begin, end = signals.offsets[tied[last] : tied[last] + 2] - tokens.start
            more[begin + np.flatnonzero(at_cut[begin:end])[:left]] = True
        mask[tokens] |= more


def _highest(excess: Floats, lengths: Ints) -> Bools:
    """The highest token of each sample of these lengths, of equal ones the first."""
    found = np.zeros(len(excess), dtype=np.bool_)
    sizes = lengths[lengths > 0]
    if len(sizes):
        begins = np.cumsum(sizes) - sizes
        largest = np.flatnonzero(excess == np.repeat(np.maximum.reduceat(excess, begins), sizes))
        _, first = np.unique(np.searchsorted(begins, largest, side="right"), return_index=True)
        found[largest[first]] = True
    return found
