"""Does it matter which steps of a chain of thought go? ASAP against removing other steps to the same length.

    python -m benchmarks.asap traces.parquet ... [--rows 30] [--ratio 0.5] [--seed 0]

Takes rows with a question (or problem), thinking and answer, and for each way of shortening the thinking to
the same token budget measures the answer again with the default proxy model. Printed are the tokens left, how
much the answer's nll (mean over its tokens, then over rows) moves against the whole thinking, the standard
error over rows, and how many rows do better under ASAP. Lower is better: the thinking that is left still says
what the answer needs.

    asap      the steps of lowest first-token surprisal go first
    reverse   those of highest surprisal go first
    random    in a random order (mean of several)
    longest   the longest go first
    nothing   no thinking is left at all
"""

from __future__ import annotations

import argparse
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
from scorers.reasoning.asap import StepTokens, locate, remove_in_order
from scorers.reasoning.steps import Span, removed_spans, split_steps, without

RANDOM_ORDERS = 2


def count_tokens(keep: np.ndarray, inside: np.ndarray, gap: np.ndarray) -> int:
    """Tokens of the chain that the kept steps make."""
    kept = np.flatnonzero(keep)
    return int((inside[kept] + gap[kept]).sum() - gap[kept[-1]]) if len(kept) else 0


@dataclass(frozen=True)
class Trace:
    """One row: its parts, the steps of its reasoning, and their tokens as the proxy model saw them."""

    question: str
    parts: Parts
    steps: list[Span]
    tokens: StepTokens
    surprisal: np.ndarray

    def shortened(self, order: np.ndarray, ratio: float) -> tuple[str, int]:
        """The response once steps went in this order until the budget fits, and the tokens left of them."""
        inside, gap = self.tokens.inside, self.tokens.gap
        whole = count_tokens(np.ones(len(self.steps), np.bool_), inside, gap)
        keep = remove_in_order(order, inside, gap, int(ratio * whole))
        left = without(self.parts.reasoning, removed_spans(self.steps, keep.tolist()))
        return self.response(left), count_tokens(keep, inside, gap)

    def response(self, reasoning: str) -> str:
        return f"{self.parts.opening}{reasoning}{self.parts.closing}{self.parts.answer}"


def rows_of(paths: list[Path], count: int, characters: int, steps: int, seed: int) -> list[dict[str, str]]:
    """`count` rows with short enough text and enough steps, as evenly from the files as they have them."""
    chosen: list[dict[str, str]] = []
    for number, path in enumerate(paths):
        frame = pl.read_parquet(path)
        question = "question" if "question" in frame.columns else "problem"
        frame = frame.select(question=question, thinking="thinking", answer="answer").drop_nulls()
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
        yield Trace(row["question"], parts, steps, found, seen["nll"].to_numpy()[found.first].astype(float))


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
        "asap": [np.argsort(t.surprisal, kind="stable") for t in known],
        "reverse": [np.argsort(-t.surprisal, kind="stable") for t in known],
        "longest": [np.argsort(-t.tokens.inside, kind="stable") for t in known],
    }
    orders |= {f"random {n}": [rng.permutation(len(t.steps)) for t in known] for n in range(RANDOM_ORDERS)}
    whole = [(t, t.response(t.parts.reasoning)) for t in known]
    before = np.array(
        [count_tokens(np.ones(len(t.steps), bool), t.tokens.inside, t.tokens.gap) for t in known]
    )
    made = list(whole)
    left = {"whole": before, "nothing": np.zeros(len(known), int)}
    for name, of_each in orders.items():
        pairs = [t.shortened(order, given.ratio) for t, order in zip(known, of_each, strict=True)]
        made += [(t, response) for t, (response, _) in zip(known, pairs, strict=True)]
        left[name] = np.array([tokens for _, tokens in pairs])
    made += [(t, t.response("")) for t in known]
    nll = dict(
        zip(["whole", *orders, "nothing"], answer_nll(made, given.model).reshape(-1, len(known)), strict=True)
    )
    for columns in (nll, left):
        drawn = [columns.pop(f"random {n}") for n in range(RANDOM_ORDERS)]
        columns["random"] = np.mean(drawn, axis=0)
    report(known, nll, left)


def report(known: list[Trace], nll: dict[str, np.ndarray], left: dict[str, np.ndarray]) -> None:
    n = len(known)
    steps = sum(len(t.steps) for t in known)
    print(f"{n} traces, {steps} steps, {left['whole'].sum():,} tokens of reasoning")
    table = Table("removed", "tokens left", "answer nll", "against whole", "s.e.", "ASAP better, rows")
    for name in ("whole", "asap", "random", "longest", "reverse", "nothing"):
        change = nll[name] - nll["whole"]
        better = "" if name in ("whole", "asap") else f"{int((nll['asap'] < nll[name]).sum())} of {n}"
        table.add_row(
            name,
            f"{left[name].sum():,.0f}",
            f"{nll[name].mean():.4f}",
            f"{change.mean():+.4f}",
            f"{change.std(ddof=1) / n**0.5:.4f}",
            better,
        )
    Console().print(table)
    for name in ("random", "longest", "reverse"):
        gap = nll["asap"] - nll[name]
        print(f"asap - {name}: {gap.mean():+.4f} +- {gap.std(ddof=1) / n**0.5:.4f} nats a token")
        figure(
            "the answer's nll after asap",
            nll["asap"].mean(),
            against=name,
            baseline=nll[name].mean(),
            unit="nats",
        )


if __name__ == "__main__":
    main()
