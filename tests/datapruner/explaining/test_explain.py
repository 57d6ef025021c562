"""One sample explained: from a run, from a subset alone, and what cannot be explained says why."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.parquet as pq
import pytest

import datapruner
from datapruner.commands.explain import text_of
from datapruner.errors import InputError, NotFoundError, UsageError
from datapruner.explaining import explain as module
from datapruner.explaining.explain import explain
from datapruner.explaining.explanation import Explanation, Piece
from datapruner.result import Result
from datapruner.runs import published
from tests.command_line import PrunedHome, Said


def content(found: Explanation, turn: int) -> str:
    return "".join(piece.text for piece in found.turns[turn].pieces)


def test_without_colour_pruned_text_stands_in_brackets_and_with_colour_it_is_struck_through() -> None:
    pieces = (Piece("a", "kept"), Piece("b\x1b", "pruned"), Piece("c", "untrained"), Piece("", "pruned"))
    assert text_of(pieces, colour=False).plain == "a[-b␛-]c[-⏎-]"
    coloured = text_of(pieces, colour=True)
    assert coloured.plain == "ab␛c⏎"
    assert [str(span.style) for span in coloured.spans] == ["green", "red strike", "dim", "red strike"]


# Targets, without a model


def test_a_home_without_runs_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="datapruner prune"):
        explain("latest", "row:0", tmp_path)


def test_a_file_that_is_no_result_is_named(tmp_path: Path) -> None:
    path = tmp_path / "subset.parquet"
    path.write_bytes(b"not a parquet file")
    with pytest.raises(InputError, match=r"subset\.parquet: cannot be read as Parquet"):
        explain(str(path), "row:0", tmp_path)
    other = tmp_path / "rows.csv"
    other.write_text("a,b\n")
    with pytest.raises(InputError, match=r"rows\.csv: does not say which run it came from"):
        explain(str(other), "row:0", tmp_path)


# From a run


@pytest.mark.slow
def test_subset_run_file_run_id_and_latest_explain_the_same(pruned_home: PrunedHome) -> None:
    beside = pruned_home.subset.with_suffix(".run.json")
    first = explain(str(pruned_home.subset), "row:0", pruned_home.home)
    for target in (str(beside), pruned_home.run, pruned_home.run[:8]):
        assert explain(target, "row:0", pruned_home.home) == first
    assert first.run == pruned_home.run
    assert first.prompt is not None
    assert "You are a helpful AI assistant named SmolLM" in first.prompt  # which the template adds
    assert explain("latest", "row:0", pruned_home.home).sample_id == first.sample_id


@pytest.mark.slow
def test_the_pieces_of_a_sample_are_its_text_and_its_tokens_its_masks(pruned_home: PrunedHome) -> None:
    table = pq.read_table(pruned_home.subset)
    for row, keep in zip(table["row"].to_pylist(), table["token_keep"].to_pylist(), strict=True):
        found = explain(str(pruned_home.subset), f"row:{row}", pruned_home.home)
        assert found.status == "kept"
        assert [token.keep for token in found.tokens] == [flag for flag in keep if flag is not None]
        assert found.scores["n_kept_tokens"] == keep.count(True)
        for turn in found.turns:
            states = {piece.state for piece in turn.pieces}
            assert states == {"untrained"} if turn.role != "assistant" else "untrained" not in states


@pytest.mark.slow
def test_text_with_many_byte_characters_is_cut_where_its_tokens_are(pruned_home: PrunedHome) -> None:
    found = explain(pruned_home.run, "row:1", pruned_home.home)
    assert content(found, 1) == "One, \x1b[31mtwo 你好 🎉 [bold]three."
    assert (found.tokens[0].text, found.tokens[-1].text) == ("One", "")
    assert {"你", "好", " 🎉"} & {token.text for token in found.tokens}
    assert found.tokens[-1].is_end
    assert found.hardest(3) == sorted(found.tokens, key=lambda token: -token.nll)[:3]


@pytest.mark.slow
def test_tokens_name_their_characters_and_scores_their_ranks(pruned_home: PrunedHome) -> None:
    found = {row: explain(pruned_home.run, f"row:{row}", pruned_home.home) for row in (0, 1, 3, 4, 6)}
    for each in found.values():
        for token in each.tokens:
            assert content(each, token.turn)[token.start : token.end] == token.text
    assert (found[4].ranks, found[4].ranked) == ({}, 0)  # rejected, so never measured
    assert found[3].ranks == found[0].ranks  # a copy
    measured = [each for row, each in found.items() if row in (0, 1, 6)]
    for each in measured:
        el2n = [token.el2n for token in each.tokens if token.el2n is not None]
        assert len(el2n) == len(each.tokens)
        assert fmean(el2n) == pytest.approx(each.scores["el2n"], rel=1e-6)
    by_score = sorted(measured, key=lambda each: -each.scores["ppl"])
    assert by_score == sorted(measured, key=lambda each: each.ranks["ppl"])
    assert all(1 <= rank <= each.ranked for each in measured for rank in each.ranks.values())


@pytest.mark.slow
def test_a_row_number_that_no_file_can_hold_is_none(pruned_home: PrunedHome) -> None:
    with pytest.raises(UsageError, match="is not a row"):
        explain(pruned_home.run, "row:" + "9" * 30, pruned_home.home)
    with pytest.raises(NotFoundError, match="there is no row 99"):
        explain(pruned_home.run, "row:99", pruned_home.home)


@pytest.mark.slow
def test_every_assistant_turn_shows_its_own_tokens(pruned_home: PrunedHome) -> None:
    found = explain(pruned_home.run, "row:6", pruned_home.home)
    assert [turn.role for turn in found.turns] == ["user", "assistant", "user", "assistant"]
    assert [content(found, turn) for turn in range(4)] == ["Hi", "Hello!", "Bye", "See you later."]
    assert {token.turn for token in found.tokens} == {1, 3}


@pytest.mark.slow
def test_a_copy_is_pruned_whole_and_the_first_names_its_copies(pruned_home: PrunedHome) -> None:
    copy = explain(pruned_home.run, "row:3", pruned_home.home)
    assert (copy.status, copy.reason) == ("pruned", "exact duplicate of row 0")
    assert {token.keep for token in copy.tokens} == {False}
    assert copy.sample_id is not None
    first = explain(pruned_home.run, copy.sample_id[:12], pruned_home.home)
    assert (first.row, first.copies) == (0, (3,))
    assert copy.copies == (0,)


@pytest.mark.slow
def test_a_rejected_row_shows_where_it_stood_and_why(pruned_home: PrunedHome) -> None:
    found = explain(pruned_home.run, "row:4", pruned_home.home)
    assert (found.status, found.sample_id, found.turns) == ("rejected", None, ())
    assert "output" in str(found.reason)
    assert found.source["line"] == 5
    assert "Say hi." in found.source["excerpt"]


@pytest.mark.slow
def test_a_sample_that_could_not_be_measured_shows_its_text_and_the_reason(pruned_home: PrunedHome) -> None:
    found = explain(pruned_home.run, "row:5", pruned_home.home)
    assert found.status == "error"
    assert "max_length 64" in str(found.reason)
    assert content(found, 0).startswith("Repeat: very")
    assert found.tokens == ()
    assert {piece.state for turn in found.turns for piece in turn.pieces} == {"untrained"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sample", "said"),
    [
        ("row:99", "there is no row 99"),
        ("row:x", "is not a row"),
        ("row:-1", "is not a row"),
        ("zzz", "no sample has an id that starts with 'zzz'"),
        ("", "no sample"),
        ("%", "no sample"),
    ],
)
def test_a_sample_that_is_not_there_is_a_usage_error(pruned_home: PrunedHome, sample: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        explain(pruned_home.run, sample, pruned_home.home)


@pytest.mark.slow
def test_a_start_that_several_ids_share_asks_for_more(
    pruned_home: PrunedHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [{"sample_id": "aa1", "row": 0}, {"sample_id": "aa2", "row": 1}]
    monkeypatch.setattr(module, "_records", lambda *_: records)
    with pytest.raises(UsageError, match="2 samples have ids that start with 'aa'"):
        explain(pruned_home.run, "aa", pruned_home.home)


# When files are gone


@pytest.fixture
def forgotten(pruned_home: PrunedHome, tmp_path: Path) -> Path:
    """A home with the model, but without the run."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "models").symlink_to((pruned_home.home / "models").resolve())
    return tmp_path / "home"


