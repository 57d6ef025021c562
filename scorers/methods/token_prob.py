"""Tokens by the probability that the model gives them: masked under a threshold (ProFit, arXiv 2601.09195),
or weighted by it (PriFT, arXiv 2606.09396).

`p_t = exp(-nll_t)` is the probability of response token t under the proxy model, which is to be the model
that will be trained or one close to it. Both papers train on likely tokens, and on all rows:

- `mode=mask`, ProFit's equations 4 and 5 and its authors' code: a token whose `p_t` is under the threshold
  has no loss; 0.1 in their runs;
- `mode=weight`, PriFT-prob: a token's loss is multiplied by its `p_t` under the model before training. The
  weights are constants through which no gradient goes, and they are not normalised: the sum is divided by the
  number of tokens, as in DFT (arXiv 2508.05629), whose code the authors' is made of.

Notable choices:
- ProFit takes the probabilities of the model as it trains, anew at each step; pruning ahead of training takes
  those of the model before, as PriFT does on purpose (such weights cannot feed on themselves);
- ProFit divides the sum of a step by the number of all its response tokens, those that are masked among them;
  a trainer that is given labels divides by the tokens that are left. Under AdamW that is nearly the same;
- a sample keeps its likeliest token at least, and its end-of-turn tokens unless asked otherwise: a model that
  never sees one does not learn to stop. The authors protect neither;
- which samples are kept is ours, where not all are: those of the highest mean probability.

Q-Tuning too takes the loss of unlikely tokens away, but in Q2 rows alone, which it keeps for the model being
wrong about them; and it keeps whole the rows about which the model is in doubt (Q4). Here an unlikely row
goes first, and an unlikely token of whatever row. Which of them is right is for an evaluation to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scorers.column import Column
from scorers.method import Columns, Options, Selection, option, token_column
from scorers.selection.ranking import all_tokens, ranked_selection
from scorers.signals.columns import Bools, Signals

MEAN = Column(
    "token_prob", "mean probability of the response tokens", direction="high", at_least=0, at_most=1
)
PROBABILITY = Column("token_prob", "probability of the token, exp(-nll)", "token", at_least=0, at_most=1)

_LEAST = float(np.finfo(np.float32).tiny)
"""Weight of a token whose probability is 0 in float32: one that weighs nothing would not be trained on."""


@dataclass(frozen=True, slots=True)
class TokenProbOptions(Options):
    mode: Literal["mask", "weight"] = option(
        "mask", "what becomes of tokens: those under the threshold are masked, or all weighted by probability"
    )
    threshold: float = option(
        0.1, "probability under which a token is masked (mode=mask)", at_least=0, at_most=1
    )
    protect_end: bool = option(
        True, "never mask end-of-turn tokens (mode=mask); off is the paper's behaviour"
    )


class TokenProb:
    """Keep the ceil(share * N) samples of highest mean token probability, and of their tokens those that are
    likely, or all of them with their probabilities as weights."""

    name = "token-prob"
    title = "Token probability: ProFit's mask, PriFT's weights"
    paper = "arXiv 2601.09195, 2606.09396"
    options = TokenProbOptions
    presets: Mapping[str, Mapping[str, Any]] = {
        "profit": {"keep": 1.0, "mode": "mask", "threshold": 0.1},
        "prift": {"keep": 1.0, "mode": "weight"},
    }
    columns: tuple[Column, ...] = (MEAN, PROBABILITY, MEAN.cut())

    def needs(self, options: TokenProbOptions) -> frozenset[str]:
        ends = options.mode == "mask" and options.protect_end
        return frozenset({"token:nll", "token:is_end"} if ends else {"token:nll"})

    def scores(self, signals: Signals, options: TokenProbOptions, seed: int) -> Columns:
        """token_prob: mean probability of the response tokens."""
        nll, total = token_column(signals, "nll"), np.empty(len(signals))
        for samples, tokens in signals.blocks():
            lengths = signals.lengths_in(samples)
            owner = np.repeat(np.arange(len(lengths)), lengths)
            found = _probability(nll[tokens])
            total[samples] = np.bincount(owner, weights=found, minlength=len(lengths))
        return {"token_prob": total / np.maximum(signals.lengths, 1)}

    def token_scores(self, signals: Signals, options: TokenProbOptions) -> Columns:
        """Probability of every response token, float32."""
        return {"token_prob": _probability(token_column(signals, "nll"))}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: TokenProbOptions, seed: int
    ) -> Selection:
        values = np.asarray(scores["token_prob"], dtype=np.float64)
        chosen = ranked_selection(
            signals,
            values,
            share,
            among="mean token probability among the highest",
            shown={"token_prob": values},
        )
        nll, weighted = token_column(signals, "nll"), options.mode == "weight"

        def weights(tokens: slice) -> NDArray[np.float32]:
            return np.maximum(_probability(nll[tokens]), _LEAST)

        done = "weighted by probability" if weighted else f"under {options.threshold:g} masked"
        return Selection(
            keep=chosen.keep,
            reason=chosen.reason,
            reasons=(f"{chosen.reasons[0]}; its tokens {done}", chosen.reasons[1]),
            token_keep=all_tokens(signals) if weighted else _likely(signals, options),
            token_weight=weights if weighted else None,
            thresholds=chosen.thresholds,
        )


def _probability(nll: NDArray[np.generic]) -> NDArray[np.float32]:
    """exp(-nll) of response tokens."""
    nats = -nll.astype(np.float32, copy=False)
    return np.exp(nats, out=nats)


def _likely(signals: Signals, options: TokenProbOptions) -> Bools:
    """Token mask (M,): not under the threshold, or the first of the likeliest of its sample, or an end."""
    nll = token_column(signals, "nll")
    mask = np.empty(len(nll), dtype=np.bool_)
    for samples, tokens in signals.blocks():
        here, lengths = mask[tokens], signals.lengths_in(samples)
        here[:] = _probability(nll[tokens]) >= np.float32(options.threshold)
        if options.protect_end:
            here |= token_column(signals, "is_end")[tokens].astype(np.bool_)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        some = (lengths > 0) & (np.bincount(owner[here], minlength=len(lengths)) == 0)
        for sample in (samples.start + np.flatnonzero(some)).tolist():
            begin, end = int(signals.offsets[sample]), int(signals.offsets[sample + 1])
            mask[begin + int(np.argmin(nll[begin:end]))] = True
    return mask
