"""Published runs read for the API: pages of masks, samples explained, comparisons against numbers by hand."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

import datapruner
from datapruner.catalog.models import Run
from datapruner.errors import ConflictError, NotFoundError, QuotaError, StorageError, UsageError
from datapruner.result import Result
from datapruner.schemas.runs import MeanTokens
from datapruner.service import results
from datapruner.service.storage import FolderStorage
from tests.pipeline import Prune
from tests.tiny_model import COPIES, LINES, MEASURED, REJECTED


def row_of(result: Result) -> Run:
    """The catalog's row of a library run, whose home serves as the storage."""
    return Run(
        id=f"run_{result.run.run_id}",
        config=result.run.config.model_dump(mode="json"),
        key=f"runs/{result.run.run_id}",
        content_id=result.run.run_id,
        lineage=result.run.lineage,
        report=asdict(result.report),
    )


def corpus_key(result: Result) -> str:
    return f"corpora/{result.run.lineage['corpus']}.duckdb"


@pytest.fixture(scope="module")
def storage(home: Path) -> FolderStorage:
    return FolderStorage(home)


# Masks


def test_masks_come_in_pages_that_make_up_the_librarys(first_run: Result, storage: FolderStorage) -> None:
    found: list[dict[str, Any]] = []
    while page := results.masks(
        storage, row_of(first_run), limit=3, after=found[-1]["row"] if found else None
    ):
        assert len(page) <= 3
        found += [mask.model_dump() for mask in page]
    names = ("row", "sample_id", "kept_tokens", "kept_spans", "token_weight")
    assert found == first_run.masks.select(names).to_dicts()


def test_masks_have_the_weights_of_tokens(weighted: Result, storage: FolderStorage) -> None:
    found = results.masks(storage, row_of(weighted), limit=1000)
    assert [mask.token_weight for mask in found] == weighted.masks["token_weight"].to_list()
    assert all(len(mask.token_weight or ()) == len(mask.kept_tokens) for mask in found)


def test_there_is_no_mask_beyond_the_last_row(first_run: Result, storage: FolderStorage) -> None:
    for after in (len(LINES), 2**62, 10**50):
        assert results.masks(storage, row_of(first_run), limit=3, after=after) == []
    assert results.masks(storage, row_of(first_run), limit=1, after=-(10**50)) == results.masks(
        storage, row_of(first_run), limit=1
    )


def test_a_run_that_pruned_nothing_has_no_masks(
    corpus_file: Path, home: Path, options: dict[str, Any], storage: FolderStorage, first_run: Result
) -> None:
    scored = datapruner.score(corpus_file, ["ppl"], home=home, **options)
    with pytest.raises(ConflictError, match="selected nothing, so it has no masks"):
        results.masks(storage, row_of(scored), limit=1)


def test_a_run_whose_file_is_gone_says_so(first_run: Result, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="gone"):
        results.masks(FolderStorage(tmp_path), row_of(first_run), limit=1)


# Explanations


def test_every_kind_of_row_is_explained(first_run: Result, storage: FolderStorage) -> None:
    statuses = dict(first_run.scores.select("row", "status").iter_rows())
    for row in (0, 20, 22, 25, 26, 28, 29):
        found = results.explanation(storage, row_of(first_run), corpus_key(first_run), str(row), storage.root)
        assert (found.row, found.status) == (row, statuses[row])
        assert found.run == row_of(first_run).id
        if row in REJECTED:
            assert (found.sample_id, found.tokens, found.ranks) == (None, [], {})
            assert found.source["line"] == row + 1
        if row == 20:
            assert found.reason == "exact duplicate of row 4"
            assert not any(token.keep for token in found.tokens)
        if row == 28:
            assert "raise max_length" in str(found.reason)


def test_tokens_name_their_characters_and_whether_they_are_kept(
    first_run: Result, storage: FolderStorage
) -> None:
    masks = {mask["row"]: mask["kept_tokens"] for mask in first_run.masks.to_dicts()}
    for row, kept in list(masks.items())[::3]:
        found = results.explanation(storage, row_of(first_run), corpus_key(first_run), str(row), storage.root)
        assert [token.position for token in found.tokens if token.keep] == kept
        content = ["".join(piece.text for piece in turn.pieces) for turn in found.turns]
        assert all(content[token.turn][token.start : token.end] == token.text for token in found.tokens)
        assert any(token.end > token.start for token in found.tokens)


