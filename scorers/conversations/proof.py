"""Whether a chat template writes every piece of a conversation, and the first form in which it does.

A template that has no words for something mostly says nothing: tools, calls, a second system turn, reasoning
vanish, and what is trained on is another conversation. So each form is proved once for a conversation's shape
(its roles, and which of them have calls, reasoning, tools ...), with a mark of our own in the place of each
text, and every row is looked through for its own texts besides.

Notable choices:
- a mark is a word that no template has, so that it cannot be found where it was not put;
- a piece counts as written when it stands there verbatim, escaped as in JSON, or with other whitespace;
- reasoning of answers that are not trained on may be left out, as reasoning models' templates do on purpose;
- arguments as text must not be escaped, and those as objects not be written as Python writes a dictionary;
  null content must not be written as "None".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

from scorers.conversations.conversation import Conversation, Turn, answer_of, reasoning_of
from scorers.conversations.forms import (
    REASONING_KEYS,
    Form,
    Given,
    RefusedError,
    as_object,
    forms,
    give,
    read_calls,
    read_tools,
)

# Renderings tried for one shape before the form that asks least.
_MOST = 200
_MOST_SHAPES = 20_000

_ASPECTS: Mapping[str, tuple[str, ...]] = {
    "tools": ("tools", "system"),
    "calls": ("arguments", "ids", "content"),
    "reasoning": ("reasoning",),
    "system": ("system",),
    "tool": ("results",),
}


class Piece(NamedTuple):
    """A text that has to be in the rendered one. `kind` is a role, or "reasoning", "calls" or "tools"."""

    kind: str
    what: str
    text: str


class Text:
    """A rendered text to look for pieces in."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def _dense(self) -> str:
        return "".join(self.text.split())

    def has(self, piece: str) -> bool:
        kept = piece.strip()
        if kept in self.text:
            return True
        escaped = (json.dumps(kept, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))
        return any(each in self.text for each in escaped) or "".join(kept.split()) in self._dense

    def missing(self, pieces: Collection[Piece]) -> list[Piece]:
        return [piece for piece in pieces if not self.has(piece.text)]


def pieces(conversation: Conversation, trained: Collection[int]) -> list[Piece]:
    """All that has to be in the text of a conversation whose turns `trained` are trained on."""
    found: list[Piece] = []
    for at, turn in enumerate(conversation.turns):
        name = f"turn {at} ({turn.role})"
        if turn.role != "assistant":
            found.append(Piece(turn.role, name, turn.content))
            continue
        found.append(Piece("assistant", name, answer_of(turn.content)))
        if at in trained and (reasoning := reasoning_of(turn.content)) is not None:
            found.append(Piece("reasoning", f"the reasoning of turn {at}", reasoning))
        if turn.tool_calls is not None:
            found += _of_calls(turn, at)
    if conversation.tools is not None:
        for number, tool in enumerate(read_tools(conversation)):
            found += _of_tool(tool, number)
    return [piece for piece in found if piece.text and not piece.text.isspace()]


def _of_calls(turn: Turn, at: int) -> Iterator[Piece]:
    for number, call in enumerate(read_calls(turn)):
        what = f"tool_calls[{number}] of turn {at}"
        yield Piece("calls", what, str(call["name"]))
        arguments = as_object(call["arguments"])
        if isinstance(arguments, Mapping):
            yield from (Piece("calls", what, key) for key in arguments)
            yield from (Piece("calls", what, value) for value in arguments.values() if isinstance(value, str))
        elif isinstance(arguments, str):
            yield Piece("calls", what, arguments)


def _of_tool(tool: Mapping[str, Any], number: int) -> Iterator[Piece]:
    function = tool.get("function", tool)
    what = f"tools[{number}]"
    if not isinstance(function, Mapping):
        raise RefusedError(f"the function of {what} is not an object; write name, description and parameters")
    yield from (
        Piece("tools", what, function[key])
        for key in ("name", "description")
        if isinstance(function.get(key), str)
    )
    yield from (Piece("tools", what, key) for key in _properties(function))
    known = ("name", "description", "parameters", "strict", "type", "return", "returns")
    yield from (Piece("tools", what, key) for key in function if key not in known)


