"""One line for every row of the input, and masks that agree with a slow loop over tokens and characters."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.measuring import spool
from datapruner.request.config import MethodChoice, RunConfig
from datapruner.request.keep import Keep
from datapruner.result import Result
from datapruner.runs import tables
from datapruner.runs.columns import COLUMNS, sample_texts
from datapruner.runs.selection import Scored, kept_tokens, score
from datapruner.runs.tables import masks, measured_columns, sample_scores, scored_samples
from scorers.signals.columns import Signals
from tests.pipeline import Prune
from tests.signal_factory import make_signals

# Masks


def token_places(signals: Signals, seed: int) -> pl.DataFrame:
    """Turns and characters for the tokens of random signals.

    A gap in position begins a turn. Tokens are empty, one or more characters wide, or spell the character
    of the token before them once more, as parts of an emoji do.
    """
    rng = np.random.default_rng(seed)
    columns: dict[str, list[list[int]]] = {
        name: [] for name in ("position", "turn", "char_start", "char_end")
    }
    for i in range(len(signals)):
        own = signals.tokens["position"][signals.offsets[i] : signals.offsets[i + 1]].tolist()
        turn, start, end = 1, 0, 0
        lists: dict[str, list[int]] = {name: [] for name in columns}
        for t, position in enumerate(own):
            if t and position != own[t - 1] + 1:
                turn, start, end = turn + 2, 0, 0
            kind = rng.integers(4)
            if kind == 0:
                start = end
            elif kind < 3 or start == end:
                start, end = end, end + int(rng.integers(1, 4))
            for name, value in zip(lists, (position, turn, start, end), strict=True):
                lists[name].append(value)
        for name, values in lists.items():
            columns[name].append(values)
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.List(pl.Int32)))


def flat(places: pl.DataFrame) -> pl.DataFrame:
    return places.explode(pl.all(), empty_as_null=False)


def slow_masks(
    signals: Signals, keep: Any, token_keep: Any, places: pl.DataFrame
) -> list[tuple[str, list[int], list[tuple[int, int, int]]]]:
    out = []
    for i, line in enumerate(places.iter_rows(named=True)):
        if not keep[i]:
            continue
        tokens, characters = [], set()
        for t in range(len(line["position"])):
            if token_keep[signals.offsets[i] + t]:
                tokens.append(line["position"][t])
                characters |= {
                    (line["turn"][t], c) for c in range(line["char_start"][t], line["char_end"][t])
                }
        spans: list[tuple[int, int, int]] = []
        for turn, character in sorted(characters):
            if spans and spans[-1][0] == turn and spans[-1][2] == character:
                spans[-1] = (turn, spans[-1][1], character + 1)
            else:
                spans.append((turn, character, character + 1))
        out.append((str(signals.ids[i]), tokens, spans))
    return out


@settings(max_examples=150)
@given(st.integers(1, 12), st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1))
def test_masks_agree_with_a_loop_over_tokens_and_characters(
    n: int, seed: int, kept_share: float, token_share: float
) -> None:
    signals = make_signals(n, seed)
    places = token_places(signals, seed)
    rng = np.random.default_rng(seed)
    keep, token_keep = rng.random(n) < kept_share, rng.random(int(signals.offsets[-1])) < token_share
    rows = np.arange(n, dtype=np.int64) * 3
    weight = rng.random(len(token_keep)).astype(np.float32)
    found = masks(signals, keep, token_keep, flat(places), rows, weight)
    taken = [(token_keep & keep.repeat(signals.lengths))[a:b] for a, b in pairwise(signals.offsets)]
    parts = [
        weight[a:b][some].tolist() for some, (a, b) in zip(taken, pairwise(signals.offsets), strict=True)
    ]
    assert found["token_weight"].to_list() == [part for part, kept in zip(parts, keep, strict=True) if kept]
    assert found["row"].to_list() == rows[keep].tolist()
    spans = [[(s["turn"], s["start"], s["end"]) for s in each] for each in found["kept_spans"].to_list()]
    expected = slow_masks(signals, keep, token_keep, places)
    assert list(zip(found["sample_id"], found["kept_tokens"].to_list(), spans, strict=True)) == expected


def test_when_nothing_is_kept_the_masks_are_empty_and_have_their_columns() -> None:
    signals = make_signals(3)
    nothing = np.zeros(3, dtype=np.bool_)
    tokens = np.ones(int(signals.offsets[-1]), dtype=np.bool_)
    found = masks(signals, nothing, tokens, flat(token_places(signals, 0)), np.arange(3))
    assert (len(found), found.columns) == (
        0,
        ["sample_id", "row", "kept_tokens", "kept_spans", "token_weight"],
    )


@pytest.mark.parametrize(
    ("of", "limit", "most"),
    [
        (tables, "_CHUNK_SAMPLES", 1),
        (tables, "_CHUNK_SAMPLES", 5),
        (tables, "_CHUNK_SAMPLES", 24),
        (tables, "_CHUNK_TOKENS", 60),
        (spool, "_HELD_BYTES", 0),
    ],
)
def test_masks_and_token_scores_do_not_depend_on_how_much_is_taken_at_once(
    prune: Prune, monkeypatch: pytest.MonkeyPatch, of: ModuleType, limit: str, most: int
) -> None:
    whole = prune("qtuning", 0.5)
    expected = whole.masks, whole.token_scores
    assert 1 < whole.token_scores["row"].value_counts()["count"].max() < whole.token_scores.height
    monkeypatch.setattr(of, limit, most)
    again = prune("qtuning", 0.5)
    assert again.masks.equals(expected[0])
    assert again.token_scores.equals(expected[1])


# Sample scores


def scored(signals: Signals, keep: Keep | None) -> tuple[Scored, Any]:
    found = score(signals, [MethodChoice(name="qtuning")], keep, 0)
    return found, None if found.selection is None else kept_tokens(signals, found.selection)


def index_of(ids: list[str], duplicates: dict[int, int]) -> pl.DataFrame:
    """Rows 0, 2, 4, ... of a corpus; `duplicates` maps a row to the row that it copies."""
    rows = [2 * i for i in range(len(ids))]
    copies = [duplicates.get(row) for row in rows]
    columns = {"row": rows, "sample_id": ids, "duplicate_of": copies}
    return pl.DataFrame(columns, schema={"row": pl.Int64, "sample_id": pl.String, "duplicate_of": pl.Int64})


def rejects_of(*rows: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "row": rows,
            "reason": ["'output' is empty"] * len(rows),
            "remedy": ["fill it in", None][: len(rows)],
        },
        schema={"row": pl.Int64, "reason": pl.String, "remedy": pl.String},
    )


@pytest.mark.parametrize("keep", [Keep(share=0.5), None])
@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_every_row_has_one_line_whatever_became_of_it(
    keep: Keep | None, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "row_group", lambda judged: at_once)
    monkeypatch.setattr(tables, "_GROUPS_AT_ONCE", 1)
    signals = make_signals(4)
    good = signals.ids.tolist()
    ids = [*good, "bad", good[1], "bad"]
    index = index_of(ids, {10: 2, 12: 8})
    found, kept = scored(signals, keep)
    truncated = np.array([0, 5, 0, 0])
    measured = measured_columns(signals, truncated, found.samples)
    parts = sample_scores(
        index,
        rejects_of(1, 3),
        {"bad": "too long"},
        scored_samples(measured, found.selection, kept),
        RunConfig(methods=[MethodChoice(name="length")], keep=keep),
    )
    tables_of = list(parts)
    assert len(tables_of) == -(-len(index) // at_once)
    table = pl.concat(tables_of)
    assert table["row"].to_list() == [0, 1, 2, 3, 4, 6, 8, 10, 12]
    by_row = {line["row"]: line for line in table.iter_rows(named=True)}

    assert (by_row[1]["status"], by_row[1]["reason"]) == ("rejected", "'output' is empty (fill it in)")
    assert (by_row[3]["sample_id"], by_row[3]["reason"]) == (None, "'output' is empty")
    for row in (8, 12):
        assert (by_row[row]["status"], by_row[row]["reason"], by_row[row]["ppl"]) == (
            "error",
            "too long",
            None,
        )
    assert by_row[10]["reason"] == "exact duplicate of row 2"
    assert by_row[10]["ppl"] == by_row[2]["ppl"] == pytest.approx(np.exp(signals.samples["nll"][1]))
    assert (by_row[10]["n_truncated"], by_row[2]["n_truncated"]) == (5, 5)
    if keep is None:
        assert {by_row[row]["status"] for row in (0, 2, 4, 6, 10)} == {"scored"}
        assert table["keep"].is_null().all()
        assert table["n_kept_tokens"].is_null().all()
        return
    assert found.selection is not None
    assert by_row[10]["status"] == "pruned"
    assert [by_row[row]["keep"] for row in (0, 2, 4, 6)] == found.selection.keep.tolist()
    assert not any(by_row[row]["keep"] for row in (1, 3, 8, 10, 12))
    assert [by_row[row]["n_kept_tokens"] for row in (0, 2, 4, 6)] == kept.tolist()
    assert [by_row[row]["n_kept_tokens"] for row in (1, 3, 8, 10, 12)] == [0] * 5


def test_parts_become_one_table_and_what_is_summed_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals = make_signals(30)
    found, kept = scored(signals, Keep(share=0.5))
    measured = measured_columns(signals, np.zeros(30, np.int64), found.samples)
    judged = scored_samples(measured, found.selection, kept)
    config = RunConfig(methods=[MethodChoice(name="qtuning")], keep=Keep(share=0.5))
    parts = (index_of(signals.ids.tolist(), {}), rejects_of(5, 9), {}, judged, config)
    whole = pl.concat(sample_scores(*parts))
    monkeypatch.setattr(tables, "row_group", lambda judged: 7)
    monkeypatch.setattr(tables, "_GROUPS_AT_ONCE", 1)
    database = tmp_path / "run.duckdb"
    schema = tables.token_schema(found)
    summed = tables.write(database, tmp_path / "tokens", sample_scores(*parts), 2048, schema, iter(()))
    with duckdb.connect(str(database), read_only=True) as connection:
        found_there = pl.from_arrow(connection.sql("FROM sample_scores").to_arrow_table())
    assert isinstance(found_there, pl.DataFrame)
    assert found_there.equals(whole)
    assert summed.equals(whole.select(summed.columns))
    assert {"status", "reason", "quadrant", "n_kept_tokens"} <= set(summed.columns)


def test_the_named_columns_are_always_there_with_their_types() -> None:
    signals = make_signals(3)
    found = score(signals, [MethodChoice(name="length")], Keep(count=1), 0)
    assert found.selection is not None
    index = index_of(signals.ids.tolist(), {})
    measured = measured_columns(signals, np.zeros(3, np.int64), found.samples)
    judged = scored_samples(measured, found.selection, kept_tokens(signals, found.selection))
    config = RunConfig(methods=[MethodChoice(name="length")], keep=Keep(count=1))
    table = pl.concat(sample_scores(index, rejects_of(), {}, judged, config))
    kinds = {"real": pl.Float64, "whole": pl.Int64, "text": pl.String, "truth": pl.Boolean}
    assert {name: table.schema[name] for name in COLUMNS} == {
        name: kinds[column.kind] for name, column in COLUMNS.items()
    }
    assert [name for name in table.columns if name in COLUMNS] == list(COLUMNS)
    assert table.columns[-3:] == ["keep", "reason", "status"]
    assert "length" in table.columns
    assert table["don"].null_count() == table["quadrant"].null_count() == 3


# The database


def test_the_database_describes_its_columns(prune: Prune) -> None:
    with duckdb.connect(str(prune("donod", 0.5).run.database), read_only=True) as connection:
        described = dict(
            connection.sql(
                "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'sample_scores'"
            ).fetchall()
        )
    assert described == sample_texts(described)
    assert described["entropy"] == COLUMNS["entropy"].text
    assert described["nod"] == (
        "donod: ||W - W'||, of the head before and after the step (at least 0; low is kept)"
    )


def test_token_scores_have_one_line_for_each_response_token(prune: Prune) -> None:
    result = prune("qtuning", 0.5)
    tokens, scores = result.token_scores, result.scores
    ids = scores.select("row", "sample_id")
    assert (
        tokens.select("row", "sample_id").unique().join(ids, on=["row", "sample_id"]).height
        == tokens["row"].n_unique()
    )
    per_row = dict(tokens.group_by("row").len().iter_rows())
    measured = scores.filter(
        pl.col("status").is_in(["kept", "pruned"]) & ~pl.col("reason").str.contains("exact dup")
    )
    assert per_row == dict(measured.select("row", "n_response_tokens").iter_rows())
    means = (
        tokens.group_by("row")
        .agg(pl.col("nll").cast(pl.Float64).mean(), pl.col("entropy").mean())
        .sort("row")
    )
    assert np.allclose(means["nll"].exp(), measured["ppl"], rtol=1e-6)
    assert np.allclose(means["entropy"], measured["entropy"], rtol=1e-6)
    kept = tokens.filter("keep").group_by("row").agg("position").sort("row")
    assert kept.rows() == result.masks.select("row", "kept_tokens").rows()
    assert tokens["qtuning"].null_count() == 0
    assert prune("ppl", 0.5).token_scores["qtuning"].is_null().all()


def test_without_a_selection_there_are_no_masks_and_no_token_is_said_to_be_kept(
    prune: Prune, corpus_file: Path, home: Path, options: dict[str, Any]
) -> None:
    import datapruner

    prune("ppl", 0.5)
    result = datapruner.score(corpus_file, ["qtuning"], home=home, **options)
    assert result.token_scores["keep"].is_null().all()
    with duckdb.connect(str(result.run.database), read_only=True) as connection:
        assert connection.sql("SELECT count(*) FROM masks").fetchall() == [(0,)]


def test_weights_of_tokens_are_in_the_masks_and_beside_the_tokens(weighted: Result) -> None:
    tokens = weighted.token_scores
    expected = tokens.select(
        pl.when("keep").then("token_prob").otherwise(0.0).cast(pl.Float32).alias("token_weight")
    )
    assert tokens.select("token_weight").equals(expected)
    kept = tokens.filter("keep")
    assert len(kept) < len(tokens)
    masks = weighted.masks.select("row", "kept_tokens", "token_weight").explode("kept_tokens", "token_weight")
    assert masks.rows() == kept.select("row", "position", "token_weight").rows()


def test_a_run_that_weights_no_tokens_has_null_in_their_place(first_run: Result) -> None:
    assert first_run.token_scores["token_weight"].null_count() == len(first_run.token_scores)
    assert first_run.masks["token_weight"].null_count() == len(first_run.masks)