def test_ranks_count_the_measured_samples_with_higher_scores(
    first_run: Result, storage: FolderStorage
) -> None:
    unique = first_run.scores.filter(pl.col("ppl").is_not_null()).unique("sample_id", keep="first")
    for row in (0, 4, 20, 25):  # 20 is a copy of 4
        found = results.explanation(storage, row_of(first_run), corpus_key(first_run), str(row), storage.root)
        assert found.ranked == len(unique)
        assert set(found.ranks) < set(found.scores)
        assert "n_response_tokens" not in found.ranks
        for name in ("ppl", "entropy", "head_grad_norm"):
            assert found.ranks[name] == (unique[name] > found.scores[name]).sum() + 1
    best = unique.sort("ppl", descending=True)["row"][0]
    found = results.explanation(storage, row_of(first_run), corpus_key(first_run), str(best), storage.root)
    assert found.ranks["ppl"] == 1


def test_a_sample_is_found_by_its_id_or_the_start_of_it(first_run: Result, storage: FolderStorage) -> None:
    whole = first_run.scores.filter(pl.col("row") == 4)["sample_id"][0]
    by_row = results.explanation(storage, row_of(first_run), corpus_key(first_run), "4", storage.root)
    assert by_row.copies == [20, 21]
    for name in (whole, whole[:20]):
        found = results.explanation(storage, row_of(first_run), corpus_key(first_run), name, storage.root)
        assert found == by_row


@pytest.mark.parametrize("name", ["999", "f" * 64, "9" * 18, "9" * 5000, "٣", "'; --", "a\0b"])
def test_what_is_no_sample_is_not_found(first_run: Result, storage: FolderStorage, name: str) -> None:
    with pytest.raises(NotFoundError):
        results.explanation(storage, row_of(first_run), corpus_key(first_run), name, storage.root)


@pytest.mark.parametrize("name", ["row:", "row:x", "row:" + "9" * 40, "row:-1"])
def test_what_is_no_row_is_wrong(first_run: Result, storage: FolderStorage, name: str) -> None:
    with pytest.raises(UsageError, match="is not a row"):
        results.explanation(storage, row_of(first_run), corpus_key(first_run), name, storage.root)


# Comparisons

