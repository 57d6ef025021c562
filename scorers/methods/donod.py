"""DONOD: how one gradient step on the sample alone would move the output head (arXiv 2504.14810).

DON = ||W|| - ||W'|| and NOD = ||W - W'||, both to be low, merged by TOPSIS. The step is never taken: with G
the gradient of the mean response loss by the head, both follow from ||G||, <W, G> and ||W||.

Notable choices:
- which end of DON is kept. The paper has DON as the norm before the step less the norm after it, and claims
  that noise is filtered; what is open to us of it does not say which end is ideal, and no code is published.
  With plain SGD a head shrinks by mean(nll - H): most by answers that surprise the model more than expected.
  Of 600 Alpaca rows with 40 defects of each kind, read by SmolLM2-135M, the half kept by high DON
  (`don_sign=1`) has all gibberish, 93 % of the truncated and 62 % of the swapped answers; that by low DON
  none, 2 % and 25 %, but 90 % of the answers that repeat themselves (32 %). So low: it does what is claimed;
- high may have been meant for another optimizer: a first step of Adam has its DON by <W, sign G>, where
  gibberish is lowest (AUC 0.01 on 100 of these rows), though swapped answers are still high (0.75);
- the step is plain SGD: the paper names no optimizer, and a first Adam step has the same length for every
  sample, which would make NOD constant;
- DON is computed without subtracting norms, of which the difference drowns in rounding at practical rates;
- presets name what they keep: no rate and no optimizer are published, so that none is the paper's whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scorers.column import Column, Direction
from scorers.method import Columns, Options, Selection, option, sample_column
from scorers.selection.ranking import ranked_selection
from scorers.selection.topsis import topsis
from scorers.signals.columns import SAMPLE_SIGNALS, Floats, Signals

DONOD = Column(
    "donod", "TOPSIS closeness of don and nod", direction="high", at_least=0, at_most=1, always=True
)
_DON_KEPT: Mapping[int, Direction] = {1: "high", -1: "low"}


@dataclass(frozen=True, slots=True)
class DonodOptions(Options):
    """The paper names no learning rate. 2e-5 is the usual one for fine-tuning; NOD's share in the ranking
    does not depend on it, DON's does only through a term that shrinks with it."""

    learning_rate: float = option(2e-5, "rate of the SGD step whose effect is scored", above=0)
    don_sign: Literal[1, -1] = option(
        -1, "which end of DON is kept: -1, a head that grows, which drops noise; 1, one that shrinks"
    )
    tied_exact: bool = option(
        False,
        "for a head tied to the input embedding, count the gradient that arrives through the embedding too "
        "(needs a backward pass)",
    )
    don_weight: float = option(0.5, "weight of DON in TOPSIS; only its ratio to nod_weight matters", above=0)
    nod_weight: float = option(0.5, "weight of NOD in TOPSIS", above=0)


class Donod:
    """Keep the ceil(share * N) samples closest to the ideal of a low NOD and a low DON, or a high one."""

    name = "donod"
    title = "DONOD: norm change and change norm of the output head, merged by TOPSIS"
    paper = "arXiv 2504.14810"
    options = DonodOptions
    presets: Mapping[str, Mapping[str, Any]] = {"share-30": {"keep": 0.3}}
    columns: tuple[Column, ...] = (
        *(
            SAMPLE_SIGNALS[name]
            for name in ("head_grad_norm", "head_grad_dot", "tied_grad_norm", "tied_grad_dot")
        ),
        Column("don", "||W|| - ||W'||, of the head before and after the step", direction="low", always=True),
        Column(
            "nod",
            "||W - W'||, of the head before and after the step",
            direction="low",
            at_least=0,
            always=True,
        ),
        DONOD,
        DONOD.cut(),
    )

    def needs(self, options: DonodOptions) -> frozenset[str]:
        return frozenset({*_gradient_signals(options), "head_norm"})

    def scores(self, signals: Signals, options: DonodOptions, seed: int) -> Columns:
        norm_name, dot_name = _gradient_signals(options)
        grad_norm, grad_dot = sample_column(signals, norm_name), sample_column(signals, dot_name)
        don, nod = don_nod(grad_norm, grad_dot, sample_column(signals, "head_norm"), options.learning_rate)
        closeness = topsis(
            np.column_stack((don, nod)),
            (options.don_weight, options.nod_weight),
            (_DON_KEPT[options.don_sign], "low"),
        )
        return {norm_name: grad_norm, dot_name: grad_dot, "don": don, "nod": nod, "donod": closeness}

    def token_scores(self, signals: Signals, options: DonodOptions) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: DonodOptions, seed: int
    ) -> Selection:
        closeness = np.asarray(scores["donod"], dtype=np.float64)
        among = f"DONOD closeness (to {_DON_KEPT[options.don_sign]} DON, low NOD) among the highest"
        return ranked_selection(signals, closeness, share, among=among, shown={"donod": closeness})


def don_nod(grad_norm: Floats, grad_dot: Floats, head_norm: Floats, rate: float) -> tuple[Floats, Floats]:
    """(DON, NOD), each (N,), of an SGD step of `rate` from a head W along the mean gradient G.

    grad_norm: ||G||, grad_dot: <W, G>, head_norm: ||W||, Frobenius, float64 (N,).
    """
    nod = rate * grad_norm
    shrinkage = 2 * rate * grad_dot - nod * nod  # ||W||^2 - ||W'||^2
    # never negative but by rounding: |<W, G>| <= ||W|| ||G||
    stepped_norm = np.sqrt(np.maximum(head_norm * head_norm - shrinkage, 0))
    total = head_norm + stepped_norm
    return np.divide(shrinkage, total, out=np.zeros_like(nod), where=total > 0), nod


def _gradient_signals(options: DonodOptions) -> tuple[str, str]:
    return ("tied_grad_norm", "tied_grad_dot") if options.tied_exact else ("head_grad_norm", "head_grad_dot")
