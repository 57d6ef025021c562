"""Judge: keep what a teacher rates highest by a rubric (AlpaGasus, arXiv 2307.08701; DEITA, arXiv
2312.15685).

AlpaGasus has a language model rate the accuracy of each response from 0 to 5 and keeps those of at least 4.5.
DEITA rates the complexity of the instruction and the quality of the response from 1 to 6, sums each over the
turns, and ranks by their product.

The rubrics are files with versions (`datapruner.judging.rubrics`); a run's lineage has the versions and
hashes of those that it used, and the teacher's name.

Notable choices:
- ratings have few values, so that the share cuts through ties: those are decided by sample id. `at_least`
  cuts between values, as AlpaGasus does, and the share then bounds what is left;
- DEITA's filter for diversity is no part of it: `semdedup` and `divprune` are methods of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scorers.column import Column
from scorers.method import Columns, Options, Selection, option, sample_column
from scorers.selection.ranking import all_tokens, keep_highest
from scorers.shares import count_to_keep
from scorers.signals.columns import RATING, Signals, corpus_need

JUDGE = Column(
    "judge",
    "the teacher's rating: accuracy, 0 to 5 (alpagasus), or complexity times quality (deita)",
    direction="high",
    at_least=0,
)
_OF_DEITA = {
    score: Column(f"judge_{score}", f"{text}, summed over the turns (deita)", direction="high", at_least=0)
    for score, text in (
        ("complexity", "how complex the instructions are, 1 to 6 each"),
        ("quality", "how good the responses are, 1 to 6 each"),
    )
}


@dataclass(frozen=True, slots=True)
class JudgeOptions(Options):
    rubric: Literal["alpagasus", "deita"] = option("alpagasus", "what the teacher rates by")
    at_least: float = option(
        0.0, "drop samples rated lower; 0: the share kept alone decides", at_least=0, at_most=1e9
    )
    max_tokens: int = option(
        512, "most tokens of an answer, what a teacher thinks first included", at_least=16, at_most=65536
    )


class Judge:
    """Keep the ceil(share * N) samples of the highest rating, and none below `at_least`.

    Where `at_least` leaves fewer than the share, all that it leaves are kept: a share of 1 is `at_least`
    alone.
    """

    name = "judge"
    title = "Ratings by a teacher model, by AlpaGasus' or DEITA's rubric"
    paper = "arXiv 2307.08701, 2312.15685"
    options = JudgeOptions
    presets: Mapping[str, Mapping[str, Any]] = {"alpagasus-4.5": {"keep": 1.0, "at_least": 4.5}}
    columns: tuple[Column, ...] = (
        JUDGE,
        *_OF_DEITA.values(),
        JUDGE.cut(meaning="lowest rating that is kept"),
    )

    def needs(self, options: JudgeOptions) -> frozenset[str]:
        return frozenset(_needs(options).values())

    def scores(self, signals: Signals, options: JudgeOptions, seed: int) -> Columns:
        """`judge`; by the rubric deita `judge_complexity` and `judge_quality` too."""
        found = {score: sample_column(signals, need) for score, need in _needs(options).items()}
        if options.rubric == "alpagasus":
            return {"judge": found["accuracy"]}
        parts = {_OF_DEITA[score].name: found[score] for score in _OF_DEITA}
        return {"judge": found["complexity"] * found["quality"], **parts}

    def token_scores(self, signals: Signals, options: JudgeOptions) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: JudgeOptions, seed: int
    ) -> Selection:
        """threshold `judge`: the lowest rating that is kept."""
        rating = np.asarray(scores["judge"], dtype=np.float64)
        keep = keep_highest(rating, signals.ids, count_to_keep(share, len(signals)))
        low = rating < options.at_least
        keep &= ~low
        percent = f"{100 * share:.6g} %"
        return Selection(
            keep=keep,
            reason=np.select([keep, low], [0, 2], default=1),
            reasons=(
                f"the teacher's rating among the highest {percent}",
                f"the teacher's rating not among the highest {percent}",
                f"the teacher's rating under {options.at_least:g}",
            ),
            token_keep=all_tokens(signals),
            thresholds={"judge": float(rating[keep].min())} if keep.any() else {},
        )


def _needs(options: JudgeOptions) -> dict[str, str]:
    """The signal that each of the rubric's scores is."""
    of = ("accuracy",) if options.rubric == "alpagasus" else tuple(_OF_DEITA)
    return {
        score: corpus_need(RATING, rubric=options.rubric, score=score, max_tokens=options.max_tokens)
        for score in of
    }
