"""The kept rows of a run as another model reads them: rendered with its chat template, in its tokens, and the
masks carried over by the characters that both cover (`spans`).

Notable choices:
- the other model's tokens come from the processes and the cache that runs have: what is rendered once is not
  again, and a crash loses nothing that is done;
- of the model only its tokenizer and configuration are read: weights may be anywhere else;
- where the proxy stopped reading a row, the row ends: nothing behind it would be trained on;
- a row that the other template cannot write is counted, with the reason, and left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from tokenizers import Tokenizer

from datapruner.corpora.corpus import Corpus
from datapruner.errors import ModelError, NothingSurvivedError
from datapruner.measuring.measure import Machine, Pass, measure
from datapruner.measuring.places import Places, flatten
from datapruner.measuring.signal_cache import NO_MODEL, ProxyKey, SignalCache
from datapruner.outputs.spans import Spans, Write, Written, carried, carried_weights
from datapruner.outputs.training_rows import (
    IGNORED,
    Counts,
    TrainingBatch,
    TrainingRows,
    about_run,
    check_run,
    has_weights,
    kept_rows,
    kept_tokens,
    loadable,
    offsets,
)
from datapruner.progress import Progress
from datapruner.rows.formats import TooLong
from datapruner.runs.published import Run
from scorers.models import fingerprint, tokenizer_file
from scorers.models.sources import ModelSourceError, resolve
from scorers.signals.columns import SIGNAL_VERSION

Weights = NDArray[np.float32]
Characters = Literal["all", "any"]
"""A token is trained on when all of its characters are, or any."""

_SPANS = ("turn", "char_start", "char_end", "is_end")
_UNREAD = "the proxy stopped reading within its first token"


@dataclass(slots=True)
class CarriedCounts:
    """What became of the kept rows: rows = carried + the `refused`, which are counted by their reasons.

    `cut`: carried rows that end at the other model's own limit. `response_tokens` of those carried, in its
    tokens; `on_border` of them have characters of both kinds, trained on and not.
    """

    rows: int = 0
    carried: int = 0
    cut: int = 0
    response_tokens: int = 0
    on_border: int = 0
    refused: dict[str, int] = field(default_factory=dict)

    def refuse(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of N rows and, of their response tokens, where they stand and what they cover.

    The first of each pair below: where each row begins among all, (N + 1,).
    """

    id_offsets: NDArray[np.int64]
    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    position: NDArray[np.int32]
    spans: Spans
    n_tokens_full: NDArray[np.int64]
    n_truncated: NDArray[np.int64]

    @classmethod
    def at(cls, places: Places) -> Tokens:
        frame = places.columns(["input_ids", "position", *_SPANS, "n_tokens_full", "n_truncated"])
        return cls(
            offsets(frame["input_ids"].list.len()),
            flatten(frame["input_ids"]),
            offsets(frame["position"].list.len()),
            flatten(frame["position"]),
            Spans(*(flatten(frame[name]) for name in _SPANS)),
            frame["n_tokens_full"].to_numpy(),
            frame["n_truncated"].to_numpy(),
        )

    def input_ids(self, row: int) -> NDArray[np.int32]:
        return self.ids[self.id_offsets[row] : self.id_offsets[row + 1]]

    def responses(self, row: int) -> slice:
        """Of the response tokens of all rows, those of one."""
        return slice(int(self.offsets[row]), int(self.offsets[row + 1]))

    def is_cut(self, row: int) -> bool:
        return bool(self.n_tokens_full[row] > self.id_offsets[row + 1] - self.id_offsets[row])


def rows_for(
    run: Run,
    corpus: Corpus,
    home: Path,
    machine: Machine,
    model: str,
    *,
    only: Collection[str] | None = None,
    characters: Characters = "all",
    max_length: int | None = None,
    too_long: TooLong = "cut",
    progress: Progress,
) -> tuple[TrainingRows, CarriedCounts]:
    """The kept rows of a run in the tokens of `model`, and the counts of it, whole when all rows are read.

    `model` is as `scorers.models.sources.resolve` takes it. only: ids of samples, where not all are wanted.

    Raises UsageError as `training_rows.of_run` does, ModelError when the tokenizer cannot be used,
    NothingSurvivedError when no row can be rendered.
    """
    check_run(run)
    models = machine.models or home
    wanted, about = _target(model, models, run.config.measuring.train_on)
    kept = kept_rows(run)
    if only is not None:
        kept = kept.filter(pl.col("sample_id").is_in(list(only)))
    others = corpus.sample_index().join(kept, on="sample_id", how="anti")["sample_id"].to_list()
    found = measure(corpus, wanted, home, machine, progress=progress, without=others)
    counts = CarriedCounts(rows=len(kept))
    for reason in found.errors.values():
        counts.refuse(reason.replace("; raise max_length", ", all that the model reads"))
    if len(found.errors) == len(kept):
        raise NothingSurvivedError(
            f"{model} can render none of {len(kept)} rows",
            remedy=f"the first: {next(iter(found.errors.values()))}",
        )

    first, second = _tokenizer(run.config.measuring.model, models), _tokenizer(model, models)
    tokenizers = None if first is None or second is None else (first, second)
    carrier = _Carrier(characters == "any", tokenizers, counts)

    def source() -> Iterator[TrainingBatch]:
        read_at = SignalCache(home, ProxyKey(**run.lineage["proxy"])).places(kept["sample_id"])
        for part, batch, response in kept_tokens(run, home, kept["row"], kept["sample_id"]):
            read = Tokens.at(read_at.part(part.start, part.stop))
            rows = [at for at, sample_id in enumerate(batch.sample_ids) if sample_id not in found.errors]
            if rows:
                wanted = Tokens.at(found.cache.places([batch.sample_ids[at] for at in rows]))
                mask = (batch.labels != IGNORED)[response]
                weights = None if batch.token_weights is None else batch.token_weights[response]
                yield carrier.carry(batch, mask, weights, read, rows, wanted)

    said = about_run(run) | {"carried": about | {"characters": characters}}
    written = Counts(weighted=has_weights(run))
    return TrainingRows(source, loadable(model, models), said, max_length, too_long, written), counts


