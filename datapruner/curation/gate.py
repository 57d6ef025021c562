"""The gate: rows with obvious defects go first, each with a reason in words that names what was found.

    refusals     a response that says that it cannot, and nothing else    `refusals`
    loops        one that says the same again and again                    `loops`
    cut_off      one that stops in the middle                              `endings`
    languages    one in another language than its prompt, unasked          `languages`
    gibberish    one that the proxy model finds next to impossible         `of_measured`
    endings      one that ends in a letter where it expects no end         `of_measured`

The first four read the text, before anything is measured; the others what was measured.

Notable choices:
- precision goes before recall: a defect that is missed costs a row of thousands, a good row that is dropped
  takes a kind of rows away. What is not plain stays; the scores judge that;
- trained responses are judged, and the text around them only to know what was asked for;
- a row with several defects is told the first of them, in the order above;
- a model that was not taught where responses end expects none of their ends: where half of them are half as
  unexpected as a cut, the rule of endings says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from datapruner import validation
from datapruner.corpora import store
from datapruner.corpora.corpus import Corpus
from datapruner.curation.endings import truncated, unfinished
from datapruner.curation.languages import wrong_languages
from datapruner.curation.loops import loops
from datapruner.curation.refusals import refusals
from datapruner.curation.verdicts import Verdicts, settled
from datapruner.home import home_folder
from datapruner.measuring.signal_cache import SignalCache
from datapruner.progress import Progress, Silent
from datapruner.request.parts import Gate
from datapruner.system.panics import contained
from scorers.method import token_column
from scorers.signals.columns import Floats, Ints

DEFECT = "defect: "
"""What its reasons begin with."""

_CHUNK_SAMPLES = 8192
UNEXPECTED = "cut off, the proxy model expects no end there"

_FEWEST_OF_GIBBERISH, _FEWEST_OF_CUT = 32, 16
"""Tokens of a response whose perplexity, or end, tells anything: those of a haiku surprise any model."""
_THOUGHT = r"(?s)^\s*(?:<think>)?.*?</think>\s*"


@contained()
def gate(
    source: Any,
    *,
    refusals: bool = True,
    loops: bool = True,
    loop_share: float = 0.6,
    cut_off: bool = True,
    languages: bool = True,
    mapping: Mapping[str, str] | None = None,
    home: str | Path | None = None,
    progress: Progress | None = None,
) -> Verdicts:
    """Which rows of `source` have defects that their text shows; no model is read.

    Each rule can be left out; `loop_share` is the least share of a response that was said before. Raises
    UsageError or InputError.
    """
    listener = progress or Silent()
    place = Path(home) if home is not None else home_folder()
    asked = validation.made(
        Gate,
        refusals=refusals,
        loops=loops,
        loop_share=loop_share,
        cut_off=cut_off,
        languages=languages,
        gibberish=False,
        endings=False,
    )
    with Corpus(store.ingest_to(source, mapping or {}, place, listener)) as corpus:
        return find(corpus, asked, progress=listener)


def find(corpus: Corpus, asked: Gate, *, progress: Progress) -> Verdicts:
    """`gate` on a published corpus: what the text shows."""
    progress.stage("looking for defects", corpus.counts().unique, "samples")
    found: list[pl.DataFrame] = [
        pl.DataFrame(schema={"row": pl.Int64, "reason": pl.String, "rule": pl.String})
    ]
    done = 0
    for turns in corpus.turns(batch=_CHUNK_SAMPLES):
        lines = [lines.with_columns(rule=pl.lit(rule)) for rule, lines in _defects(turns, asked)]
        found += [each.select(found[0].columns) for each in lines]
        done += turns["row"].n_unique()
        progress.at(done)
    dropped = pl.concat(found).unique("row", keep="first", maintain_order=True)
    dropped = dropped.with_columns(reason=DEFECT + pl.col("reason"))
    counts = dict(dropped["rule"].value_counts().iter_rows())
    return settled(
        "gate",
        corpus,
        dropped.drop("rule"),
        asked.model_dump(),
        {rule: counts.get(rule, 0) for rule in ("refusals", "loops", "cut off", "languages")},
    )


def _defects(turns: pl.DataFrame, asked: Gate) -> Iterator[tuple[str, pl.DataFrame]]:
    """What each rule says of some samples, in the order in which rules are heard: its name; row, reason.

    turns: lines of `Corpus.turns`.
    """
    responses = _responses(turns)
    if asked.refusals:
        yield "refusals", refusals(responses)
    if asked.loops:
        yield "loops", loops(responses, asked.loop_share)
    if asked.cut_off:
        yield "cut off", truncated(_last(turns, responses))
    if asked.languages:
        said = responses.group_by("row", maintain_order=True).agg(
            pl.col("asked").first(), said=pl.col("answer").first()
        )
        yield "languages", wrong_languages(said)


def _responses(turns: pl.DataFrame) -> pl.DataFrame:
    """The trained responses among these turns, with the `answer` after reasoning, and prompts as `asked`."""
    thought = pl.col("content").str.contains("</think>", literal=True)
    answer = pl.when(thought).then(pl.col("content").str.replace(_THOUGHT, "")).otherwise("content")
    prompts = (
        turns.filter(pl.col("role").is_in(["system", "user"]))
        .group_by("row", maintain_order=True)
        .agg(asked=pl.col("content").str.join("\n"))
    )
    return (
        turns.filter((pl.col("role") == "assistant") & pl.col("trained"))
        .with_columns(answer=answer)
        .join(prompts, on="row", how="left", maintain_order="left")
        .with_columns(pl.col("asked").fill_null(""))
    )


def _last(turns: pl.DataFrame, responses: pl.DataFrame) -> pl.DataFrame:
    """Those of the responses that end their conversation, and call no tool."""
    last = turns.group_by("row", maintain_order=True).agg(pl.col("turn").last())
    ends = responses.join(last, on=["row", "turn"], how="semi", maintain_order="left")
    return ends.filter(~pl.col("called"))


def ends(cache: SignalCache, ids: Sequence[str]) -> tuple[Floats, Ints]:
    """-ln p of the token that ends each of these N samples, (N,), NaN where there is none, as in one that was
    cut to the length limit; and how many tokens their responses have, (N,)."""
    nll, tokens = [np.empty(0)], [np.empty(0, np.int64)]
    for start in range(0, len(ids), _CHUNK_SAMPLES):
        part = ids[start : start + _CHUNK_SAMPLES]
        signals = cache.signals(pl.Series(part, dtype=pl.String), frozenset({"token:nll", "token:is_end"}))
        at = signals.offsets[1:] - 1
        is_end = (signals.lengths > 0) & token_column(signals, "is_end")[at].astype(np.bool_)
        nll.append(np.where(is_end, token_column(signals, "nll")[at].astype(np.float64), np.nan))
        tokens.append(signals.lengths)
    return np.concatenate(nll), np.concatenate(tokens)


def of_measured(
    corpus: Corpus, rows: Sequence[int], ppl: pl.Series, ends: tuple[Floats, Ints], asked: Gate
) -> dict[int, str]:
    """Why some of N measured samples are dropped, by their rows. ppl: (N,). ends: what `ends` gives."""
    numbers = np.array(rows, dtype=np.int64)
    perplexity, (end, tokens) = ppl.to_numpy(), ends
    found: dict[int, str] = {}
    known = end[~np.isnan(end)]
    if asked.endings and len(known) and np.median(known) < asked.ending_nll / 2:
        unexpected = numbers[(end >= asked.ending_nll) & (tokens >= _FEWEST_OF_CUT)].tolist()
        for turns in corpus.turns(unexpected, _CHUNK_SAMPLES):
            for row, text in unfinished(_last(turns, _responses(turns))).iter_rows():
                found[row] = f'{DEFECT}{UNEXPECTED}: "…{text}"'
    if asked.gibberish:
        impossible = (perplexity >= asked.gibberish_ppl) & (tokens >= _FEWEST_OF_GIBBERISH)
        for row, value in zip(numbers[impossible].tolist(), perplexity[impossible].tolist(), strict=True):
            found[row] = f"{DEFECT}gibberish: its perplexity is {value:,.0f}"
    return found
