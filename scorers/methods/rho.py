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
from scorers.selection.ranking import all_tokens, ranked_selection
from scorers.shares import count_to_keep
from scorers.signals.columns import Bools, Floats, Ints, Signals

RHO = Column("rho", "mean excess loss over the reference model", unit="nats", direction="high")
EXCESS = Column("rho", "nll less that under the reference model", "token", unit="nats", direction="high")

_BLOCK_SAMPLES = 16_384


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
        for samples, tokens in signals.blocks():
            lengths = signals.lengths[samples]
            owner = np.repeat(np.arange(len(lengths)), lengths)
            excess = _excess(signals, tokens)
            total[samples] = np.bincount(owner, weights=excess, minlength=len(lengths))
        return {"rho": total / np.maximum(signals.lengths, 1)}

    def token_scores(self, signals: Signals, options: RhoOptions) -> Columns:
        """Excess loss of every response token, float32."""
        column = np.empty(int(signals.offsets[-1]), dtype=np.float32)
        for _, tokens in signals.blocks():
            column[tokens] = _excess(signals, tokens)
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


def _excess(signals: Signals, tokens: slice) -> Floats:
    """nll under the proxy less nll under the reference of these response tokens, float64.

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
    return ours[tokens].astype(np.float64) - theirs[tokens].astype(np.float64)


def _keep_tokens(
    signals: Signals, keep: Bools, options: RhoOptions
) -> tuple[Bools, float | None, tuple[str, ...]]:
    """Token mask (M,), True outside of the kept samples, the lowest excess within the budget, and a warning
    where what must stay is more than the budget."""
    mask = all_tokens(signals)
    concerned = np.repeat(keep, signals.lengths)
    excess = _excess_of(signals, concerned)
    if not len(excess):
        return mask, None, ()
    samples = np.flatnonzero(keep & (signals.lengths > 0))
    lengths = signals.lengths[samples]
    must = _highest(excess, lengths)
    if options.protect_end:
        must |= token_column(signals, "is_end")[concerned].astype(np.bool_)
    wanted, needed = count_to_keep(options.token_keep, len(excess)), int(must.sum())
    others = excess[~must]
    more, cut = min(max(0, wanted - needed), len(others)), None
    if more:
        others.partition(len(others) - more)  # in place: there are many
        cut = float(others[len(others) - more])
        above = int((others > cut).sum())
        tied = (excess == cut) & ~must
        must |= excess > cut
        must |= _first(tied, lengths, np.argsort(signals.ids[samples], kind="stable"), more - above)
    mask[concerned] = must
    over = f"rho: {needed:,} tokens kept, over the {wanted:,} of token_keep: the last and the highest stay"
    return mask, cut, (over,) if needed > wanted else ()


def _excess_of(signals: Signals, tokens: Bools) -> Floats:
    """The excess of the tokens that are marked in (M,), without copies of all that it is made of."""
    found = np.empty(int(tokens.sum()))
    done = 0
    for _, block in signals.blocks():
        some = _excess(signals, block)[tokens[block]]
        found[done : done + len(some)] = some
        done += len(some)
    return found


def _parts(lengths: Ints) -> Iterator[tuple[slice, slice]]:
    """Some samples of these lengths at a time, and their tokens."""
    ends = np.cumsum(lengths)
    for start in range(0, len(lengths), _BLOCK_SAMPLES):
        stop = min(start + _BLOCK_SAMPLES, len(lengths))
        yield slice(start, stop), slice(int(ends[start] - lengths[start]), int(ends[stop - 1]))


def _highest(excess: Floats, lengths: Ints) -> Bools:
    """Each sample's highest token, of equal ones the first. `lengths` are all above 0."""
    found = np.zeros(len(excess), dtype=np.bool_)
    for samples, tokens in _parts(lengths):
        values, sizes = excess[tokens], lengths[samples]
        begins = np.cumsum(sizes) - sizes
        largest = np.flatnonzero(values == np.repeat(np.maximum.reduceat(values, begins), sizes))
        _, first = np.unique(np.searchsorted(begins, largest, side="right"), return_index=True)
        found[tokens.start + largest[first]] = True
    return found


def _first(marked: Bools, lengths: Ints, order: Ints, count: int) -> Bools:
    """The first `count` of the tokens that are marked, (m,): by the order of their samples, (n,), which have
    these lengths, then by their own."""
    each = np.empty(len(lengths), dtype=np.int64)
    for samples, tokens in _parts(lengths):
        sizes = lengths[samples]
        each[samples] = np.add.reduceat(marked[tokens], np.cumsum(sizes) - sizes, dtype=np.int64)
    taken = np.cumsum(each[order])
    whole = int(np.searchsorted(taken, count, side="right"))
    chosen = np.zeros(len(lengths), dtype=np.bool_)
    chosen[order[:whole]] = True
    found = marked & np.repeat(chosen, lengths)
    left = count - (int(taken[whole - 1]) if whole else 0)
    if left:
        last = order[whole]
        begin = int(lengths[:last].sum())
        found[begin + np.flatnonzero(marked[begin : begin + lengths[last]])[:left]] = True
    return found