def _properties(function: Mapping[str, Any]) -> list[str]:
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    return list(properties) if isinstance(properties, Mapping) else []


def marked(conversation: Conversation) -> Conversation:
    """The conversation's shape: a mark in the place of each text. Raises RefusedError."""
    return _Marker().mark(conversation)


class _Marker:
    def __init__(self) -> None:
        self._count = 0
        self._ids: dict[str, str] = {}

    def mark(self, conversation: Conversation) -> Conversation:
        turns = tuple(map(self._turn, conversation.turns))
        if conversation.tools is None:
            return Conversation(turns)
        return Conversation(turns, json.dumps([self._tool(tool) for tool in read_tools(conversation)]))

    def _next(self) -> str:
        self._count += 1
        return f"zq{self._count}qz"

    def _turn(self, turn: Turn) -> Turn:
        content = turn.content if not turn.content or turn.content.isspace() else self._next()
        if turn.role == "assistant" and reasoning_of(turn.content) is not None:
            content = f"<think>\n{content}\n</think>\n\n{self._next() if answer_of(turn.content) else ''}"
        calls = (
            None if turn.tool_calls is None else json.dumps([self._call(call) for call in read_calls(turn)])
        )
        named = None if turn.name is None else "zqname"
        asked = None if turn.tool_call_id is None else self._id(turn.tool_call_id)
        return Turn(turn.role, content, calls, asked, named, turn.untrained and "zq", turn.null)

    def _id(self, of_row: str) -> str:
        """An id that looks like the row's as far as templates look."""
        short = len(of_row) == 9 and of_row.isalnum()
        return self._ids.setdefault(
            of_row, f"zq{len(self._ids):07}" if short else f"zq_call_{len(self._ids)}"
        )

    def _call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        arguments = as_object(call["arguments"])
        said: Any = {self._next(): self._next()} if arguments else {}
        if isinstance(call["arguments"], str):
            said = json.dumps(said) if isinstance(arguments, Mapping) else f"{self._next()} {{"
        found = {"name": self._next(), "arguments": said}
        return {"id": self._id(call["id"]), **found} if "id" in call else found

    def _tool(self, tool: Mapping[str, Any]) -> dict[str, Any]:
        function = tool.get("function", tool)
        made: dict[str, Any] = {"name": self._next()}
        if not isinstance(function, Mapping) or function.get("description"):
            made["description"] = self._next()
        if isinstance(function, Mapping) and _properties(function):
            key = self._next()
            made["parameters"] = {
                "type": "object",
                "properties": {key: {"type": "string"}},
                "required": [key],
            }
        elif isinstance(function, Mapping) and "parameters" in function:
            made["parameters"] = {"type": "object", "properties": {}}
        return {"type": "function", "function": made} if "function" in tool else made


