"""Fields out of what teachers write."""

from __future__ import annotations

import json
import time
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from datapruner.teacher import UnreadableAnswerError, parse_structured
from tests.waiting import PATIENCE


class Rewrite(BaseModel):
    level: Literal["easy", "medium", "hard"]
    text: str
    steps: int = Field(0, ge=0)


EXPECTED = Rewrite(level="easy", text="So x = {2}.\nDone")
AS_JSON = EXPECTED.model_dump_json()
AS_TAGS = "<level>easy</level>\n<text>\nSo x = {2}.\nDone\n</text>"


@pytest.mark.parametrize(
    "text",
    [
        AS_JSON,
        f"\n {AS_JSON} \n",
        f"```json\n{AS_JSON}\n```",
        f"Here it is:\n\n```\n{AS_JSON}\n```\nI hope that f(x) = {{...}} helps.",
        f'A draft:\n```json\n{{"level": "hard", "text": "no"}}\n```\nBetter:\n```json\n{AS_JSON}\n```',
        f"Sure! {AS_JSON} Anything else?",
        AS_TAGS,
        f"I think it is simple.\n{AS_TAGS}\n",
        f"```xml\n{AS_TAGS}\n```",
        f"<think>Is it <level>hard</level>? {{'no'}}</think>\n{AS_TAGS}",
        f'<think>{{"level": "hard", "text": "no"}}</think>{AS_JSON}',
        "<level>easy</level><text>So x = {2}.\nDone</text><steps> 0 </steps>",
    ],
)
def test_the_ways_in_which_teachers_answer_are_understood(text: str) -> None:
    assert parse_structured(text, Rewrite) == EXPECTED


def test_a_code_block_inside_a_json_string_does_not_end_the_json() -> None:
    code = "Run\n```python\nprint({1})\n```\nand see"
    answer = f"```json\n{json.dumps({'level': 'hard', 'text': code})}\n```"
    assert parse_structured(answer, Rewrite).text == code


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty"),
        ("<think>only thoughts</think>  ", "empty"),
        (f"<think>thoughts without end {AS_TAGS}", "empty"),
        ("It is easy.", "<level>, <text>, <steps>"),
        ('{"level": "trivial", "text": "x"}', "level"),
        ('{"level": "easy"}', "text"),
        ('{"level": "easy", "text": "x", "steps": -1}', "steps"),
        ("<level>trivial</level><text>x</text>", "level"),
        ("<level>easy</level>", "text"),
        ("<level>easy</level><text>cut off", "<text>"),
        ("<level>easy</level></text>x<text>", "before"),
        ('{"level": "easy", "text": "cut off', "neither"),
        (r'{"level": "easy", "text": "\frac{1}{2}"}', "backslashes"),
        (r'{"level": "easy", "text": "so \\\boxed{3}"}', "backslashes"),
        (r'{"level": "easy", "text": "\right)"}', "backslashes"),
        ("[" * 100_000, "neither"),
    ],
)
def test_what_is_not_understood_is_named(text: str, told: str) -> None:
    with pytest.raises(UnreadableAnswerError, match=told) as caught:
        parse_structured(text, Rewrite)
    assert caught.value.reason == "unreadable"


@pytest.mark.parametrize("text", [r"\\frac{1}{2} \\boxed{3}", r"one\r\ntwo", r"a\tb\n"])
def test_escapes_that_are_meant_are_kept(text: str) -> None:
    found = parse_structured('{"level": "easy", "text": "' + text + '"}', Rewrite)
    assert found.text == json.loads(f'"{text}"')


@pytest.mark.parametrize(
    "text",
    [
        f"<text>the row said: <level>hard</level></text>{AS_TAGS}",
        "<level>easy</level><text>the row said </text><level>hard</level><text> so</text>",
        "<text>the row said: <level>easy</level> and so on</text>",
    ],
)
def test_tags_echoed_from_a_row_do_not_pass_for_fields(text: str) -> None:
    with pytest.raises(UnreadableAnswerError):
        parse_structured(text, Rewrite)


@pytest.mark.parametrize("piece", ["{", '{"a":', "```", "<text>", "</think>", '"\\\\', "}{"])
def test_long_nonsense_is_refused_at_once(piece: str) -> None:
    started = time.monotonic()
    with pytest.raises(UnreadableAnswerError):
        parse_structured(piece * 200_000, Rewrite)
    assert time.monotonic() - started < PATIENCE


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\b\f\r")))
@settings(max_examples=100)
def test_whatever_is_written_as_json_is_read_back(text: str) -> None:
    written = json.dumps({"level": "easy", "text": text})
    assert parse_structured(f"Here:\n```json\n{written}\n```", Rewrite).text == text


@pytest.mark.parametrize("form", ["```json\n{json}\n```", "{tags}"])
def test_a_trace_inside_a_field_is_not_taken_for_thinking_aloud(form: str) -> None:
    trace = "<think>\nSo it is 4.\n</think>\n4"
    tags, as_json = f"<level>easy</level><text>{trace}</text>", json.dumps({"level": "easy", "text": trace})
    answer = form.replace("{json}", as_json).replace("{tags}", tags)
    assert parse_structured(answer, Rewrite).text == trace
    assert parse_structured(f"<think>Which level?</think>{answer}", Rewrite).text == trace
    assert parse_structured(f"Which level?</think>{answer}", Rewrite).text == trace
