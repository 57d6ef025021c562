"""The samples that are most like one, by the vectors that were measured for its run.

What a run compares samples by is cached with its signals: a sentence embedding where it has one, else the
proxy model's mean hidden state. Memory is an id and a number for each sample, and one block of vectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from datapruner.corpora.corpus import Corpus
from datapruner.errors import ConflictError, NotFoundError
from datapruner.measuring.signal_cache import ProxyKey, SignalCache
from datapruner.measuring.vectors import unpack
from datapruner.runs.published import Run
from datapruner.schemas.neighbours import NearestRow, NearestRows
from scorers.conversations.conversation import Conversation

_BEGINNING = 240  # characters
_MEASURED = "SELECT row, sample_id, status FROM sample_scores SEMI JOIN scored USING (row) ORDER BY row"


def nearest(run: Run, corpus_file: Path, signals: Path, sample_id: str, count: int) -> NearestRows:
    """The `count` other samples of greatest cosine to this one, each by its first row; equal ones in their
    order.

    `signals` is the folder that the run's signals are in. Raises NotFoundError when this sample was not
    measured, or its signals are gone; ConflictError when no model read the samples.
    """
    name, key = _vectors_of(run)
    cache = SignalCache(signals, key)
    with duckdb.connect(str(run.database), read_only=True) as connection:
        scored = connection.sql(_MEASURED).pl()
    known = cache.status(scored["sample_id"]).filter(pl.col("error").is_null())
    scored = scored.join(known, on="sample_id", how="semi", maintain_order="left")
    own = (scored["sample_id"] == sample_id).arg_max()
    if own is None or scored["sample_id"][own] != sample_id:
        raise NotFoundError(
            f"run {run.run_id} has no vector of sample {sample_id}",
            remedy="ask for one that was measured; signals that were deleted come back with another run",
            field="sample",
        )
    cosines = _cosines(cache, scored["sample_id"], name, own)
    cosines[own] = -np.inf
    order = np.argsort(-cosines, kind="stable")[:count]
    found = order[np.isfinite(cosines[order])]
    with Corpus(corpus_file) as corpus:
        rows = [
            _row(corpus.conversation(line["sample_id"]), line, float(cosine))
            for line, cosine in zip(scored[found].to_dicts(), cosines[found], strict=True)
        ]
    return NearestRows(vectors=name, samples=len(scored), rows=rows)


def _vectors_of(run: Run) -> tuple[Literal["sentence_embedding", "mean_hidden"], ProxyKey]:
    """The vectors that a run's samples are compared by, and in which cache they are."""
    embedder, proxy = run.lineage.get("embedder"), run.lineage.get("proxy")
    if embedder is not None:
        return "sentence_embedding", ProxyKey(**embedder)
    if proxy is None or not ProxyKey(**proxy).has_signals:
        raise ConflictError(
            f"no model read the samples of run {run.run_id}, so there are no vectors to compare",
            remedy="start a run with a method that reads the proxy model",
            field="run",
        )
    return "mean_hidden", ProxyKey(**proxy)


def _cosines(cache: SignalCache, ids: pl.Series, name: str, own: int) -> NDArray[np.float32]:
    """Of each of N samples to sample `own` of them, (N,); -inf where a vector is zero or not finite."""
    one = unpack(cache.columns([ids[own]], [name])[name])[0]
    found = np.empty(len(ids), np.float32)
    for rows, frame in cache.places(ids).blocks([name]):
        vectors = unpack(frame[name])
        with np.errstate(divide="ignore", invalid="ignore"):
            cosines = vectors @ one / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(one))
        found[rows] = np.where(np.isfinite(cosines), cosines, -np.inf)
    return found


def _row(conversation: Conversation, line: dict[str, Any], cosine: float) -> NearestRow:
    def beginning(role: str) -> str | None:
        contents = (turn.content for turn in conversation.turns if turn.role == role)
        return next((content[:_BEGINNING] for content in contents), None)

    return NearestRow(
        row=line["row"],
        status=line["status"],
        cosine=cosine,
        prompt=beginning("user"),
        response=beginning("assistant"),
    )
