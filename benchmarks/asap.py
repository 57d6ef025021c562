"""Does it matter which steps of a chain of thought go? Each score of steps against others, to the same
length.

    python -m benchmarks.asap traces.parquet ... [--rows 24] [--ratio 0.5] [--seed 0] [--model smollm2-135m]

Takes rows with a question (problem, prompt), thinking and answer (or code), and for each way of shortening
the thinking to the same token budget measures the answer again with the model. Printed are the tokens left,
how much the answer's nll (mean over its tokens, then over rows) moves against the whole thinking, its
standard error over rows, and how many rows do better than with random steps. Lower is better: the thinking
that is left still says what the answer needs. A second table has what stays of each kind of step, by tokens:
backtracking, equations, code, and what is none of these.

    first-token    the steps of lowest first-token surprisal go first (ASAP)
    later-tokens   the steps whose later tokens are least probable go first (ASLEC-DROP's sign)
    -first-token, -later-tokens   the other way round
    random         in a random order (mean of several)
    longest        the longest go first
    nothing        no thinking is left at all
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

import datapruner
from benchmarks.figures import figure
from datapruner.rewriting.reasoning import Parts, ReasoningFinder
from scorers.reasoning.asap import first_token, later_tokens, locate
from scorers.reasoning.removal import removal_order
from scorers.reasoning.steps import Span, removed_spans, split_steps, without

RANDOM_ORDERS = 2


BACKTRACKING = re.compile(
    r"\s*(?:but\s+)?(?:wait|hmm+|hold on|actually|alternatively|no,|let me (?:double|re-?(?:check|think)))",
    re.IGNORECASE,
)
CODE = re.compile(r"(?m)^\s*(?:```|~~~|def \w+\(|class \w+.*:|import \w+|from \w+ import )")
EQUATION = re.compile(r"\\\[|\$\$|\\begin\{|\\frac|[\w)\]}]\s*=\s*[-\w(\\{[]")


def kind_of(step: str) -> str:
    """The kind of a step, the first that fits: by its first words, or by what it holds."""
    if BACKTRACKING.match(step):
        return "backtracking"
    if CODE.search(step):
        return "code"
    return "equations" if EQUATION.search(step) else "plain"


@dataclass(frozen=True)
class Trace:
    """One row: its parts, the steps of its reasoning, their tokens with the gap behind, and their scores."""

    question: str
    parts: Parts
    steps: list[Span]
    size: np.ndarray
    scores: dict[str, np.ndarray]

    def shortened(self, order: np.ndarray, ratio: float) -> np.ndarray:
        """Which steps stay, (K,), once they went roughly in this order until the budget fits."""
        budget = int(ratio * self.size.sum())
        keep = np.ones(len(self.steps), np.bool_)
        for group in removal_order(order, self.size, budget):
            if self.size[keep].sum() <= budget or keep.sum() == 1:
                break
            keep[group] = False
        return keep

    def left(self, keep: np.ndarray) -> str:
        return self.response(without(self.parts.reasoning, removed_spans(self.steps, keep.tolist())))

    def response(self, reasoning: str) -> str:
        return f"{self.parts.opening}{reasoning}{self.parts.closing}{self.parts.answer}"

    def kinds(self) -> list[str]:
        return [kind_of(self.parts.reasoning[start:end]) for start, end in self.steps]


def rows_of(paths: list[Path], count: int, characters: int, steps: int, seed: int) -> list[dict[str, str]]:
    """`count` rows with short enough text and enough steps, as evenly from the files as they have them."""
    chosen: list[dict[str, str]] = []
    for number, path in enumerate(paths):
        frame = pl.read_parquet(path)
        question = next(name for name in ("question", "problem", "prompt") if name in frame.columns)
        answer = "answer" if "answer" in frame.columns else "code"
        frame = frame.select(question=question, thinking="thinking", answer=answer).drop_nulls()
        frame = frame.filter(
            (pl.col("thinking").str.len_chars() + pl.col("answer").str.len_chars()).is_between(
                500, characters
            )
            & (pl.col("answer").str.strip_chars().str.len_chars() > 0)
        ).unique("question", keep="first", maintain_order=True)
        long_enough = [row for row in frame.to_dicts() if len(split_steps(row["thinking"])) >= steps]
        wanted = (count - len(chosen)) // (len(paths) - number)
        picks = np.random.default_rng(seed).permutation(len(long_enough))[:wanted]
        chosen += [long_enough[int(pick)] for pick in sorted(picks)]
    return chosen


def responses(rows: list[dict[str, str]], model: str) -> pl.DataFrame:
    """Response tokens of question-answer rows, by the proxy model; `row` is the index here."""
    return datapruner.score(rows, ("ppl",), model=model).token_scores


def traces(rows: list[dict[str, str]], tokens: pl.DataFrame) -> Iterator[Trace]:
    finder = ReasoningFinder()
    for row, (_, seen) in zip(rows, tokens.group_by("row", maintain_order=True), strict=True):
        parts = finder.parts(f"<think>\n{row['thinking']}\n</think>\n{row['answer']}")
        assert parts is not None, row
        steps = split_steps(parts.reasoning)
        shift = len(parts.opening)
        start, end = (seen[name].to_numpy().astype(np.int64) - shift for name in ("char_start", "char_end"))
        found = locate(parts.reasoning, steps, start, end)
        assert (found.first >= 0).all(), "a trace was cut at the proxy model's length"
        nll = seen["nll"].to_numpy()
        begins = np.array([begin for begin, _ in steps] + [len(parts.reasoning)])
        size = np.diff(np.searchsorted(start, begins))
        scores = {"first-token": first_token(found, nll), "later-tokens": later_tokens(found, nll)}
        yield Trace(row["question"], parts, steps, size, scores)


def answer_nll(made: list[tuple[Trace, str]], model: str) -> np.ndarray:
    """Mean nll of the answer's tokens in each of these responses, (n,)."""
    rows = [{"question": trace.question, "answer": response} for trace, response in made]
    tokens = responses(rows, model)
    # Two orders may leave the same text, which is measured once and listed under its first row.
    first: dict[tuple[str, str], int] = {}
    for index, row in enumerate(rows):
        first.setdefault((row["question"], row["answer"]), index)
    means: dict[int, float] = {}
    for index, starts, nll in tokens.group_by("row").agg("char_start", "nll").iter_rows():
        begin = len(rows[index]["answer"]) - len(made[index][0].parts.answer)
        means[index] = float(np.mean(np.array(nll)[np.array(starts) >= begin]))
    return np.array([means[first[row["question"], row["answer"]]] for row in rows])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--rows", type=int, default=30)
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--characters", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    rows = rows_of(given.data, given.rows, given.characters, given.steps, given.seed)
    known = list(traces(rows, responses(rows, given.model)))
    rng = np.random.default_rng(given.seed)
    orders: dict[str, list[Any]] = {
        name: [np.argsort(sign * t.scores[score], kind="stable") for t in known]
        for score in ("first-token", "later-tokens")
        for name, sign in ((score, 1), (f"-{score}", -1))
    }
    orders["longest"] = [np.argsort(-t.size, kind="stable") for t in known]
    orders |= {f"random {n}": [rng.permutation(len(t.steps)) for t in known] for n in range(RANDOM_ORDERS)}
    keeps = {
        name: [t.shortened(order, given.ratio) for t, order in zip(known, of_each, strict=True)]
        for name, of_each in orders.items()
    }
    keeps = {"whole": [np.ones(len(t.steps), np.bool_) for t in known], **keeps}
    made = [(t, t.left(keep)) for each in keeps.values() for t, keep in zip(known, each, strict=True)] + [
        (t, t.response("")) for t in known
    ]
    nll = dict(zip([*keeps, "nothing"], answer_nll(made, given.model).reshape(-1, len(known)), strict=True))
    shares = {name: kept_shares(known, each) for name, each in keeps.items()}
    nll["random"] = np.mean([nll.pop(f"random {n}") for n in range(RANDOM_ORDERS)], axis=0)
    drawn = [shares.pop(f"random {n}") for n in range(RANDOM_ORDERS)]
    shares["random"] = {kind: float(np.mean([each[kind] for each in drawn])) for kind in drawn[0]}
    report(known, nll, shares)


