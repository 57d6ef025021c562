"""Rows of which is known what they are: with planted defects, or as others labelled or selected them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from benchmarks.table.data import Data, Rows
from benchmarks.table.planting import RULES, SOUND, planted

PLANTED = "planted"
_SHORTEST = 60
"""Characters of an answer, so that there is something to cut."""
_NO_FAULTS = ["placeholder_input", "empty_output"]  # the first is harmless, the second no row to train on


@dataclass(frozen=True)
class Labelled:
    """title: what they are. labels: one a row. beside: clean rows of the same kind, for what methods compare
    with. seen: the labels that tell what a method keeps; where there are two, one says both."""

    title: str
    rows: Rows
    labels: list[str]
    beside: Rows
    seen: tuple[str, ...]


def with_defects(data: Data) -> Labelled:
    """Alpaca with defects planted in it."""
    rows, beside, _ = data.alpaca()
    long = [row for row in rows if len(row["output"]) >= _SHORTEST][: data.amounts.rows]
    made, labels = planted(long, data.amounts.each, seed=0)
    return Labelled("Alpaca with planted defects", made, labels, beside, (SOUND, *RULES))


def by_gpt4(data: Data) -> Labelled:
    """The same prompts answered by GPT-4 and by text-davinci-003, of which Alpaca is."""
    frame, amounts = data.file("pairs"), data.amounts
    answers = {"davinci-003": "output_davinci003", "GPT-4": "output_gpt4"}
    fits = pl.all_horizontal(
        pl.col(column).str.len_chars().is_between(_SHORTEST, 2 * amounts.longest)
        for column in answers.values()
    )
    frame = frame.filter(fits).sample(fraction=1, shuffle=True, seed=0).head(amounts.labelled)
    rows = [
        (row["instruction"], row["input"], row[column], label)
        for row in frame.to_dicts()
        for label, column in answers.items()
    ]
    return _labelled("GPT-4's answers beside text-davinci-003's", rows, data.alpaca()[1], ("GPT-4",))


def right_and_wrong(data: Data) -> Labelled:
    """Solutions of GSM8K by models, as many wrong ones as right ones."""
    frame, amounts = data.file("solutions"), data.amounts
    fits = pl.col("solution").str.len_chars().is_between(20, amounts.longest)
    frame = frame.filter(fits).unique(["question", "solution"], maintain_order=True)
    frame = frame.sample(fraction=1, shuffle=True, seed=0)
    rows = [
        (row["question"], "", row["solution"], label)
        for label, wanted in (("right", True), ("wrong", False))
        for row in frame.filter(pl.col("is_correct") == wanted).head(amounts.labelled).to_dicts()
    ]
    beside = data.problems()[: amounts.clean]
    return _labelled("solutions of GSM8K by models", rows, beside, ("wrong",))


def among_the_longest(data: Data) -> Labelled:
    """Rows of the 1,000 longest of Alpaca, published as a selection that beats all of it, and other rows."""
    amounts = data.amounts
    picked = data.file("longest").sample(fraction=1, shuffle=True, seed=0)
    picked = picked.filter(pl.col("output_original").str.len_chars() <= 3 * amounts.longest)
    rows = [
        (row["instruction"], row["input"], row["output_original"], "selected")
        for row in picked.head(amounts.labelled // 2).to_dicts()
    ]
    others, beside, _ = data.alpaca()
    rows += [(r["instruction"], r["input"], r["output"], "other") for r in others[: amounts.labelled // 2]]
    return _labelled("the 1,000 longest of Alpaca, some of them", rows, beside, ("selected",))


def found_by_rules(data: Data) -> Labelled:
    """Rows of Alpaca that simple rules find fault with (an answer that is a placeholder, that copies the
    input, that wants a file or an address), and others."""
    faults, frame, amounts = data.file("rules"), data.file("alpaca"), data.amounts
    faults = faults.filter(~pl.col("defects").list.set_difference(_NO_FAULTS).list.len().eq(0))
    size = pl.sum_horizontal(pl.col(part).str.len_chars() for part in ("instruction", "input", "output"))
    frame = frame.filter((size <= amounts.longest) & (pl.col("output").str.strip_chars() != ""))
    frame = frame.sample(fraction=1, shuffle=True, seed=0)
    faulty = pl.col("id").is_in(faults["id"].to_list())
    rows = [
        (row["instruction"], row["input"], row["output"], label)
        for label, wanted in (("faulty", faulty), ("other", ~faulty))
        for row in frame.filter(wanted).head(amounts.labelled).to_dicts()
    ]
    return _labelled("faults of Alpaca that rules find", rows, data.alpaca()[1], ("faulty",))


CORPORA: Mapping[str, Callable[[Data], Labelled]] = {
    PLANTED: with_defects,
    "GPT-4's answers": by_gpt4,
    "wrong solutions": right_and_wrong,
    "longest 1k": among_the_longest,
    "rules' faults": found_by_rules,
}
"""What is measured, the most important first."""


def _labelled(
    title: str, rows: Sequence[tuple[str, str | None, str, str]], beside: Rows, seen: tuple[str, ...]
) -> Labelled:
    made: list[dict[str, Any]] = [
        {"instruction": prompt, "input": more or "", "output": answer} for prompt, more, answer, _ in rows
    ]
    return Labelled(title, made, [label for *_, label in rows], beside, seen)
