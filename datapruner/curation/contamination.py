"""Contamination: training rows that hold text of an evaluation set, found by the n-grams they share.

Words are compared in lower case without punctuation, as in both papers. Two conventions:

    13-gram  GPT-3 (arXiv 2005.14165, appendix C): a row that shares one n-gram with an evaluation text is
             contaminated. n is 13, or in a set of short texts the 5th percentile of words, down to 8
    8-gram   PaLM (arXiv 2204.02311, section 8): a row that holds at least 70 % of the 8-grams of one
             evaluation text (a question, an answer) is contaminated

Notable choices:
- every text in an evaluation row is compared, each on its own, however its columns are called, unless columns
  are named: a benchmark is not a chat, its answers must not be in the training data either, and a question
  that was copied must not escape because its answer was not;
- PaLM asks whether the whole training set holds a text of the benchmark; as rows are to be dropped here, one
  training row must. The evaluation rows that all rows hold together are reported for each set as `found`;
- GPT-3 ignores n-grams of more than 10 training documents as boilerplate. A benchmark question copied 11
  times would escape that; here an n-gram of more than 10 rows of the evaluation set is boilerplate;
- texts shorter than n words cannot be compared; rows that have no other are counted as `too short`;
- what matched is shown: the longest run of words that the two rows share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datapruner.corpora import store, texts
from datapruner.corpora.corpus import Corpus
from datapruner.corpora.texts import Hashes, Ints, Ragged
from datapruner.curation.verdicts import Verdicts, settled
from datapruner.errors import InputError, UsageError
from datapruner.home import home_folder
from datapruner.input.readers import open_sources
from datapruner.input.shapes import DEFAULT_LIMITS
from datapruner.progress import Progress, Silent
from datapruner.system.panics import contained

Convention = Literal["13-gram", "8-gram"]
Bools = NDArray[np.bool_]

_LONGEST, _SHORTEST, _PERCENTILE = 13, 8, 5
_LEAST: Mapping[Convention, float] = {"13-gram": 0.0, "8-gram": 0.7}
_BOILERPLATE_ROWS = 10
_SHOWN_WORDS = 60
_EXCERPT = 120

_MATCHES = {
    "row": pl.Int64,
    "set": pl.String,
    "eval_row": pl.Int64,
    "shared_ngrams": pl.Int64,
    "share": pl.Float64,
    "text": pl.String,
}


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """A benchmark whose texts must not be trained on: R rows, with U texts in all.

    n: words of an n-gram. rows: R. row: (U,) the row of each text. sizes: (U,) distinct n-grams of each text,
    boilerplate left out. grams: (G,) distinct n-gram hashes. holders: (G,) lists of the texts that hold each.
    too_short: rows without a text of n words. boilerplate: n-grams left out.
    """

    name: str
    n: int
    rows: int
    row: Ints
    sizes: Ints
    grams: Hashes
    holders: Ragged
    too_short: int
    boilerplate: int


@contained()
def decontaminate(
    source: Any,
    against: Mapping[str, Any],
    *,
    convention: Convention = "13-gram",
    columns: Iterable[str] = (),
    mapping: Mapping[str, str] | None = None,
    home: str | Path | None = None,
    progress: Progress | None = None,
) -> Verdicts:
    """Which rows of `source` hold text of the evaluation sets `against` (name -> source of its rows).

    `columns` are those of the evaluation sets to compare, by default all that hold text. The table has a
    column `matches` beside those of `Verdicts`: for a dropped row a list of (set, eval_row, shared_ngrams,
    share of the evaluation text's n-grams, text that both hold), the largest share first. Raises UsageError
    or InputError.
    """
    if not against:
        raise UsageError("no evaluation set is named", remedy="give one or more to compare with")
    listener = progress or Silent()
    place = Path(home) if home is not None else home_folder()
    listener.stage("reading evaluation sets", len(against), "sets")
    sets = [evaluation_set(name, rows, convention, tuple(columns)) for name, rows in against.items()]
    with Corpus(store.ingest_to(source, mapping or {}, place, listener)) as corpus:
        return find(corpus, sets, convention, progress=listener)


def as_samples(source: Any) -> Iterator[dict[str, Any]]:
    """The rows of an evaluation set as conversations of the same texts: compared with them, the same is
    found, and a service takes them as the rows of a dataset, whatever the columns were. Raises InputError.
    """
    for row in _rows(source):
        found = [text for text in _strings(list(row.values())) if text.strip()]
        found += ["-"] * (2 if not found else len(found) % 2)  # for a user and an assistant in turn
        roles = ("user", "assistant")
        yield {"messages": [{"role": roles[at % 2], "content": text} for at, text in enumerate(found)]}


def evaluation_set(
    name: str, source: Any, convention: Convention, columns: tuple[str, ...] = ()
) -> EvaluationSet:
    """Read a benchmark. Raises InputError when it has no text, or a column that is asked for."""
    found = [_texts(name, at, row, columns) for at, row in enumerate(_rows(source))]
    row = np.repeat(np.arange(len(found)), [len(each) for each in found])
    words = texts.hashed(texts.split([text for each in found for text in each]))
    if not len(words.values):
        raise InputError(f"evaluation set {name}: there is no text to compare", remedy="check the file")
    longest = np.zeros(len(found), dtype=np.int64)
    np.maximum.at(longest, row, words.lengths)
    n = _SHORTEST
    if convention == "13-gram":
        n = int(np.clip(np.percentile(longest, _PERCENTILE), _SHORTEST, _LONGEST))
    grams = texts.ngrams(words, n)
    held = pl.DataFrame({"gram": grams.values, "text": grams.owners, "row": row[grams.owners]}).unique()
    by_gram = held.group_by("gram").agg("text", rows=pl.col("row").n_unique()).sort("gram")
    telling = by_gram.filter(pl.col("rows") <= _BOILERPLATE_ROWS).with_columns(pl.col("text").list.sort())
    holders = Ragged(
        telling["text"].list.explode(empty_as_null=False).to_numpy().astype(np.uint64),
        np.concatenate([[0], telling["text"].list.len().to_numpy().cumsum()]).astype(np.int64),
    )
    return EvaluationSet(
        name=name,
        n=n,
        rows=len(found),
        row=row,
        sizes=np.bincount(holders.values.astype(np.int64), minlength=len(row)),
        grams=telling["gram"].to_numpy(),
        holders=holders,
        too_short=int((longest < n).sum()),
        boilerplate=len(by_gram) - len(telling),
    )


def find(
    corpus: Corpus, sets: list[EvaluationSet], convention: Convention, *, progress: Progress
) -> Verdicts:
    """`decontaminate` on a published corpus."""
    progress.stage("comparing", corpus.counts().unique, "samples")
    matches: list[dict[str, Any]] = []
    seen = [np.zeros(len(each.grams), dtype=np.bool_) for each in sets]
    done = 0
    for rows, _, chunk in texts.sample_texts(corpus, "all"):
        spelled = texts.split(chunk)
        words = texts.hashed(spelled)
        grams = {n: texts.ngrams(words, n) for n in {each.n for each in sets}}
        for each, marks in zip(sets, seen, strict=True):
            for at, match in _compare(grams[each.n], each, marks, _LEAST[convention]):
                first, count = match.pop("span")
                shown = " ".join(spelled[at].slice(first, min(count, _SHOWN_WORDS)).to_list())
                text = shown + (" …" if count > _SHOWN_WORDS else "")
                matches.append({"row": rows[at], "set": each.name, "text": text, **match})
        done += len(rows)
        progress.at(done)
    frame = pl.DataFrame(matches, schema=_MATCHES).sort(
        ["row", "share", "set", "eval_row"], descending=[False, True, False, False]
    )
    dropped = frame.group_by("row", maintain_order=True).agg(
        reason=pl.format(
            'holds text of {} row {}: "{}" ({} of its n-grams)',
            pl.col("set").first(),
            pl.col("eval_row").first(),
            _excerpt(pl.col("text").first()),
            pl.col("share").first().mul(100).round(1).cast(pl.String) + " %",
        ),
        matches=pl.struct("set", "eval_row", "shared_ngrams", "share", "text"),
    )
    notes: dict[str, int] = {}
    for each, marks in zip(sets, seen, strict=True):
        notes |= {
            f"{each.name}: {what}": count for what, count in _about(each, marks, _LEAST[convention]).items()
        }
    sizes = {each.name: each.n for each in sets}
    return settled("contamination", corpus, dropped, {"convention": convention, "ngram": sizes}, notes)


def _compare(
    grams: Ragged, each: EvaluationSet, seen: Bools, least: float
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(text, match) for each text that shares enough with an evaluation row; marks the n-grams `seen`."""
    numbers = pc.index_in(pa.array(grams.values), value_set=pa.array(each.grams))
    hits = np.flatnonzero(np.asarray(numbers.is_valid()))
    gram = np.asarray(numbers.drop_null()).astype(np.int64)
    seen[gram] = True
    owner = np.searchsorted(grams.offsets, hits, side="right") - 1
    for at in np.unique(owner).tolist():
        mine = slice(*np.searchsorted(owner, [at, at + 1]))
        places = hits[mine] - grams.offsets[at]
        shared: dict[int, set[int]] = {}
        for number in gram[mine].tolist():
            for text in each.holders[number].tolist():
                shared.setdefault(text, set()).add(number)
        best: dict[int, tuple[float, int]] = {}
        for text, held in shared.items():
            share, row = len(held) / int(each.sizes[text]), int(each.row[text])
            if share >= least and (share, -text) > best.get(row, (0.0, 0)):
                best[row] = (share, -text)
        for row, (share, negative) in best.items():
            held = shared[-negative]
            span = _longest_run(places[np.isin(gram[mine], list(held))], each.n)
            yield at, {"eval_row": row, "shared_ngrams": len(held), "share": share, "span": span}


def _longest_run(places: Ints, n: int) -> tuple[int, int]:
    """(first word, words) of the longest unbroken run among n-grams that begin at `places`, ascending."""
    runs_of = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    longest = max(runs_of, key=len)
    return int(longest[0]), len(longest) + n - 1


def _about(each: EvaluationSet, seen: Bools, least: float) -> dict[str, int]:
    """How much of an evaluation set the whole corpus holds."""
    texts_seen = each.holders.values[np.repeat(seen, each.holders.lengths)].astype(np.int64)
    held = np.bincount(texts_seen, minlength=len(each.sizes))
    found = (held > 0) & (held >= least * each.sizes)
    return {
        "rows": each.rows,
        "found": len(np.unique(each.row[found])),
        "too short": each.too_short,
        "boilerplate n-grams": each.boilerplate,
    }


def _excerpt(text: pl.Expr) -> pl.Expr:
    long = text.str.len_chars() > _EXCERPT
    return pl.when(long).then(text.str.head(_EXCERPT) + "…").otherwise(text)


def _rows(source: Any) -> Iterator[Mapping[str, Any]]:
    for part in open_sources(source):
        for batch in part.batches(DEFAULT_LIMITS, typed=False):
            for record in batch.records:
                if record.fault is not None:
                    raise InputError(
                        f"{part.name}, line {record.position}: {record.fault.reason}",
                        remedy="an evaluation set must be read whole",
                    )
                yield record.row


def _texts(name: str, at: int, row: Mapping[str, Any], columns: tuple[str, ...]) -> list[str]:
    """Every text of an evaluation row, or of these columns of it."""
    if missing := [column for column in columns if column not in row]:
        raise InputError(
            f"evaluation set {name}, row {at}: there is no column {missing[0]!r}",
            remedy=f"columns are {', '.join(row)}",
            field="columns",
        )
    return list(_strings([row[column] for column in columns] if columns else list(row.values())))


def _strings(value: Any) -> Iterator[str]:
    """Every text inside a value, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)
