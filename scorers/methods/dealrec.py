"""DEALRec: samples that move the risk and that the model must work for, spread over both (arXiv 2401.17197).

Influence is what removing a sample would do to the risk, effort the norm of the gradient that it sends into
the model to be tuned. Their sum is the score; samples are then drawn evenly from its range (`coverage`).

Notable choices:
- the paper takes influence from a small surrogate trained on the corpus, by LiSSA on one late layer
  (`curvature="lissa"`, the proxy model being the surrogate). The default reads it off the proxy model's
  projected head gradients, with an exact damped solve (`influence`);
- effort is by default the norm of the whole head gradient, which the forward pass gives. It is mostly how
  short a response is (rank correlation with its length -0.91 over all of Alpaca: gradients of tokens cancel
  in the mean), which the run warns of. `effort="lora"` is the paper's, the gradient of the last
  `v_proj.lora_B` (`lora_effort`);
- presets are all settings of the authors' code, with LiSSA and LoRA effort, and take as long. The models are
  the run's: its proxy is in place of the surrogate that the paper trains on the corpus, and of LLaMA-7B. 2 %
  is what the paper says of its 1,024 samples, which is so for Games (49,156);
- at a trained optimum the gradient of the training risk vanishes, and every influence with it. A target set
  (`risk="target"`) asks which samples help there instead; the default stays the paper's;
- min-max scaling, the paper's, lets one outlier squeeze all others together; `scaling="rank"` does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scorers.column import Column
from scorers.method import Columns, Options, Selection, option, sample_column
from scorers.selection.coverage import COVERAGE, coverage_selection
from scorers.selection.influence import PROJECTION, influence, mean_gradient, target_gradient
from scorers.selection.ranking import middle_ranks
from scorers.signals.columns import Floats, Signals, corpus_need

_FLAT = 1e-12  # a min-max range below this is no range


@dataclass(frozen=True, slots=True)
class DealRecOptions(Options):
    """The paper's settings are 0.3 (Games) or 1.0 (Book, MicroLens-50K) for the weight of effort, 50 bins and
    a tenth cut. It names no damping of an exact solve: ten times the mean is about a tenth of the largest
    eigenvalue on Alpaca; with 0.1, also in use, the noise of the projection outweighs what the
    solve gains on few samples (`benchmarks/influence.py`)."""

    risk: Literal["training", "target"] = option(
        "training", "the risk that influence is about: the mean over the corpus, or over the target set"
    )
    curvature: Literal["gradients", "lissa"] = option(
        "gradients",
        "what stands for the Hessian: the second moment of projected head gradients, solved exactly; or as "
        "in the paper LiSSA on one late layer (thousands of backward passes)",
    )
    damping: float = option(
        10.0, "damping of the solve, in units of the mean squared gradient; more is steadier", above=0
    )
    lissa_steps: int = option(5000, "LiSSA: steps, of one random sample each", at_least=1, at_most=10**7)
    lissa_damp: float = option(0.01, "LiSSA: damping of a step", at_least=0, below=1)
    lissa_scale: float = option(25.0, "LiSSA: what curvature is divided by; more if it diverges", above=0)
    lissa_layer: str = option(
        "", "LiSSA: the weight that influence is by, by its name; default: the last attention output"
    )
    effort: Literal["head", "lora"] = option(
        "head",
        "the gradient whose norm is the effort: the output head's, or as in the paper the last block's "
        "v_proj.lora_B of a fresh LoRA (needs a backward pass)",
    )
    effort_weight: float = option(0.5, "lambda: weight of effort beside influence", at_least=0)
    scaling: Literal["minmax", "rank"] = option(
        "minmax", "how influence and effort are made comparable: min-max as in the paper, or ranks"
    )
    hard_prune: float = option(
        0.1, "share of the samples, those of the highest score, cut before drawing", at_least=0, below=1
    )
    bins: int = option(50, "K: score bins that samples are drawn from", at_least=1, at_most=1_000_000)


class DealRec:
    """Exactly ceil(share * N) samples, drawn evenly over the range of influence + lambda * effort.

    Where share and `hard_prune` together exceed 1, fewer samples are cut.
    """

    name = "dealrec"
    title = "DEALRec: influence and effort, with coverage of the score's range"
    paper = "arXiv 2401.17197"
    options = DealRecOptions
    presets: Mapping[str, Mapping[str, Any]] = {
        name: {"keep": 0.02, "effort_weight": weight, "curvature": "lissa", "effort": "lora"}
        for name, weight in (("paper-games", 0.3), ("paper-book", 1.0), ("paper-microlens", 1.0))
    }
    columns: tuple[Column, ...] = (
        Column("influence", "what leaving the sample out adds to the risk, to first order"),
        Column(
            "effort",
            "gradient norm: of the head, mostly high where the response is short, or of the adapter",
            at_least=0,
        ),
        Column("dealrec", "scaled influence plus weighted, scaled effort", at_least=0),
        *COVERAGE,
    )

    def needs(self, options: DealRecOptions) -> frozenset[str]:
        by_lissa = options.curvature == "lissa"
        always = {_lissa(options) if by_lissa else PROJECTION, _EFFORT[options.effort]}
        target = "target:nll" if by_lissa else f"target:{PROJECTION}"
        return frozenset(always | {target} if options.risk == "target" else always)

    def scores(self, signals: Signals, options: DealRecOptions, seed: int) -> Columns:
        if options.curvature == "lissa":
            moved = sample_column(signals, _lissa(options))
        else:
            v = target_gradient(signals) if options.risk == "target" else mean_gradient(signals)
            moved = influence(signals, v, options.damping)
        effort = sample_column(signals, _EFFORT[options.effort])
        scale = _SCALINGS[options.scaling]
        score = scale(moved) + options.effort_weight * scale(effort)
        return {"influence": moved, "effort": effort, "dealrec": score}

    def token_scores(self, signals: Signals, options: DealRecOptions) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: DealRecOptions, seed: int
    ) -> Selection:
        """Besides the masks each sample's score `bin`, from the lowest scores on; -1 for one that was cut."""
        return coverage_selection(
            signals,
            np.asarray(scores["dealrec"], dtype=np.float64),
            share,
            hard_prune=options.hard_prune,
            bins=options.bins,
            seed=seed,
            name="DEALRec score",
        )


def _lissa(options: DealRecOptions) -> str:
    """The signal that the options ask for."""
    return corpus_need(
        "lissa_influence",
        risk=options.risk,
        steps=options.lissa_steps,
        damp=options.lissa_damp,
        scale=options.lissa_scale,
        layer=options.lissa_layer,
    )


def minmax(values: Floats) -> Floats:
    """`values` (N,) stretched to [0, 1]; zeros where they have no range."""
    if len(values) == 0 or values.max() - values.min() < _FLAT:
        return np.zeros(len(values))
    stretched: Floats = (values - values.min()) / (values.max() - values.min())
    return stretched


def rank_scaled(values: Floats) -> Floats:
    """Ranks of `values` (N,) in [0, 1], equal ones sharing the middle of theirs; zeros for a single value."""
    return middle_ranks(values) / max(len(values) - 1, 1)


_EFFORT = {"head": "head_grad_norm", "lora": "lora_effort"}
_SCALINGS = {"minmax": minmax, "rank": rank_scaled}
