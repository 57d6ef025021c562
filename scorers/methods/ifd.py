"""IFD: how much the instruction helps to predict the response (arXiv 2308.12032, 2402.00530).

L(A|Q) is the mean nll of the response after its prompt, L(A) that of the response without it. The prompt of
a sample near 1 hardly helps: such an instruction is hard to follow, and worth learning. At 1 and above the
prompt does not help at all, which speaks for an answer that does not belong to it.

Notable choices:
- both published ratios are offered, as they rank differently: `loss` is L(A|Q) / L(A), of Cherry LLM, `ppl`
  is exp(L(A|Q)) / exp(L(A)), of Superfiltering;
- so are both forms of the response without its prompt: Cherry LLM keeps the words that open an answer,
  Superfiltering scores the bare text, of which the first token is then not predicted. End-of-turn tokens,
  which a bare text has not, are left out of L(A|Q) too in that form;
- 1 and above is dropped, as in Superfiltering's code; Cherry LLM's keeps a ratio of exactly 1. The share is
  of all samples, as in Superfiltering; Cherry LLM's code takes it of those that are left after dropping;
- where samples are cut to the length limit, L(A) is of what is left of the response, as in both; Cherry LLM
  leaves such samples out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scorers.column import Column
from scorers.method import Columns, Options, Selection, option, sample_column, token_column, view
from scorers.methods.ppl import perplexity
from scorers.selection.ranking import all_tokens, keep_highest
from scorers.shares import count_to_keep
from scorers.signals.columns import Floats, Signals

IFD = Column(
    "ifd",
    "loss, or perplexity, of the response with its prompt over that without; from 1 on nothing is kept",
    direction="high",
    at_least=0,
)


@dataclass(frozen=True, slots=True)
class IfdOptions(Options):
    mode: Literal["loss", "ppl"] = option(
        "loss", "ratio of the mean losses (Cherry LLM) or of the perplexities (Superfiltering)"
    )
    without_prompt: Literal["header", "bare"] = option(
        "header",
        "what is left of a sample without its prompt: the chat template's opening of the answer and the "
        "answer, or the bare text of the answer",
    )


class Ifd:
    """Keep the ceil(share * N) samples with the highest IFD below 1; fewer where not so many are below.

    When none is below 1, the one sample with the lowest is kept.
    """

    name = "ifd"
    title = "IFD: instruction-following difficulty, the response's loss with its prompt over that without"
    paper = "arXiv 2308.12032, 2402.00530"
    options = IfdOptions
    presets: Mapping[str, Mapping[str, Any]] = {
        "cherry": {"keep": 0.05, "mode": "loss", "without_prompt": "header"},
        "superfiltering": {"keep": 0.1, "mode": "ppl", "without_prompt": "bare"},
    }
    columns: tuple[Column, ...] = (
        IFD,
        Column("nll_without_prompt", "mean nll of the response without its prompt", unit="nats", at_least=0),
        IFD.cut("ifd_kept", "least that is kept"),
        IFD.cut("ifd_dropped", "1, where something was dropped for being no less"),
    )

    def needs(self, options: IfdOptions) -> frozenset[str]:
        if options.without_prompt == "bare":
            return frozenset({"token:nll", "token:is_end", "bare:nll"})
        return frozenset({"nll", "free:nll"})

    def scores(self, signals: Signals, options: IfdOptions, seed: int) -> Columns:
        """ifd, and `nll_without_prompt`, which is L(A)."""
        if options.without_prompt == "bare":
            with_prompt, alone = _content_nll(signals), sample_column(view(signals, "bare"), "nll")
        else:
            with_prompt, alone = sample_column(signals, "nll"), sample_column(view(signals, "free"), "nll")
        return {"ifd": ifd(with_prompt, alone, options.mode), "nll_without_prompt": alone}

    def token_scores(self, signals: Signals, options: IfdOptions) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: IfdOptions, seed: int
    ) -> Selection:
        """thresholds: `ifd_kept`, the lowest that is kept, and `ifd_dropped`, 1, when that dropped any."""
        values = np.asarray(scores["ifd"], dtype=np.float64)
        helps = values < 1
        eligible = helps if helps.any() else keep_highest(-values, signals.ids, min(1, len(values)))
        count = min(count_to_keep(share, len(values)), int(eligible.sum()))
        keep = keep_highest(np.where(eligible, values, -np.inf), signals.ids, count)
        highest = f"among the highest {100 * share:.6g} % of those below 1"
        thresholds = {"ifd_kept": float(values[keep].min())} if count else {}
        if not helps.all():
            thresholds["ifd_dropped"] = 1.0
        return Selection(
            keep=keep,
            reason=np.select([keep & helps, keep, helps], [0, 3, 1], default=2),
            reasons=(
                f"IFD {highest}",
                f"IFD not {highest}",
                "IFD at least 1: the prompt does not help to predict the response",
                "IFD the lowest where none is below 1",
            ),
            token_keep=all_tokens(signals),
            thresholds=thresholds,
        )


def ifd(with_prompt: Floats, alone: Floats, mode: Literal["loss", "ppl"]) -> Floats:
    """IFD of mean losses L(A|Q) and L(A), nats, each (N,). Finite; a response that needs no prompt to be
    certain (L(A) = 0) has the largest there is, or 1 when it is as certain with its prompt."""
    if mode == "ppl":
        return perplexity(with_prompt - alone)
    ratio = np.where(with_prompt > 0, np.finfo(np.float64).max, 1.0)
    np.divide(with_prompt, alone, out=ratio, where=alone > 0)
    return ratio


def _content_nll(signals: Signals) -> Floats:
    """Mean nll of each sample's response tokens, (N,), those that close a turn left out."""
    nll, is_end = token_column(signals, "nll"), token_column(signals, "is_end")
    mean = np.empty(len(signals))
    for samples, tokens in signals.blocks():
        lengths = signals.lengths_in(samples)
        counted = ~is_end[tokens].astype(np.bool_)
        owner = np.repeat(np.arange(len(lengths)), lengths)[counted]
        total = np.bincount(owner, weights=nll[tokens][counted], minlength=len(lengths))
        mean[samples] = total / np.maximum(np.bincount(owner, minlength=len(lengths)), 1)
    return mean