class Prover:
    """Finds the forms in which a template, which `render` runs on all of a conversation, writes it whole.

    `template` is its text. `render` raises RefusedError.
    """

    def __init__(self, render: Callable[[Given], str], template: str) -> None:
        self._render, self._template = render, template
        self._searches: dict[tuple[Conversation, frozenset[int]], _Search] = {}

    def forms(self, conversation: Conversation, trained: Collection[int]) -> Iterator[Form]:
        """The proven forms, best first. Raises RefusedError in the place of the first when there is none."""
        shape = marked(conversation)
        key = (shape, frozenset(trained))
        search = self._searches.get(key)
        if search is None:
            if len(self._searches) >= _MOST_SHAPES:
                self._searches.clear()
            search = self._searches[key] = _Search(self._try(*key))
        return search.forms()

    def _try(self, shape: Conversation, trained: frozenset[int]) -> Iterator[Form | RefusedError]:
        """The forms that hold, and the refusals of those that do not, in their order."""
        wanted = pieces(shape, trained)
        failed: set[tuple[str, ...]] = set()
        candidates = forms(shape, self._reasoning_keys)
        tried = 0
        for form in candidates:
            ways = {
                kind: (kind, *(str(getattr(form, name)) for name in names))
                for kind, names in _ASPECTS.items()
            }
            if form is not candidates[-1] and (tried >= _MOST or not failed.isdisjoint(ways.values())):
                continue
            tried += 1
            try:
                given = give(shape, form)
                text = Text(self._render(given))
            except RefusedError as refusal:
                yield refusal
                continue
            lacking = text.missing(wanted) or self._garbled(given, text.text)
            if not lacking:
                yield form
                continue
            failed |= {ways[piece.kind] for piece in lacking if piece.kind in ways}
            yield _left_out(lacking[0])

    @cached_property
    def _reasoning_keys(self) -> list[str]:
        """The keys of a message under which the template writes the reasoning of a last answer."""
        turns = (Turn("user", "zq1qz"), Turn("assistant", "<think>\nzq2qz\n</think>\n\nzq3qz"))
        found = []
        for key in REASONING_KEYS:
            if re.search(rf"\b{key}\b", self._template):
                with suppress(RefusedError):
                    text = self._render(give(Conversation(turns), Form(reasoning=key)))
                    found += [key] if "zq2qz" in text and "zq3qz" in text else []
        return found

    def _garbled(self, given: Given, text: str) -> list[Piece]:
        """The calls whose arguments or content the template writes as no model should."""
        found = _misquoted(given, text)
        empty = [
            {**message, "content": ""} if message["content"] is None else message
            for message in given.messages
        ]
        if empty == given.messages or "None" not in text:
            return found
        try:
            without = self._render(replace(given, messages=empty))
        except RefusedError:
            without = self._template
        printed = text.count("None") > without.count("None")
        return [*found, Piece("calls", "null content", "None")] if printed else found


class _Search:
    """A search as far as it went: the forms found, and what is left to try."""

    def __init__(self, rest: Iterator[Form | RefusedError]) -> None:
        self._rest = rest
        self._found: list[Form] = []
        self._refusal = ""  # the text alone: an error keeps what was on the stack when it was raised

    def forms(self) -> Iterator[Form]:
        yield from self._found
        for result in self._rest:
            if isinstance(result, Form):
                self._found.append(result)
                yield result
            else:
                self._refusal = str(result)
        if not self._found:
            assert self._refusal, "a search tries at least one form"
            raise RefusedError(self._refusal)


def _misquoted(given: Given, text: str) -> list[Piece]:
    """The calls whose arguments are escaped, being text, or written as Python would, being objects."""
    found = []
    for message in given.messages:
        for number, call in enumerate(message.get("tool_calls", ())):
            arguments = call["function"]["arguments"]
            if isinstance(arguments, str):
                wrong = isinstance(as_object(arguments), Mapping) and not _stands_alone(arguments, text)
            else:
                wrong = bool(arguments) and str(arguments) in text and "'" in str(arguments)
            if wrong:
                found.append(Piece("calls", f"the arguments of tool_calls[{number}]", arguments))
    return found


def _stands_alone(arguments: str, text: str) -> bool:
    """Whether arguments stand in the text as they are, and not within quotes (escaped, "{}" looks alike)."""
    return arguments in text and f'"{arguments}"' not in text


def require(conversation: Conversation, trained: Collection[int], text: str) -> None:
    """Raises RefusedError, which names the piece, unless `text` has every piece of the conversation."""
    lacking = Text(text).missing(pieces(conversation, trained))
    if lacking:
        raise _left_out(lacking[0])


def _left_out(piece: Piece) -> RefusedError:
    if piece.kind == "reasoning":
        return RefusedError(
            f"chat template leaves out {piece.what} (it may strip what is not of the last answer); "
            "train on the last turn only, or remove the reasoning"
        )
    return RefusedError(
        f"chat template leaves out {piece.what}, or does not write it as it is; "
        "use a template that has words for it, or remove it from the row"
    )
