"""What was measured once is found again, in the order asked for, and under nobody else's key."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datapruner.measuring.signal_cache import ProxyKey, SignalCache, shard_name
from datapruner.measuring.workers import shards
from scorers.signals.columns import SAMPLE_SIGNALS, TOKEN_SIGNALS, VECTOR_SIGNALS

KEY = ProxyKey(
    model="m",
    revision="r1",
    template_hash="t1",
    dtype="float32",
    max_length=None,
    overflow="truncate",
    train_on="all",
    tied=False,
    signal_version=1,
)
SCHEMA = shards.schema(4, 3, lora=True)
VECTORS = VECTOR_SIGNALS.keys() - {"sentence_embedding"}  # which another model gives
EVERYTHING = frozenset([*SAMPLE_SIGNALS, *VECTORS, *(f"token:{name}" for name in TOKEN_SIGNALS)])


def row(sample_id: str, value: float, prompt: int = 2, response: int = 3) -> dict[str, Any]:
    """A measured sample all of whose numbers follow from `value`."""
    tokens = [value + t / 10 for t in range(response)]
    doubles = {f.name: value for f in SCHEMA if f.type == pa.float64()}
    return doubles | {
        "sample_id": sample_id,
        "input_ids": list(range(prompt + response)),
        "position": list(range(prompt, prompt + response)),
        "turn": [1] * response,
        "char_start": list(range(response)),
        "char_end": list(range(1, response + 1)),
        "is_end": [False] * (response - 1) + [True],
        "n_tokens": prompt + response,
        "n_prompt_tokens": prompt,
        "n_response_tokens": response,
        "n_truncated": 0,
        "n_tokens_full": prompt + response,
        "nll": tokens,
        "entropy": tokens,
        "el2n": tokens,
        "top1": [True] * response,
        "head_grad_projection": [value] * 4,
        "mean_hidden": [value] * 3,
        "weighted_hidden": [value] * 3,
    }


def failure(sample_id: str) -> dict[str, Any]:
    return {"sample_id": sample_id, "error": "cannot be rendered"}


@pytest.fixture
def cache(tmp_path: Path) -> SignalCache:
    cache = SignalCache(tmp_path, KEY)
    cache.create()
    return cache


def put(cache: SignalCache, *rows: dict[str, Any]) -> Path:
    path = cache.folder / shard_name([each["sample_id"] for each in rows])
    shards.write(path, rows, SCHEMA)
    return path


# Keys


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("revision", "r2"),
        ("template_hash", "t2"),
        ("dtype", "bfloat16"),
        ("max_length", 512),
        ("overflow", "error"),
        ("train_on", "last"),
        ("tied", True),
        ("signal_version", 2),
        ("context", "header"),
        ("lora", True),
    ],
)
def test_whatever_changes_a_number_changes_the_key(tmp_path: Path, field: str, value: Any) -> None:
    other = dataclasses.replace(KEY, **{field: value})
    assert other.digest() != KEY.digest()
    assert SignalCache(tmp_path, other).folder != SignalCache(tmp_path, KEY).folder


def test_keys_from_before_there_were_views_are_the_same() -> None:
    """What was measured then is found again."""
    assert KEY.digest() == "8851384a95cf2a0b"
    assert "context" not in KEY.document()
    assert ProxyKey(**KEY.document()) == KEY
    bare = dataclasses.replace(KEY, context="bare")
    assert ProxyKey(**bare.document()) == bare


def test_another_name_for_the_same_model_is_the_same_key() -> None:
    assert dataclasses.replace(KEY, model="another name").digest() == KEY.digest()


def test_every_field_of_the_key_but_the_name_was_tried_above() -> None:
    marks = test_whatever_changes_a_number_changes_the_key.pytestmark  # type: ignore[attr-defined]
    tried = {field for field, _ in marks[0].args[1]}
    assert tried == {field.name for field in dataclasses.fields(ProxyKey)} - {"model"}


def test_the_folder_spells_its_key_out(cache: SignalCache) -> None:
    cache.create()
    assert json.loads((cache.folder / "key.json").read_text()) == KEY.document()
    assert [path.name for path in cache.folder.iterdir()] == ["key.json"]


# Status


def test_before_anything_was_measured_nothing_is_known(tmp_path: Path) -> None:
    status = SignalCache(tmp_path / "never made", KEY).status(["a"])
    assert (status.columns, len(status)) == (["sample_id", "error"], 0)


def test_the_status_tells_measured_failed_and_unknown_samples_apart(cache: SignalCache) -> None:
    put(cache, row("a", 1), failure("b"))
    put(cache, row("c", 2))
    assert dict(cache.status(["c", "b", "x", "a"]).iter_rows()) == {
        "a": None,
        "b": "cannot be rendered",
        "c": None,
    }
    assert dict(cache.status([]).iter_rows()) == {}


def test_unfinished_files_are_no_shards(cache: SignalCache) -> None:
    path = put(cache, row("a", 1))
    for name in (f".{path.name}.1234", ".hidden.parquet", "notes.txt", "x.parquet.tmp"):
        (cache.folder / name).write_bytes(b"PAR1 and then the power went")
    assert cache.shards() == [path]
    assert cache.status(["a"])["sample_id"].to_list() == ["a"]


def test_a_home_whose_name_looks_like_a_pattern_works(tmp_path: Path) -> None:
    cache = SignalCache(tmp_path / "home [1] *", KEY)
    cache.create()
    put(cache, row("a", 1))
    assert cache.columns(["a"], ["nll_mean"])["nll_mean"].to_list() == [1.0]


# Signals


def test_signals_come_in_the_order_asked_for_with_offsets_that_match(cache: SignalCache) -> None:
    rows = {f"s{i}": row(f"s{i}", float(i), prompt=i, response=i % 3 + 1) for i in range(1, 8)}
    put(cache, *list(rows.values())[:3], failure("bad"))
    put(cache, *list(rows.values())[3:])
    ids = ["s5", "s1", "s7", "s3"]
    signals = cache.signals(ids, EVERYTHING)
    assert signals.ids.tolist() == ids
    assert signals.samples["n_prompt_tokens"].tolist() == [5, 1, 7, 3]
    assert signals.samples["nll"].tolist() == [5.0, 1.0, 7.0, 3.0]
    assert set(signals.samples) == set(SAMPLE_SIGNALS)
    for i, sample_id in enumerate(ids):
        own = slice(signals.offsets[i], signals.offsets[i + 1])
        assert signals.samples["n_response_tokens"][i] == signals.lengths[i] == len(rows[sample_id]["nll"])
        for name in TOKEN_SIGNALS:
            expected = np.array(rows[sample_id][name], dtype=signals.tokens[name].dtype)
            assert signals.tokens[name][own].tolist() == expected.tolist()
    everyone = np.arange(len(ids))
    assert signals.vectors["mean_hidden"][everyone].tolist() == [[v] * 3 for v in (5.0, 1.0, 7.0, 3.0)]
    assert signals.vectors["head_grad_projection"].shape == (4, 4)


def test_types_are_those_that_methods_count_on(cache: SignalCache) -> None:
    put(cache, row("a", 1), row("b", 2))
    signals = cache.signals(["a", "b"], EVERYTHING)
    kinds = {name: str(column.dtype) for name, column in signals.tokens.items()}
    assert kinds == {
        "position": "int32",
        "nll": "float32",
        "entropy": "float32",
        "el2n": "float32",
        "top1": "bool",
        "is_end": "bool",
    }
    assert signals.samples["head_grad_norm"].dtype == np.float64
    # Signed, so that one count less another may be negative.
    assert {signals.samples[n].dtype for n in ("n_tokens", "n_prompt_tokens", "n_response_tokens")} == {
        np.dtype(np.int64)
    }


def test_only_what_is_needed_is_there(cache: SignalCache) -> None:
    put(cache, row("a", 1))
    signals = cache.signals(["a"], frozenset({"nll", "token:top1"}))
    assert set(signals.samples) == {"nll", "n_tokens", "n_prompt_tokens", "n_response_tokens"}
    assert (set(signals.tokens), set(signals.vectors)) == ({"top1"}, set())


def test_only_the_columns_asked_for_are_read(cache: SignalCache) -> None:
    path = put(cache, row("a", 1), row("b", 2))
    counts = [name for name in SCHEMA.names if name.startswith("n_")]
    little = pq.read_table(path, columns=["sample_id", "error", "nll_mean", *counts])
    pq.write_table(little, path)
    signals = cache.signals(["b", "a"], frozenset({"nll"}))
    assert signals.samples["nll"].tolist() == [2.0, 1.0]
    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        cache.signals(["a"], frozenset({"mean_hidden"}))


def test_a_sample_in_two_shards_is_read_once_from_the_first_by_name(cache: SignalCache) -> None:
    both = [put(cache, row("a", 1), row("b", 2)), put(cache, row("b", 20), row("c", 30), row("a", 10))]
    first = dict(zip(both, (1.0, 10.0), strict=True))[min(both)]
    assert cache.signals(["b", "a"], frozenset({"nll"})).samples["nll"].tolist() == [first * 2, first]
    assert sorted(cache.status(["a", "b", "c"])["sample_id"]) == ["a", "b", "c"]


def test_the_same_samples_in_a_shard_have_one_name_and_others_another() -> None:
    assert shard_name(["a", "b"]) == shard_name(["a", "b"])
    assert len({shard_name(ids) for ids in (["a", "b"], ["b", "a"], ["ab"], ["a"], [])}) == 5


def test_columns_come_with_the_ids_of_the_samples(cache: SignalCache) -> None:
    put(cache, row("a", 1), row("b", 2), row("c", 3))
    found = cache.columns(["c", "a"], ["nll_mean"])
    assert found.rows() == [("c", 3.0), ("a", 1.0)]
    assert found.columns == ["sample_id", "nll_mean"]


def test_a_sample_that_was_not_measured_is_never_passed_over(cache: SignalCache) -> None:
    put(cache, row("a", 1), failure("b"))
    with pytest.raises(AssertionError, match="2 samples are not in"):
        cache.columns(["a", "b", "c"], ["nll_mean"])


def test_a_signal_that_does_not_exist_is_not_passed_over(cache: SignalCache) -> None:
    put(cache, row("a", 1))
    with pytest.raises(AssertionError, match=r"no such signals: .*'token:ppl'"):
        cache.signals(["a"], frozenset({"token:ppl"}))
