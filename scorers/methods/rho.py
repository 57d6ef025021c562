"""RHO-1: tokens by their excess loss over a reference model (arXiv 2404.07965).

The excess of a token is its nll under the proxy model less that under a reference model, one trained on data
of the wanted kind. High is what the proxy has yet to learn and can; low is what it knows, or what nobody can
predict. Trained on are the tokens with the highest excess.

Notable choices:
- the paper ranks the tokens of a batch with the weights of the moment, inside training. Pruning ahead of
  training sees the whole corpus, so one ranking over the tokens of all kept samples is made;
- which samples are kept is ours: those with the highest mean excess. The paper keeps all (`--keep 100%`);
- a kept sample keeps its highest token at least, and its end-of-turn tokens unless asked otherwise: a model
  that never sees one does not learn to stop. Both use up budget, but stay even when they exceed it;
- ties go to the smaller sample id, then to the earlier token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scorers.column import Column
from scorers.method import Columns, Options, Selection, option, token_column, view
from scorers.selection.ranking import all_tokens, ranked_selection
from scorers.shares import count_to_keep
from scorers.signals.columns import Bools, Floats, Signals

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
        "paper-1b": {"keep": 1.0, "token_keep": 0.6},
        "paper-7b": {"keep": 1.0, "token_keep": 0.7},
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
        owner = np.repeat(np.arange(len(signals)), signals.lengths)
        total = np.bincount(owner, weights=_excess(signals), minlength=len(signals))
        return {"rho": total / np.maximum(signals.lengths, 1)}

    def token_scores(self, signals: Signals, options: RhoOptions) -> Columns:
        """Excess loss of every response token, float32."""
        return {"rho": _excess(signals).astype(np.float32)}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: RhoOptions, seed: int
    ) -> Selection:
        """thresholds: `rho`, the lowest mean that is kept, and `rho_token`, the lowest excess that made its
        token one of the highest."""
        values = np.asarray(scores["rho"], dtype=np.float64)
        chosen = ranked_selection(
            signals, values, share, among="mean excess loss among the highest", shown={"rho": values}
        )
        excess = _excess(signals)
        token_keep, cut, warnings = _keep_tokens(signals, chosen.keep, excess, options)
        kept = f"; {100 * options.token_keep:.6g} % of the tokens of all such samples kept"
        return Selection(
            keep=chosen.keep,
            reason=chosen.reason,
            reasons=(chosen.reasons[0] + kept, chosen.reasons[1]),
            token_keep=token_keep,
            thresholds={**chosen.thresholds, **({} if cut is None else {"rho_token": cut})},
            warnings=warnings,
        )


def _excess(signals: Signals) -> Floats:
    """nll under the proxy less nll under the reference of every response token, float64 (M,).

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
    return ours.astype(np.float64) - theirs.astype(np.float64)


def _keep_tokens(
    signals: Signals, keep: Bools, excess: Floats, options: RhoOptions
) -> tuple[Bools, float | None, tuple[str, ...]]:
    """Token mask (M,), True outside of the kept samples, the lowest excess within the budget, and a warning
    where what must stay is more than the budget."""
    mask = all_tokens(signals)
    if not len(excess) or not keep.any():
        return mask, None, ()
    by_id = np.empty(len(signals), dtype=np.int64)
    by_id[np.argsort(signals.ids, kind="stable")] = np.arange(len(signals))
    owner = np.repeat(np.arange(len(signals)), signals.lengths)
    tokens = np.flatnonzero(keep[owner])
    order = tokens[np.lexsort((tokens, by_id[owner[tokens]], -excess[tokens]))]
    _, first = np.unique(owner[order], return_index=True)  # each sample's highest token
    must = np.zeros(len(excess), dtype=np.bool_)
    must[order[first]] = True
    if options.protect_end:
        must[tokens] |= token_column(signals, "is_end")[tokens].astype(np.bool_)
    ranked = order[~must[order]]
    wanted, needed = count_to_keep(options.token_keep, len(tokens)), int(must.sum())
    mask[tokens] = must[tokens]
    mask[ranked[: max(0, wanted - needed)]] = True
    kept = order[mask[order] & ~must[order]]
    over = f"rho: {needed:,} tokens kept, over the {wanted:,} of token_keep: the last and the highest stay"
    return mask, float(excess[kept[-1]]) if len(kept) else None, (over,) if needed > wanted else ()
