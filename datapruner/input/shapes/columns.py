"""Which columns of a row play which part: by their names, or by the caller's mapping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Literal, get_args

from datapruner.errors import UsageError
from datapruner.input.shapes.rejections import reject

Shape = Literal["alpaca", "sharegpt", "messages", "prompt-completion", "question-answer", "mapped"]
SHAPES: tuple[Shape, ...] = get_args(Shape)

MAPPING_TARGETS = ("messages", "prompt", "input", "response", "system", "history", "reasoning", "tools")


_MESSAGES = ("messages", "conversations")
_SYSTEM = ("system", "system_prompt")
_REASONING = ("reasoning", "reasoning_content", "thinking", "cot", "rationale")
_QUESTIONS = ("question", "problem", "query")
_ANSWERS = ("response", "solution", "answer")
_COMPLETIONS = ("completion", "response")
_OTHERS = ("instruction", "input", "output", "history", "prompt", "tools")

#: Every column that some shape may read without a mapping.
KNOWN_COLUMNS = frozenset(
    (*_MESSAGES, *_SYSTEM, *_REASONING, *_QUESTIONS, *_ANSWERS, *_COMPLETIONS, *_OTHERS)
)

EXPECTED = (
    "messages, conversations, instruction+output, prompt+completion (or response), "
    "or question (problem, query)+answer (solution, response)"
)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a row play which part."""

    shape: Shape
    messages: str | None = None
    prompt: str | None = None
    input: str | None = None
    response: str | None = None
    system: str | None = None
    history: str | None = None
    reasoning: str | None = None
    tools: str | None = None

    @property
    def used(self) -> tuple[str, ...]:
        """Names of the columns read, in the order of the fields above."""
        names = (getattr(self, f.name) for f in fields(self) if f.name != "shape")
        return tuple(name for name in names if name is not None)


def detect_columns(present: tuple[str, ...], names: tuple[str, ...]) -> Columns:
    """The first shape whose columns are there and not null (`present`); failing that, the first whose
    columns are there, null or not (`names`); failing that, the first that lacks only its response.

    Raises RejectedRowError when no shape comes near.
    """
    for complete in (True, False):
        for candidates in (present, names):
            for columns in _candidates(candidates, names):
                responds = columns.response in candidates or not complete
                if columns.messages is not None or (columns.prompt is not None and responds):
                    return columns
    listed = ", ".join(repr(name) for name in names[:20]) or "none"
    return reject(
        "unknown_shape",
        None,
        f"no known shape; the row's columns are {listed}, the shapes need {EXPECTED}",
        "name the columns with a mapping such as prompt=COLUMN,response=COLUMN",
    )


def _candidates(candidates: tuple[str, ...], names: tuple[str, ...]) -> Iterator[Columns]:
    """Every shape, its key column looked for among `candidates`, the others preferably there."""

    def key(*options: str) -> str | None:
        return next((name for name in options if name in candidates), None)

    def other(*options: str) -> str | None:
        return key(*options) or next((name for name in options if name in names), None)

    system, tools, reasoning = other(*_SYSTEM), other("tools"), other(*_REASONING)
    yield Columns("messages", messages=key(*_MESSAGES), system=system, tools=tools)
    yield Columns(
        "alpaca",
        prompt=key("instruction"),
        input=other("input"),
        response=other("output") or "output",
        system=system,
        history=other("history"),
        reasoning=reasoning,
        tools=tools,
    )
    pairs: tuple[tuple[Shape, tuple[str, ...], tuple[str, ...]], ...] = (
        ("prompt-completion", ("prompt",), _COMPLETIONS),
        ("question-answer", _QUESTIONS, _ANSWERS),
    )
    for shape, prompts, responses in pairs:
        yield Columns(
            shape,
            prompt=key(*prompts),
            response=other(*responses) or responses[0],
            system=system,
            reasoning=reasoning,
            tools=tools,
        )


def mapped_columns(mapping: Mapping[str, str]) -> Columns:
    """The columns that a mapping of part to column name chooses. Raises UsageError."""
    valid = ", ".join(MAPPING_TARGETS)
    for target, column in mapping.items():
        if target not in MAPPING_TARGETS:
            raise UsageError(
                f"unknown part '{target}' in the column mapping",
                remedy=f"the parts are {valid}",
                field="mapping",
            )
        if not isinstance(column, str) or not column:
            raise UsageError(f"the column mapping gives no column name for '{target}'", field="mapping")
    named = set(mapping)
    if "messages" in named:
        if clash := named & {"prompt", "input", "response", "history", "reasoning"}:
            raise UsageError(
                f"the column mapping names 'messages' and also {', '.join(sorted(clash))}",
                remedy="messages hold the whole conversation; drop one or the other",
                field="mapping",
            )
    elif not {"prompt", "response"} <= named:
        raise UsageError(
            "the column mapping must name either 'messages' or both 'prompt' and 'response'",
            remedy=f"the parts are {valid}",
            field="mapping",
        )
    return Columns("mapped", **mapping)
