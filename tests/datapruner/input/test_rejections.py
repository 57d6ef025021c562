"""Rows that are no samples, each with one precise reason."""

from __future__ import annotations

from typing import Any

import pytest

from datapruner.input.shapes import Limits
from tests.datapruner.input.parsing import CHAT, rejection, texts

EMPTY_REPLY = {"role": "assistant", "content": ""}
NUL_REPLY = {"role": "assistant", "content": "\0"}


@pytest.mark.parametrize(
    ("row", "code", "field"),
    [
        ([1, 2], "not_an_object", None),
        (3.5, "not_an_object", None),
        (None, "not_an_object", None),
        ({"item": 1, "title": "x"}, "unknown_shape", None),
        ({}, "unknown_shape", None),
        ({"instruction": "a"}, "missing_response", "output"),
        ({"instruction": "a", "output": None}, "missing_response", "output"),
        ({"instruction": "a", "output": " \n"}, "missing_response", "output"),
        ({"instruction": "a", "output": 5}, "wrong_type", "output"),
        ({"instruction": "", "input": "", "output": "b"}, "missing_prompt", "instruction"),
        ({"instruction": 1, "output": "b"}, "wrong_type", "instruction"),
        ({"instruction": "a", "input": ["x"], "output": "b"}, "wrong_type", "input"),
        ({"instruction": "a", "output": "b", "history": [["x"]]}, "wrong_type", "history[0]"),
        ({"instruction": "a", "output": "b", "history": [["x", ""]]}, "missing_response", "history[0][1]"),
        ({"messages": []}, "no_turns", "messages"),
        ({"messages": None}, "no_turns", "messages"),
        ({"messages": "plain text"}, "wrong_type", "messages"),
        ({"messages": {"role": "user"}}, "wrong_type", "messages"),
        ({"messages": ["hi"]}, "wrong_type", "messages[0]"),
        ({"messages": CHAT[:1]}, "no_assistant_turn", "messages"),
        ({"messages": [{"role": "alien", "content": "x"}]}, "unknown_role", "messages[0].role"),
        ({"messages": [{"content": "x"}]}, "unknown_role", "messages[0].role"),
        ({"conversations": [{"from": "robot", "value": "x"}]}, "unknown_role", "conversations[0].from"),
        (
            {"messages": [CHAT[0], EMPTY_REPLY]},
            "missing_response",
            "messages[1].content",
        ),
        ({"messages": [{"role": "user", "content": 5}, CHAT[1]]}, "wrong_type", "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, CHAT[1]]},
            "unsupported_content",
            "messages[0].content[0]",
        ),
        ({"messages": CHAT, "tools": "not json"}, "bad_tools", "tools"),
        ({"messages": CHAT, "tools": {"name": "f"}}, "bad_tools", "tools"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"arguments": {}}]}]},
            "bad_tools",
            "messages[0].tool_calls[0]",
        ),
        ({"instruction": "a", "output": "b\0c"}, "nul_character", "output"),
        (
            {"messages": [CHAT[0], NUL_REPLY]},
            "nul_character",
            "messages[1].content",
        ),
        ({"instruction": "a\ud800", "output": "b"}, "invalid_unicode", "instruction"),
        ({"instruction": "a", "output": "b", "system": 7}, "wrong_type", "system"),
    ],
)
def test_a_bad_row_is_rejected_with_its_code_and_field(row: Any, code: str, field: str | None) -> None:
    found = rejection(row)
    assert (found.code, found.field) == (code, field), found
    assert found.reason
    assert found.remedy


def test_an_unknown_shape_names_the_columns_it_saw_and_those_it_wants() -> None:
    reason = rejection({"item": 1, "title": "x"}).reason
    assert "'item', 'title'" in reason
    assert "instruction+output" in reason


def test_a_backslash_before_u0000_is_not_a_nul() -> None:
    assert texts({"instruction": "a", "output": "write \\u0000"})[1][1] == "write \\u0000"


def test_the_limits_hold_for_turns_and_for_bytes() -> None:
    chat = CHAT * 5000
    found = rejection({"messages": chat})
    assert (found.code, found.reason) == ("too_many_turns", "10,000 turns, the limit is 1,000")
    found = rejection({"instruction": "a", "output": "b" * 100}, limits=Limits(max_row_bytes=100))
    assert found.code == "row_too_large"
    history = [["x", "y"]] * 3
    found = rejection({"instruction": "a", "output": "b", "history": history}, limits=Limits(max_turns=7))
    assert found.code == "too_many_turns"