def _tokenizer(model: str, models: Path) -> Tokenizer | None:
    """What a model's tokens write, where its tokenizer is on this machine."""
    try:
        return tokenizer_file.read(resolve(model, models, local_only=True, weights=False).path)
    except ModelSourceError:
        return None


def _target(model: str, models: Path, train_on: str) -> tuple[Pass, dict[str, Any]]:
    """How the other model's tokens are made, and what is said of it."""
    try:
        folder = resolve(model, models, weights=False)
        about = {"model": model, "tokenizer": fingerprint.of_folder(folder.path)}
    except ModelSourceError as error:
        raise ModelError(str(error)) from error
    key = ProxyKey(
        model=model,
        revision=folder.revision,
        template_hash=folder.template_hash,
        dtype=NO_MODEL,
        max_length=None,
        overflow="truncate",
        train_on=train_on,
        tied=False,
        signal_version=SIGNAL_VERSION,
    )
    return Pass(folder, key), about


@dataclass(frozen=True, slots=True)
class _Row:
    """Token ids, labels and, where tokens are weighted, weights of a row, (T,) each."""

    ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    weights: Weights | None = None


@dataclass(frozen=True, slots=True)
class _Carrier:
    """Carries rows, and counts them. tokenizers: of the proxy and of the other model, where both are here."""

    any_character: bool
    tokenizers: tuple[Tokenizer, Tokenizer] | None
    counts: CarriedCounts

    def carry(
        self,
        batch: TrainingBatch,
        mask: NDArray[np.bool_],
        weights: Weights | None,
        read: Tokens,
        rows: Sequence[int],
        wanted: Tokens,
    ) -> TrainingBatch:
        """A batch that the proxy read, of which the other model read `rows`, in its tokens.

        mask: (T,) which of the response tokens of `read` are kept. weights: theirs, (T,), if there are any.
        """
        sample_ids: list[str] = []
        made: list[_Row] = []
        for number, at in enumerate(rows):
            here = read.responses(at)
            row = self._row(mask[here], None if weights is None else weights[here], read, at, wanted, number)
            if row is None:
                self.counts.refuse(_UNREAD)
            else:
                sample_ids.append(batch.sample_ids[at])
                made.append(row)
        self.counts.carried += len(made)
        none = np.empty(0, np.int32)
        found = [each.weights for each in made if each.weights is not None]
        return TrainingBatch(
            sample_ids,
            np.array([len(each.ids) for each in made], np.int64),
            np.concatenate([none, *(each.ids for each in made)]),
            np.concatenate([none, *(each.labels for each in made)]),
            None if weights is None else np.concatenate([np.empty(0, np.float32), *found]),
        )

    def _row(
        self,
        mask: NDArray[np.bool_],
        weights: Weights | None,
        read: Tokens,
        at: int,
        wanted: Tokens,
        number: int,
    ) -> _Row | None:
        """A row, which the proxy read as row `at` of `read` and the other model as row `number` of `wanted`;
        None when nothing of it is left."""
        theirs, ours, cut = read.responses(at), wanted.responses(number), read.is_cut(at)
        write: tuple[Write, Write] | None = None
        if self.tokenizers is not None:
            first, second = self.tokenizers
            write = partial(_written, first, read, at), partial(_written, second, wanted, number)
        spans = wanted.spans.part(ours)
        trained, on_border = carried(
            read.spans.part(theirs),
            mask,
            spans,
            any_character=self.any_character,
            cut=cut,
            write=write,
        )
        if not len(trained):
            return None
        ids, position = wanted.input_ids(number), wanted.position[ours][: len(trained)]
        if cut:
            ids = ids[: position[-1] + 1]
        self.counts.cut += int(wanted.n_truncated[number] > 0 and len(trained) == len(spans))
        self.counts.response_tokens += len(trained)
        self.counts.on_border += on_border
        labels = np.full(len(ids), IGNORED, dtype=np.int32)
        labels[position[trained]] = ids[position[trained]]
        if weights is None:
            return _Row(ids, labels)
        scale = np.zeros(len(ids), dtype=np.float32)
        here = spans.part(slice(len(trained)))
        scale[position[trained]] = carried_weights(read.spans.part(theirs), mask, weights, here)[trained]
        return _Row(ids, labels, scale)


def _written(tokenizer: Tokenizer, tokens: Tokens, row: int, chosen: NDArray[np.integer]) -> Written:
    """What response tokens of a row write, by their numbers in it."""
    ids = tokens.input_ids(row)[tokens.position[tokens.responses(row)][chosen]].tolist()
    texts = [tokenizer.decode(ids[: count + 1], skip_special_tokens=False) for count in range(len(ids))]
    ends = np.maximum.accumulate([len(text) for text in texts])  # parts of a character may shrink it again
    return Written(texts[-1].ljust(int(ends[-1])), ends)
