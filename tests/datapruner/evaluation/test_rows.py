"""Rows for a model with other tokens than the proxy, against what is exported for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest

import datapruner
from datapruner import library
from datapruner.corpora.store import ingest_to
from datapruner.evaluation.rows import HeldOut, Pool, prepare
from datapruner.library import Result
from datapruner.measuring.measure import Machine, proxy_for
from datapruner.measuring.signal_cache import ProxyKey, SignalCache
from datapruner.measuring.workers.local import IdleWorkers
from datapruner.progress import Silent
from datapruner.runs import published
from datapruner.tuning.examples import Examples
from tests import chat_templates as ct
from tests.pipeline import Prune
from tests.tiny_model import FACTS, with_other_tokens

_ONE_TURN = "{%- if messages|length > 3 -%}{{ raise_exception('one turn each') }}{%- endif -%}" + ct.LLAMA3


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that refuses chats of several turns."""
    return with_other_tokens(tmp_path_factory.mktemp("other-model"), _ONE_TURN)


@pytest.fixture(scope="module")
def pruned(prune: Prune) -> Result:
    """A run that keeps most samples, and of some of them not all tokens."""
    return prune("qtuning", 0.8, token_keep=0.4)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows, one of them of the corpus."""
    path = tmp_path_factory.mktemp("held-out") / "held.jsonl"
    rows = [
        {"prompt": "What do cows make?", "response": "Milk."},
        {"prompt": FACTS[1][0], "response": FACTS[1][1]},
    ]
    pl.DataFrame(rows).write_ndjson(path)
    return path


@pytest.fixture(scope="module")
def prepared(
    pruned: Result, held_out: Path, other_model: Path, home: Path, idle: IdleWorkers
) -> tuple[Pool, list[HeldOut]]:
    machine = Machine(("cpu",), threads=1, idle=idle)
    reading = pruned.run.config.measuring
    wanted, measured = (
        proxy_for(each, home, machine.devices)
        for each in (reading.model_copy(update={"model": str(other_model)}), reading)
    )
    sets = {"held": ("held.jsonl", ingest_to(held_out, {}, home, Silent()))}
    corpus = published.corpus_path(pruned.run, home)
    return prepare(corpus, sets, wanted, measured, home, machine, Silent())


@pytest.fixture(scope="module")
def exported(pruned: Result, other_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By sample, token ids and labels of what is exported for the other model."""
    path = tmp_path_factory.mktemp("exported") / "rows.parquet"
    pruned.export_for("trl", path, tokenizer=str(other_model))
    rows = pl.read_parquet(path).select("sample_id", "input_ids", "labels").iter_rows()
    return {sample_id: (np.array(ids), np.array(labels)) for sample_id, ids, labels in rows}


def test_the_subset_is_trained_on_as_it_is_exported_for_the_model(
    prepared: tuple[Pool, list[HeldOut]], pruned: Result, exported: dict[str, Any]
) -> None:
    pool, _ = prepared
    kept = pool.kept(pruned.run)
    assert set(kept.sample_ids) == exported.keys() & set(pool.index["sample_id"])
    assert len(exported) - len(kept.sample_ids) <= 1  # the row that is held out
    examples = pool.examples_of(pruned.run, kept.sample_ids.to_list())
    for number, sample_id in enumerate(kept.sample_ids):
        ids, positions = examples.row(number)
        whole, labels = exported[sample_id]
        trained = np.flatnonzero(labels != -100)
        assert positions.tolist() == trained.tolist()
        assert ids.tolist() == whole[: trained[-1] + 1].tolist()
        assert (kept.counted[number], kept.lengths[number]) == (len(trained), len(whole))
    responses = pool.index.filter(pl.col("sample_id").is_in(kept.sample_ids.to_list()))["n_counted"].sum()
    assert 0 < kept.total < responses


def test_some_of_the_rows_come_in_the_order_asked_for(
    prepared: tuple[Pool, list[HeldOut]], pruned: Result, exported: dict[str, Any]
) -> None:
    pool, _ = prepared
    some = list(pool.kept(pruned.run).sample_ids)[::-3]
    examples = pool.examples_of(pruned.run, some)
    found = [examples.row(number)[1].tolist() for number in range(len(some))]
    assert found == [np.flatnonzero(exported[each][1] != -100).tolist() for each in some]


def test_kept_rows_that_the_model_cannot_read_are_counted_and_said(
    prepared: tuple[Pool, list[HeldOut]], pruned: Result
) -> None:
    pool, [held] = prepared
    about = pool.carried(pruned.run)
    assert about is not None
    [(reason, refused)] = about.refused.items()
    assert "one turn each" in reason
    kept = pruned.scores.filter(pl.col("keep"))
    assert held.taken == 1
    assert about.rows == len(kept) - len(kept.filter(row=1))
    assert about.rows == about.trained + about.untrained + refused
    assert f"{about.trained} of {about.rows} kept rows" in about.said
    assert f"{refused} rows cannot be read by the model" in about.said


