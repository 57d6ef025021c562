"""Reading fields out of a teacher's answer: JSON, or tagged text where it is none.

Notable choices:
- what a model thinks aloud before its answer is no part of it; `<think>` further down is, for traces are what
  teachers are asked to write;
- a tag must be there once, outside other fields: text of a row that is echoed in the answer cannot pass for
  a field, it makes the answer unreadable;
- LaTeX that is not escaped would go unnoticed ("\\frac" is a form feed and "rac" in JSON): JSON with such
  escapes is refused. "\\times" reads as a tab and cannot be told from one: prompts for mathematics had better
  ask for tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from datapruner.teacher.errors import UnreadableAnswerError
from datapruner.validation import place, wording

T = TypeVar("T", bound=BaseModel)

_FENCE = "```"
_THINK, _END_THINK = "<think>", "</think>"
# Escapes that nobody means, with which \boxed, \frac and \right begin.
_UNESCAPED = re.compile(r"(?<!\\)(?:\\\\)*\\(?:[bf]|r(?!\\n))")


def parse_structured(text: str, model: type[T]) -> T:
    """The fields of `model` from an answer's text. Raises UnreadableAnswerError, which names what is wrong.

    Tried in this order: the whole text as JSON, a fenced block, what is between the outermost braces, and
    `<field>...</field>` for each field.
    """
    answer = _without_thoughts(text.strip())
    if not answer:
        raise UnreadableAnswerError("the answer is empty")
    problem: str | None = None
    for candidate in _json_candidates(answer):
        try:
            found = model.model_validate_json(candidate)
        except ValidationError as error:
            if error.errors()[0]["type"] != "json_invalid":
                problem = problem or _wrong_field(error)
            continue
        if _UNESCAPED.search(candidate):
            problem = problem or "backslashes in its JSON are not escaped"
            continue
        return found
    return _from_tags(answer, model, problem)


def only_field(text: str, tag: str) -> str:
    """What stands between `<tag>` and `</tag>` in an answer that is this and nothing else, but thoughts
    before.

    Stricter than `parse_structured`: text of a row that an answer echoes cannot pass for its field even where
    the answer has none of its own. Raises UnreadableAnswerError.
    """
    opening, closing = f"<{tag}>", f"</{tag}>"
    answer = _without_thoughts(text.strip())
    inner = answer.removeprefix(opening).removesuffix(closing)
    if len(answer) - len(inner) != len(opening) + len(closing) or "<" in inner:
        raise UnreadableAnswerError(f"the answer is not {opening}...{closing} alone")
    return inner.strip()


def _without_thoughts(text: str) -> str:
    opening, closing = text.find(_THINK), text.find(_END_THINK)
    if opening == 0 and closing < 0:
        return ""
    # Some templates open the thought themselves, so that only its end is in the text.
    if closing >= 0 and (opening <= 0 or closing < opening):
        return text[closing + len(_END_THINK) :].strip()
    return text


def _json_candidates(answer: str) -> Iterator[str]:
    if answer.startswith("{"):
        yield answer
    # The last fenced block first: a draft may precede it.
    for block in reversed(answer.split(_FENCE)[1::2]):
        yield block.removeprefix("json").removeprefix("JSON").strip()
    start, end = answer.find("{"), answer.rfind("}")
    if 0 <= start < end:
        yield answer[start : end + 1]


def _from_tags(answer: str, model: type[T], problem: str | None) -> T:
    values: dict[str, str] = {}
    spans: list[tuple[int, int, str]] = []
    for name, field in model.model_fields.items():
        tag = field.alias or name
        opening, closing = f"<{tag}>", f"</{tag}>"
        if opening not in answer and closing not in answer:
            continue
        if answer.count(opening) != 1 or answer.count(closing) != 1:
            raise UnreadableAnswerError(f"{opening} is not there exactly once, with its {closing}")
        start, end = answer.index(opening), answer.index(closing)
        if end < start:
            raise UnreadableAnswerError(f"{closing} comes before {opening}")
        spans.append((start, end, tag))
        values[tag] = answer[start + len(opening) : end].strip()
    if not values:
        raise UnreadableAnswerError(
            problem or f"the answer is neither JSON nor text with the tags {_tags(model)}"
        )
    spans.sort()
    for (_, end, outer), (start, _, inner) in pairwise(spans):
        if start < end:
            raise UnreadableAnswerError(f"<{inner}> is inside <{outer}>")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UnreadableAnswerError(_wrong_field(error)) from None  # its text holds the answer's


def _tags(model: type[BaseModel]) -> str:
    return ", ".join(f"<{field.alias or name}>" for name, field in model.model_fields.items())


def _wrong_field(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    return f"field {place(first) or '(all)'}: {wording(first)}"