Line = tuple[int, str | None, str, float | None, float | None]


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Write a run of (row, sample_id, status, ppl, other) lines; the column of `other` is named."""

    def write(name: str, other: str, lines: Sequence[Line]) -> Run:
        folder = tmp_path / name
        folder.mkdir()
        with duckdb.connect(str(folder / "run.duckdb")) as connection:
            connection.execute(
                "CREATE TABLE sample_scores (row BIGINT, sample_id VARCHAR, n_response_tokens BIGINT, "
                f'ppl DOUBLE, "{other}" FLOAT, quadrant VARCHAR, status VARCHAR)'
            )
            for row, sample_id, status, ppl, score in lines:
                connection.execute(
                    "INSERT INTO sample_scores VALUES (?, ?, ?, ?, ?, 'Q1', ?)",
                    [
                        row,
                        sample_id,
                        None if ppl is None else "abcdef".find(sample_id or "-"),
                        ppl,
                        score,
                        status,
                    ],
                )
        return Run(id=name, key=name)

    return write


FIRST: list[Line] = [
    (0, "a", "kept", 1.0, 5.0),
    (1, "b", "kept", 2.0, 5.0),
    (2, "a", "pruned", 1.0, 5.0),  # a copy: a is kept all the same
    (3, "c", "pruned", 3.0, 5.0),
    (4, "d", "pruned", 3.0, 5.0),
    (5, "e", "error", None, None),
    (6, None, "rejected", None, None),
    (7, "only here", "kept", 9.0, 5.0),
    (8, "f", "kept", float("nan"), 5.0),
]
SECOND: list[Line] = [
    (0, "d", "kept", 4.0, 1.0),
    (1, "c", "pruned", 3.0, 2.0),
    (2, "b", "kept", 1.0, 3.0),
    (3, "a", "pruned", 2.0, 4.0),
    (4, "only there", "kept", 8.0, 5.0),
    (5, "e", "kept", 7.0, 6.0),
    (6, "f", "kept", 5.0, 7.0),
    (7, None, "rejected", None, None),
]


def test_runs_are_compared_by_the_samples_that_both_know(written: Any, tmp_path: Path) -> None:
    first, second = written("first", "nod", FIRST), written("second", "nod", SECOND)
    found = results.comparison(FolderStorage(tmp_path), first, second)
    assert (found.first, found.second, found.common_samples) == ("first", "second", 6)  # a to f
    assert (found.kept_by_both, found.kept_by_neither) == (2, 1)  # b and f; c
    assert (found.kept_by_first_only, found.kept_by_second_only) == (1, 2)  # a; d and e
    assert found.jaccard == 2 / 5
    assert found.kept_by_both_at_random == 3 * 4 / 6
    # Of 0, 1, 2, 3 and 5 tokens in the first, where e failed, and of 0 to 5 in the second.
    assert found.first_tokens == MeanTokens(kept=(0 + 1 + 5) / 3, all=11 / 5)
    assert found.second_tokens == MeanTokens(kept=(1 + 3 + 4 + 5) / 4, all=15 / 6)
    ppl, nod = found.correlations
    # a, b, c, d: 1 2 3 3 against 2 1 3 4, so ranks 1 2 3.5 3.5 against 2 1 3 4: 3.5 / sqrt(4.5 * 5)
    assert (ppl.column, ppl.samples) == ("ppl", 4)
    assert ppl.spearman == pytest.approx(3.5 / (4.5 * 5) ** 0.5, abs=1e-12)
    assert (nod.column, nod.samples, nod.spearman) == ("nod", 5, None)  # constant in the first


def test_only_scores_that_both_have_are_correlated(written: Any, tmp_path: Path) -> None:
    first, second = written("first", "mine", FIRST), written("second", "yours", SECOND)
    found = results.comparison(FolderStorage(tmp_path), first, second)
    assert [each.column for each in found.correlations] == ["ppl"]


def test_runs_without_a_common_sample_are_compared_to_nothing(written: Any, tmp_path: Path) -> None:
    first = written("first", "nod", [(0, "a", "kept", 1.0, 1.0)])
    second = written("it's another", "nod", [(0, "b", "kept", 1.0, 1.0)])
    found = results.comparison(FolderStorage(tmp_path), first, second)
    assert (found.common_samples, found.jaccard, found.correlations) == (0, None, [])
    assert (found.kept_by_both_at_random, found.first_tokens, found.second_tokens) == (0, None, None)


def test_comparisons_take_turns_and_do_not_wait_for_ever(
    written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_PATIENCE_SECONDS", 0.01)
    first, second = written("first", "nod", FIRST), written("second", "nod", SECOND)
    with results.turn(), results.turn(), pytest.raises(QuotaError, match="too many"):
        results.comparison(FolderStorage(tmp_path), first, second)
    assert results.comparison(FolderStorage(tmp_path), first, second).common_samples == 6


def test_when_many_wait_to_compare_more_are_turned_away_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_PATIENCE_SECONDS", 600.0)
    monkeypatch.setattr(results, "_queue", threading.BoundedSemaphore(2))
    with results.turn(), results.turn(), pytest.raises(QuotaError, match="too many"), results.turn():
        raise AssertionError("a third one has its turn")


def test_a_run_agrees_with_itself(first_run: Result, storage: FolderStorage) -> None:
    found = results.comparison(storage, row_of(first_run), row_of(first_run))
    accepted = len(LINES) - len(REJECTED) - len(COPIES)
    assert found.common_samples == accepted
    assert found.kept_by_both == first_run.report.kept
    assert (found.jaccard, found.kept_by_neither) == (1.0, accepted - first_run.report.kept)
    assert {each.spearman for each in found.correlations} == {1.0}
    assert {"ppl", "entropy", "head_grad_norm"} <= {each.column for each in found.correlations}


def test_a_run_that_only_scored_keeps_every_sample_that_it_measured(
    corpus_file: Path, home: Path, options: dict[str, Any], storage: FolderStorage, prune: Prune
) -> None:
    scored = datapruner.score(corpus_file, ["donod"], home=home, **options)
    pruned = prune("ppl", 0.25)
    found = results.comparison(storage, row_of(scored), row_of(pruned))
    assert found.kept_by_both == pruned.report.kept
    assert found.kept_by_both + found.kept_by_first_only == len(MEASURED)
    assert found.kept_by_second_only == 0