@pytest.mark.slow
def test_a_subset_alone_still_shows_text_masks_and_reason(pruned_home: PrunedHome, forgotten: Path) -> None:
    table = pq.read_table(pruned_home.subset)
    row, sample_id = table["row"][0].as_py(), table["sample_id"][0].as_py()
    alone = explain(str(pruned_home.subset), sample_id[:12], forgotten)
    whole = explain(pruned_home.run, f"row:{row}", pruned_home.home)
    assert (alone.row, alone.reason, alone.quadrant) == (row, whole.reason, whole.quadrant)
    assert alone.scores == whole.scores
    assert "<|im_start|>assistant" in content(alone, 0)
    kept = "".join(piece.text for piece in alone.turns[0].pieces if piece.state == "kept")
    assert kept.endswith("<|im_end|>")
    assert "not here" in alone.notes[0]


@pytest.mark.slow
def test_a_subset_alone_without_its_tokenizer_says_so(pruned_home: PrunedHome, tmp_path: Path) -> None:
    row = pq.read_table(pruned_home.subset)["row"][0].as_py()
    found = explain(str(pruned_home.subset), f"row:{row}", tmp_path)
    assert found.turns == ()
    assert "models pull" in found.notes[1]
    assert found.scores["ppl"] > 1


@pytest.mark.slow
def test_a_pruned_sample_is_not_in_the_subset_alone(pruned_home: PrunedHome, forgotten: Path) -> None:
    with pytest.raises(UsageError, match=r"no row 3 in .*subset\.parquet, which has kept samples only"):
        explain(str(pruned_home.subset), "row:3", forgotten)