def test_all_arms_are_counted_in_the_tokens_of_the_model(
    prepared: tuple[Pool, list[HeldOut]], pruned: Result, held_out: Path, other_model: Path, home: Path
) -> None:
    pool, _ = prepared
    [found] = datapruner.evaluate(
        pruned, held_out, model=str(other_model), tuning="full", seeds=1, device="cpu", home=home
    )
    arms = {each.name: each for each in found.arms}
    budget = pool.kept(pruned.run).total
    assert arms["subset"].trained_tokens == budget
    longest = pool.everything().counted.max()
    assert all(abs(arms[name].trained_tokens - budget) <= longest / 2 for name in ("random", "longest"))
    assert arms["all"].trained_tokens == pool.everything().total
    assert found.carried == pool.carried(pruned.run)
    measured = SignalCache(home, ProxyKey(**pruned.run.lineage["proxy"]))
    samples = pruned.scores.filter(pl.col("n_response_tokens").is_not_null())["sample_id"].unique().to_list()
    read = sum(map(len, measured.columns(samples, ["input_ids"])["input_ids"]))
    assert found.cost is not None
    assert found.cost.measured_tokens == read != pool.everything().lengths.sum()  # those of the proxy
    assert found.cost.all_tokens == pool.everything().lengths.sum()


def test_a_run_with_a_length_limit_is_carried_over_at_equal_tokens_and_leaves_no_process(
    prune: Prune, held_out: Path, other_model: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prune("length", 0.5, max_length=60)
    monkeypatch.setattr(library, "Machine", Machine)  # whose processes do not stay for the next test
    before = set(psutil.Process().children())
    [found] = datapruner.evaluate(
        run, held_out, model=str(other_model), tuning="full", seeds=1, device="cpu", home=home
    )
    assert set(psutil.Process().children()) <= before
    arms = {each.name: each for each in found.arms}
    assert found.carried is not None
    assert arms["longest"].trained_tokens / arms["longest"].rows < 60
    assert abs(arms["random"].trained_tokens - arms["subset"].trained_tokens) <= 30


# Random tokens


def marks(examples: Examples) -> list[tuple[list[int], list[float] | None]]:
    """Of each row the positions that count, and their weights."""
    rows = [(examples.row(at)[1].tolist(), examples.weights_of(at)) for at in range(len(examples))]
    return [(where, None if weights is None else weights.tolist()) for where, weights in rows]


def test_random_tokens_are_as_many_of_each_row_with_the_ends_and_weights_of_the_run(
    prepared: tuple[Pool, list[HeldOut]], pruned: Result, weighted: Result
) -> None:
    pool, _ = prepared
    for run in (pruned.run, weighted.run):
        assert pool.masks_tokens(run)
        ids = pool.kept(run).sample_ids.to_list()
        kept, drawn = pool.examples_of(run, ids), pool.redrawn_of(run, ids, 1)
        frame = pool.tokenised.measured.cache.columns(ids, ["position", "is_end"])
        moved = 0
        for number, (before, after) in enumerate(zip(marks(kept), marks(drawn), strict=True)):
            response, is_end = (frame[name][number].to_list() for name in ("position", "is_end"))
            ends = {at for at, closes in zip(response, is_end, strict=True) if closes}
            assert len(before[0]) == len(after[0])
            assert set(after[0]) <= set(response)
            assert set(before[0]) & ends == set(after[0]) & ends
            if before[1] is not None and after[1] is not None:
                assert sorted(before[1]) == sorted(after[1])
                of_ends = [dict(zip(*each, strict=True)) for each in (before, after)]
                assert all(of_ends[0][at] == of_ends[1][at] for at in set(before[0]) & ends)
            moved += before != after
        assert moved > (len(ids) / 2 if run is weighted.run else 1)


def test_random_tokens_of_a_row_are_the_same_among_any_others_and_others_by_another_seed(
    prepared: tuple[Pool, list[HeldOut]], pruned: Result
) -> None:
    pool, _ = prepared
    ids = pool.kept(pruned.run).sample_ids.to_list()
    whole = dict(zip(ids, marks(pool.redrawn_of(pruned.run, ids, 1)), strict=True))
    some = ids[::-2]
    assert marks(pool.redrawn_of(pruned.run, some, 1)) == [whole[each] for each in some]
    assert marks(pool.redrawn_of(pruned.run, ids, 2)) != list(whole.values())


def test_a_run_that_keeps_rows_whole_has_no_tokens_to_draw(
    prepared: tuple[Pool, list[HeldOut]], prune: Prune
) -> None:
    assert not prepared[0].masks_tokens(prune("length", 0.5).run)
