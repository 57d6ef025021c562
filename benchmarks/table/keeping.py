"""What a method keeps of labelled rows at half of them, and whether its score is their length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from benchmarks.table.asked import Asked, Notes, Place, hashed
from benchmarks.table.corpora import Labelled
from benchmarks.table.planting import SOUND
from datapruner.errors import DataprunerError
from datapruner.runs.correlation import spearman

KEEP = 0.5


def known(each: Asked, corpus: Labelled, place: Place, notes: Notes) -> dict[str, Any] | None:
    """What `kept` found before."""
    return notes.get(_key(each, corpus, place))


def kept(each: Asked, corpus: Labelled, place: Place, notes: Notes) -> dict[str, Any]:
    """Of every label, how many rows are kept of how many: `{"kept": {label: [kept, rows]}, "tokens": share of
    the response tokens in kept rows, "length": {...}}`; `{"left_out": why}` where the method cannot."""
    try:
        scores = place.prune(each, corpus.rows, corpus.beside, keep=KEEP).scores
    except DataprunerError as error:
        return {"left_out": str(error)}
    found = counted(scores, corpus.labels, each)
    notes.put(_key(each, corpus, place), found)
    return found


def _key(each: Asked, corpus: Labelled, place: Place) -> str:
    return hashed("kept", each.identity, corpus.rows, corpus.labels, corpus.beside, KEEP, place.model)


def counted(scores: pl.DataFrame, labels: list[str], each: Asked) -> dict[str, Any]:
    """As `kept`, of a run's table. Rows that were not measured, as copies are not, count nowhere."""
    table = scores.filter(pl.col("keep").is_not_null() & pl.col("n_response_tokens").is_not_null())
    table = table.with_columns(label=pl.Series([labels[row] for row in table["row"]], dtype=pl.String))
    counts = table.group_by("label").agg(pl.col("keep").sum(), pl.len()).sort("label")
    tokens, is_kept = table["n_response_tokens"].to_numpy(), table["keep"].cast(pl.Boolean).to_numpy()
    found: dict[str, Any] = {
        "kept": {label: [kept, rows] for label, kept, rows in counts.iter_rows()},
        "tokens": float(tokens[is_kept].sum() / tokens.sum()),
        "of_tokens": int(tokens.sum()),
    }
    if each.score is not None and each.score.name in table.columns:
        clean = table.filter(pl.col("label") == SOUND) if SOUND in labels else table
        pair = clean.select(score=each.score.name, length="n_response_tokens").drop_nulls().drop_nans()
        correlation = spearman(pair)
        if correlation is not None:
            found["length"] = {"column": each.score.name, "correlation": correlation, "rows": len(pair)}
    return found


def share(found: Mapping[str, Any], label: str) -> float:
    """The share of a label's rows that is kept."""
    kept, rows = found["kept"].get(label, (0, 0))
    return float(kept / rows) if rows else float("nan")
