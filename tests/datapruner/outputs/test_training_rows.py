"""Rows for trainers: what a limit of length leaves of them, every row accounted for, and their shards."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datapruner.errors import UsageError
from datapruner.outputs import training_rows
from datapruner.outputs.training_rows import TooLong, TrainingBatch, TrainingRows
from datapruner.result import Result
from tests.pipeline import Prune

Row = tuple[list[int], list[int]]


def batch(rows: Sequence[Row], first: int = 0, *, weighted: bool = False) -> TrainingBatch:
    """Rows of ids and labels as a batch, called by their numbers."""
    ids = np.array([i for row, _ in rows for i in row], np.int32)
    return TrainingBatch(
        [str(first + number) for number in range(len(rows))],
        np.array([len(row) for row, _ in rows], np.int64),
        ids,
        np.array([label for _, labels in rows for label in labels], np.int32),
        ids.astype(np.float32) / 2 if weighted else None,
    )


def some_rows(count: int = 40, seed: int = 3) -> list[Row]:
    """Rows of 1 to 12 tokens, a third of which are trained on, in some rows none."""
    made: list[Row] = []
    generator = np.random.default_rng(seed)
    for _ in range(count):
        ids = generator.integers(1, 99, generator.integers(1, 13))
        labels = np.where(generator.random(len(ids)) < 1 / 3, ids, -100)
        made.append((ids.tolist(), labels.tolist()))
    return made


def stream(rows: Sequence[Row], at_once: int, **limit: Any) -> TrainingRows:
    def source() -> Iterator[TrainingBatch]:
        for start in range(0, len(rows), at_once):
            yield batch(rows[start : start + at_once], start, weighted=True)

    return TrainingRows(source, "model", {}, **limit)


def read(rows: TrainingRows) -> list[tuple[str, list[int], list[int]]]:
    """All of its rows, and their weights checked against their ids."""
    found = []
    for each in rows:
        assert each.token_weights is not None
        assert np.array_equal(each.token_weights, each.input_ids / 2)
        found += [(name, ids.tolist(), labels.tolist()) for name, ids, labels, _ in each.rows()]
    return found


@pytest.mark.parametrize("at_once", [1, 7, 40])
@pytest.mark.parametrize(("limit", "too_long"), [(None, "cut"), (5, "cut"), (5, "drop"), (1, "cut")])
def test_what_a_limit_leaves_is_what_slicing_row_by_row_leaves(
    at_once: int, limit: int | None, too_long: TooLong
) -> None:
    rows = some_rows()
    found = stream(rows, at_once, max_length=limit, too_long=too_long)
    expected, cut, dropped, untrained, lost = [], 0, 0, 0, 0
    for number, (ids, labels) in enumerate(rows):
        trained = sum(label != -100 for label in labels)
        if limit is not None and len(ids) > limit and too_long == "drop":
            dropped, lost = dropped + 1, lost + trained
            continue
        short = labels[:limit]
        left = sum(label != -100 for label in short)
        lost += trained - left
        if not left:
            untrained += 1
            continue
        cut += len(short) < len(labels)
        expected.append((str(number), ids[:limit], short))
    assert read(found) == expected
    assert len(expected) > 3
    assert asdict(found.counts) == {
        "rows": len(rows),
        "written": len(expected),
        "cut": cut,
        "too_long": dropped,
        "untrained": untrained,
        "tokens": sum(len(ids) for _, ids, _ in expected),
        "trained_tokens": sum(label != -100 for _, _, labels in expected for label in labels),
        "lost_tokens": lost,
        "longest": max(len(ids) for _, ids, _ in expected),
        "weighted": False,
    }
    assert len(rows) == len(expected) + dropped + untrained


@pytest.mark.parametrize("size", [1, 4, 9, 100])
def test_shards_together_are_the_rows_and_all_but_the_last_are_full(size: int) -> None:
    rows = some_rows()
    whole = read(stream(rows, 7, max_length=6))
    parted = stream(rows, 7, max_length=6)
    shards = [read(shard) for shard in parted.shards(size)]
    assert [row for shard in shards for row in shard] == whole
    assert {len(shard) for shard in shards[:-1]} <= {size}
    assert 1 <= len(shards[-1]) <= size
    assert parted.counts.written == len(whole)


def test_rows_of_a_run_are_its_kept_samples_with_their_masks(prune: Prune, home: Path) -> None:
    run = prune("qtuning", 0.8, token_keep=0.4)
    found = [row for each in training_rows.of_run(run.run, home) for row in each.rows()]
    kept = dict(run.masks.select("sample_id", "kept_tokens").iter_rows())
    assert [name for name, *_ in found] == list(kept)
    for name, ids, labels, _ in found:
        assert np.flatnonzero(labels != -100).tolist() == kept[name]
        assert all(labels[at] == ids[at] for at in kept[name])


def test_a_run_that_only_scored_has_no_rows_to_train_on(
    first_run: Result, corpus_file: Path, home: Path, options: dict[str, Any]
) -> None:
    import datapruner

    scored = datapruner.score(corpus_file, "ppl", home=home, **options)
    with pytest.raises(UsageError, match="scored and did not prune"):
        training_rows.of_run(scored.run, home)


def test_batches_of_a_run_have_no_more_rows_than_are_read_at_once(
    first_run: Result, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_rows, "_BATCH", 3)
    batches = list(training_rows.of_run(first_run.run, home))
    assert max(map(len, batches)) == 3
    assert sum(map(len, batches)) == first_run.report.kept
    assert all(start <= stop for each in batches for start, stop in pairwise(each.offsets.tolist()))


def test_a_runs_weights_are_those_of_its_tokens_and_0_elsewhere(weighted: Result, home: Path) -> None:
    rows = training_rows.of_run(weighted.run, home, max_length=30)
    assert rows.counts.weighted
    chances = {
        (sample_id, position): math.exp(-nll)
        for sample_id, position, nll in weighted.token_scores.select(
            "sample_id", "position", "nll"
        ).iter_rows()
    }
    seen = 0
    for batch in rows:
        assert batch.token_weights is not None
        for number, (sample_id, _, labels, _) in enumerate(batch.rows()):
            begin = int(batch.offsets[number])
            for at, label in enumerate(labels.tolist()):
                expected = chances[sample_id, at] if label != -100 else 0
                assert batch.token_weights[begin + at] == pytest.approx(expected, rel=1e-5)
                seen += label != -100
    assert seen == rows.counts.trained_tokens > 50


def test_a_run_without_weights_has_none(first_run: Result, home: Path) -> None:
    rows = training_rows.of_run(first_run.run, home)
    assert not rows.counts.weighted
    assert all(batch.token_weights is None for batch in rows)