KINDS = ("backtracking", "equations", "code", "plain")


def kept_shares(known: list[Trace], keeps: list[np.ndarray]) -> dict[str, float]:
    """Share of the tokens that stay of each kind of step, and of all; NaN of a kind that there is not."""
    kinds = np.array([kind for t in known for kind in t.kinds()])
    sizes = np.concatenate([t.size for t in known])
    keep = np.concatenate(keeps)
    masks = {kind: kinds == kind for kind in KINDS} | {"all": np.ones(len(kinds), np.bool_)}
    return {
        name: float(sizes[mask & keep].sum() / sizes[mask].sum()) if mask.any() else float("nan")
        for name, mask in masks.items()
    }


def report(known: list[Trace], nll: dict[str, np.ndarray], shares: dict[str, dict[str, float]]) -> None:
    n, tokens = len(known), sum(int(t.size.sum()) for t in known)
    print(f"{n} traces, {sum(len(t.steps) for t in known)} steps, {tokens:,} tokens of reasoning")
    table = Table(
        "goes first", "answer nll", "against whole", "s.e.", "against random", "s.e. ", "better, rows"
    )
    for name in (*(name for name in shares if name != "random"), "random", "nothing"):
        change, gap = nll[name] - nll["whole"], nll[name] - nll["random"]
        table.add_row(
            name,
            f"{nll[name].mean():.4f}",
            f"{change.mean():+.4f}",
            f"{change.std(ddof=1) / n**0.5:.4f}",
            f"{gap.mean():+.4f}",
            f"{gap.std(ddof=1) / n**0.5:.4f}",
            f"{int((gap < 0).sum())} of {n}",
        )
    Console(width=110).print(table)
    kinds = [kind for t in known for kind in t.kinds()]
    table = Table("tokens that stay", *(f"{kind}, {kinds.count(kind)}" for kind in KINDS), "all")
    for name, of_kind in shares.items():
        table.add_row(
            name, *(f"{of_kind[kind]:.0%}" if of_kind[kind] >= 0 else "" for kind in (*KINDS, "all"))
        )
    Console(width=110).print(table)
    for name in ("first-token", "later-tokens", "longest"):
        figure(
            f"the answer's nll, {name} steps removed",
            nll[name].mean(),
            against="random",
            baseline=nll["random"].mean(),
            unit="nats",
        )


if __name__ == "__main__":
    main()
