"""What a corpus is like before anything is measured: what a recipe for it is chosen by.

Notable choices:
- it is all of the rows, not some of them: the same corpus gives the same facts, and what takes the time,
  duplicates and defects, a run of the recipe does as well;
- tokens are estimated at four bytes each, which is near enough to say how long a run takes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from datapruner.corpora.corpus import Corpus
from datapruner.curation import duplicates, gate
from datapruner.progress import Progress
from datapruner.request.parts import Dedup, Gate

TEXT_RULES = Gate(gibberish=False, endings=False)
"""The gate's rules that need no proxy model."""

_BYTES_OF_TOKEN = 4


@dataclass(frozen=True, slots=True)
class CorpusFacts:
    """What was found of `samples` different ones among `rows`.

    copies, near: rows that are exact and near duplicates. defects: how many the gate's rules of text find.
    prompts: different ones. several_turns, reasoning, tools, foreign: samples with more than one response,
    with reasoning before an answer, with tools, and with responses in other letters than Latin ones. words:
    (median, 95th percentile) of a sample's responses. tokens: of all responses, about.
    """

    rows: int
    rejected: int
    samples: int
    copies: int
    near: int
    defects: dict[str, int]
    prompts: int
    several_turns: int
    reasoning: int
    tools: int
    foreign: int
    words: tuple[int, int]
    tokens: int

    def document(self) -> dict[str, Any]:
        """As plain values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"words": list(self.words)}


def facts(corpus: Corpus, progress: Progress) -> CorpusFacts:
    """What a corpus is like. Memory is bounded but for a few numbers a sample."""
    found = gate.find(corpus, TEXT_RULES, progress=progress)
    defective = set(found.table.filter(status="dropped")["sample_id"])
    near = duplicates.find(corpus, Dedup(), progress=progress, without=defective)
    counts = corpus.counts()
    progress.stage("looking at samples", counts.unique, "samples")
    totals: Counter[str] = Counter()
    words, prompts, done = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)], 0
    for turns in corpus.turns(batch=8192):
        samples = _samples(turns)
        totals.update({name: int(samples[name].sum()) for name in _SUMMED})
        words.append(samples["words"].to_numpy().astype(np.int64))
        prompts.append(samples["prompt"].hash().to_numpy())
        done += len(samples)
        progress.at(done)
    lengths = np.concatenate(words)
    middle, long = np.percentile(lengths, [50, 95]) if len(lengths) else (0, 0)
    return CorpusFacts(
        rows=counts.rows,
        rejected=counts.rejected,
        samples=counts.unique,
        copies=counts.duplicates,
        near=near.notes["near duplicates"],
        defects={rule: count for rule, count in found.notes.items() if count},
        prompts=len(np.unique(np.concatenate(prompts))),
        several_turns=totals["several_turns"],
        reasoning=totals["reasoning"],
        tools=totals["tools"],
        foreign=totals["foreign"],
        words=(int(middle), int(long)),
        tokens=totals["bytes"] // _BYTES_OF_TOKEN,
    )


_SUMMED = ("several_turns", "reasoning", "tools", "foreign", "bytes")


def _samples(turns: pl.DataFrame) -> pl.DataFrame:
    """A line per sample: what of it is summed, the words of its responses, and its prompt as one text."""
    response = (pl.col("role") == "assistant") & pl.col("trained")
    said = pl.col("content").filter(response)
    letters, others = r"\p{L}", r"[^\p{Latin}\P{L}]"
    return turns.group_by("row", maintain_order=True).agg(
        several_turns=response.sum() > 1,
        reasoning=said.str.contains(r"(?s)^\s*<think>.*</think>").any(),
        tools=pl.col("tools").first(),
        foreign=said.str.count_matches(others).sum() * 2 > said.str.count_matches(letters).sum(),
        bytes=said.str.len_bytes().sum(),
        words=said.str.count_matches(r"\S+").sum(),
        prompt=pl.col("content").filter(~response).str.join("\n"),
    )
