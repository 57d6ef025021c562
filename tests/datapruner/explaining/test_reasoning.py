"""A response that was rewritten is shown beside the original, as what is in both and what is in one."""

from __future__ import annotations

from typing import Any

import pytest

from datapruner.explaining.explanation import Change
from datapruner.explaining.reasoning import changes
from scorers.conversations.conversation import Conversation, Turn

BEFORE = "<think>\nLet me see. Two rivers. So blue.\n</think>\nBlue."


def rewritten(before: str, after: str, *removed: tuple[int, int]) -> list[Change]:
    record: dict[str, Any] = {
        "status": "rewritten",
        "reasoning_turn": 1,
        "reasoning_start": 8,
        "removed": [{"start": start, "end": end} for start, end in removed],
        "text": after,
    }
    found = list(changes(Conversation((Turn("user", "Why?"), Turn("assistant", before))), record))
    assert "".join(each.text for each in found if each.kind != "added") == before
    assert "".join(each.text for each in found if each.kind != "removed") == after
    return found


def test_what_was_cut_out_is_removed_and_all_else_the_same() -> None:
    assert rewritten(BEFORE, BEFORE.replace("Two rivers. ", ""), (12, 24)) == [
        Change("<think>\nLet me see. ", "same"),
        Change("Two rivers. ", "removed"),
        Change("So blue.\n</think>\nBlue.", "same"),
    ]


def test_new_words_are_compared_with_the_old_ones() -> None:
    found = rewritten(BEFORE, "<think>\nRivers mirror it. So blue.\n</think>\nBlue.")
    assert [each.kind for each in found] == ["same", "removed", "added", "same"]
    assert found[2].text == "Rivers mirror it. "


def test_what_was_cut_out_is_compared_too_where_the_rest_is_not_left_as_it_was() -> None:
    found = rewritten(BEFORE, BEFORE.replace("Two rivers. ", "").replace("Blue.", "Blue!"), (12, 24))
    assert Change("Blue!", "added") in found


@pytest.mark.parametrize("word", ["a ", "b{} "])
def test_texts_too_long_to_compare_are_removed_and_added_whole(word: str) -> None:
    long = "".join(word.format(n) for n in range(10_000))
    assert [each.kind for each in rewritten(long, "a")] == ["removed", "added"]


def test_a_response_that_stayed_has_no_changes() -> None:
    assert not list(changes(Conversation((Turn("assistant", "Hi"),)), {"status": "original"}))
