"""Where a row's reasoning is: think blocks, folded columns, patterns of the user's, and hostile ones."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapruner.errors import UsageError
from datapruner.input.shapes import RowParser, Sample
from datapruner.rewriting.reasoning import Parts, ReasoningFinder
from scorers.conversations.conversation import Conversation, Turn
from tests.chats import of_sample
from tests.waiting import PATIENCE

THINK = ReasoningFinder()


def conversation(response: str) -> Conversation:
    return Conversation((Turn("system", "Be brief."), Turn("user", "Why?"), Turn("assistant", response)))


@pytest.mark.parametrize(
    ("response", "parts"),
    [
        ("<think>\nI see.\n\nSo.\n</think>\nBlue.", ("<think>\n", "I see.\n\nSo.", "\n</think>\n", "Blue.")),
        ("I see.\n</think>\n\nBlue.", ("", "I see.", "\n</think>\n\n", "Blue.")),
        ("Well. <think>I</think>Blue.", ("Well. <think>", "I", "</think>", "Blue.")),
        ("<think>I</think>", ("<think>", "I", "</think>", "")),
        ("</think> <think>I</think>B", ("</think> <think>", "I", "</think>", "B")),
        ("<think>a</think>b<think>c</think>d", ("<think>", "a", "</think>", "b<think>c</think>d")),
    ],
)
def test_a_think_block_is_found_with_what_stands_around_it(response: str, parts: tuple[str, ...]) -> None:
    assert THINK.parts(response) == Parts(*parts)


@pytest.mark.parametrize("response", ["", "Blue.", "<think>I never end", "<think> \n </think>Blue."])
def test_a_response_without_closed_or_visible_reasoning_has_none(response: str) -> None:
    assert THINK.parts(response) is None


@given(st.text(alphabet="<think>/ \nab🎉", max_size=60))
def test_the_parts_always_make_the_response_again(response: str) -> None:
    finder = ReasoningFinder(r"(?s)a(?P<reasoning>.*)b")
    for parts in (THINK.parts(response), finder.parts(response)):
        if parts is not None:
            assert parts.opening + parts.reasoning + parts.closing + parts.answer == response
            assert parts.reasoning == parts.reasoning.strip() != ""


def test_a_reasoning_column_is_found_as_the_block_that_ingest_makes_of_it() -> None:
    row = {"question": "Why?", "thinking": "I see.\n\nSo.", "answer": "Blue."}
    sample = RowParser().parse(row)
    assert isinstance(sample, Sample)
    found = THINK.find(sample.sample_id, of_sample(sample), "blue")
    assert found is not None
    assert found.reasoning == "I see.\n\nSo."
    assert (found.answer, found.reference) == ("Blue.", "blue")
    assert found.response("So.") == "<think>\nSo.\n</think>\nBlue."


def test_reasoning_is_that_of_the_last_assistant_turn() -> None:
    earlier = (Turn("user", "Hm?"), Turn("assistant", "<think>old</think>No."), Turn("user", "Why?"))
    found = THINK.find("x", Conversation((*earlier, Turn("assistant", "<think>new</think>Yes."))))
    assert found is not None
    assert found.reasoning == "new"
    assert [message["role"] for message in found.messages] == ["user", "assistant", "user"]
    assert THINK.find("x", Conversation((*earlier, Turn("assistant", "Yes.")))) is None


def test_a_pattern_says_where_reasoning_is_in_characters_whatever_their_bytes() -> None:
    finder = ReasoningFinder(r"(?s)Gedanken:(?P<reasoning>.*?)Antwort:")
    found = finder.find("x", conversation("é🎉 Gedanken: über\n\nx Antwort: ja é"))
    assert found is not None
    assert (found.opening, found.reasoning, found.closing) == ("é🎉 Gedanken: ", "über\n\nx", " Antwort:")
    assert found.answer == " ja é"
    assert finder.find("x", conversation("nothing of the kind")) is None


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "missing \\)"),
        ("Thought: .*", "no group named reasoning"),
        ("(Thought): (?P<reasoning>.*)", "unnamed groups"),
        ("(?P<reasoning>.*)(?=Answer)", "invalid perl operator"),
        ("(?P<reasoning>" + "a" * 1000 + ")", "1,015 characters"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused_with_what_to_write(pattern: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        ReasoningFinder(pattern)
    assert caught.value.field == "pattern"
    assert caught.value.remedy is not None
    assert "group named reasoning" in caught.value.remedy


@pytest.mark.parametrize(
    "pattern", ["(?P<reasoning>(?:a+)+)$", "(?P<reasoning>(?:a|aa)+)b", "(?:.*.*.*)(?P<reasoning>=)"]
)
def test_a_hostile_pattern_takes_no_longer_than_its_text(pattern: str) -> None:
    started = time.monotonic()
    ReasoningFinder(pattern).parts("a" * 100_000 + "!")
    assert time.monotonic() - started < PATIENCE  # one that goes back and tries again has no end