@pytest.mark.slow
def test_a_run_file_alone_says_how_to_bring_the_run_back(pruned_home: PrunedHome, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="datapruner replay"):
        explain(str(pruned_home.subset.with_suffix(".run.json")), "row:0", tmp_path)


@pytest.mark.slow
def test_rows_for_a_trainer_alone_say_how_to_bring_the_run_back(
    pruned_home: PrunedHome, tmp_path: Path
) -> None:
    run = Result(published.latest(pruned_home.home), pruned_home.home)
    run.export_for("trl", tmp_path / "trl.parquet")
    with pytest.raises(InputError, match=r"it has no scores.*datapruner replay .*trl\.run\.json"):
        explain(str(tmp_path / "trl.parquet"), "row:0", tmp_path)


@pytest.mark.slow
def test_a_run_whose_corpus_is_gone_still_shows_scores(pruned_home: PrunedHome, tmp_path: Path) -> None:
    shutil.copytree(pruned_home.home / "runs", tmp_path / "runs")
    found = explain(pruned_home.run, "row:0", tmp_path)
    assert found.turns == ()
    assert "the text cannot be shown" in found.notes[0]
    assert found.scores["ppl"] > 1


# On the terminal


@pytest.mark.slow
@pytest.mark.parametrize("row", range(8))
def test_every_kind_of_row_is_shown_within_the_terminal(
    pruned_home: PrunedHome, command: Callable[..., Said], row: int
) -> None:
    said = command("explain", pruned_home.subset, f"row:{row}", home=pruned_home.home, terminal=True)
    assert (said.code, said.err) == (0, "")
    assert max(map(len, said.out.splitlines())) <= 80
    assert "\x1b" not in said.out
    assert explain(pruned_home.run, f"row:{row}", pruned_home.home).status in said.out


@pytest.mark.slow
def test_a_pruned_sample_has_its_tokens_in_brackets(
    pruned_home: PrunedHome, command: Callable[..., Said]
) -> None:
    said = command("explain", pruned_home.run, "row:3", home=pruned_home.home)
    assert "[-Blue is one of them.-][-⏎-]" in said.out


@pytest.mark.slow
def test_json_has_the_same_pieces_tokens_and_scores(
    pruned_home: PrunedHome, command: Callable[..., Said]
) -> None:
    found = explain(pruned_home.run, "row:0", pruned_home.home)
    document = command("explain", pruned_home.run, "row:0", "--json", home=pruned_home.home).json
    assert document["sample_id"] == found.sample_id
    assert document["turns"][1]["pieces"] == [
        {"text": piece.text, "state": piece.state} for piece in found.turns[1].pieces
    ]
    assert [token["nll"] for token in document["tokens"]] == [token.nll for token in found.tokens]


# What the row itself keeps from training


@pytest.mark.slow
def test_a_turn_of_weight_zero_is_not_trained_on_and_says_why(home: Path, options: dict[str, Any]) -> None:
    chat = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "BAD", "weight": 0},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "GOOD", "weight": 1},
    ]
    result = datapruner.prune([{"messages": chat}], "random", 1.0, home=home, **options)
    found = explain(result.run.run_id, "row:0", home)
    assert [turn.untrained for turn in found.turns] == [None, "weight 0", None, None]
    assert {piece.state for piece in found.turns[1].pieces} == {"untrained"}
    assert {piece.state for piece in found.turns[3].pieces} <= {"kept", "scored"}
    [row] = result.subset
    assert row["messages"] == [{"weight": None, **message} for message in chat]
    trained = [label for label in row["labels"] if label != -100]
    assert 0 < len(trained) < sum(kept is None for kept in row["token_keep"])


def test_a_token_is_shown_with_its_weight(weighted: Result, first_run: Result, home: Path) -> None:
    row = weighted.masks["row"][0]
    found = explain(weighted.run.run_id, f"row:{row}", home)
    assert [token.weight for token in found.tokens] == weighted.masks["token_weight"][0].to_list()
    assert all(token.weight is None for token in explain(first_run.run.run_id, f"row:{row}", home).tokens)
