"""The forms in which a conversation can be handed to a chat template, likeliest first.

Templates agree on roles and contents. On all else each has its own idea: whether arguments are an object or
its text, whether content beside calls is null, what a call's id looks like, under which key reasoning comes,
how many system turns there are. Which form a template renders whole is found by trying (`proof`).

Notable choices:
- the row's own form comes before others, and what the template was made for before plain text;
- ids are replaced only where no form with the row's own renders: by nine letters and digits, made from the
  place of the call, so that each result still names its call;
- what a template has no words for becomes text: tools as JSON at the end of the system turn, calls as
  `<tool_call>` lines after the content, results as `<tool_response>` in a user turn, a system turn at the
  head of the user turn behind it (at the end of the one before, when an answer comes next).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product, takewhile
from typing import Any, Literal

from scorers.conversations.conversation import Conversation, Turn, answer_of, reasoning_of

Message = dict[str, Any]

#: Keys of a message under which templates look for reasoning.
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
_AS_TEXT = 8  # more than all that is closer to what the template was made for


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write a conversation for a template.

    system: every turn where it stands; those at the beginning joined to one; those further on moved into user
    turns besides; all of them moved there. tools: in OpenAI's wrapping, bare, as JSON text under the key
    `tools` of the system turn, or as text of it. arguments: as the row has them, all as JSON text, all as
    objects, or the calls as lines of the content. ids: the row's or made ones. content: beside calls, as the
    row has it where it is blank, or null, or "". reasoning: the key of a message that holds it, None for
    within the content. results: turns of their own, or user turns.
    """

    system: Literal["turns", "joined", "moved", "user"] = "turns"
    tools: Literal["wrapped", "bare", "key", "text"] = "wrapped"
    arguments: Literal["source", "text", "object", "lines"] = "source"
    ids: Literal["source", "made"] = "source"
    content: Literal["source", "null", "empty"] = "source"
    reasoning: str | None = None
    results: Literal["turns", "user"] = "turns"

    @property
    def is_sensible(self) -> bool:
        """Whether its parts go together."""
        lines = self.arguments == "lines"
        return not (
            (lines and (self.ids, self.content) != ("source", "source"))
            or (self.results == "user" and self.ids == "made")
            or (self.tools == "key" and self.system == "user")
        )


@dataclass(frozen=True, slots=True)
class Given:
    """A conversation as a template gets it. `at`: the message of each assistant turn, by turn."""

    messages: list[Message]
    tools: list[Any] | None
    at: Mapping[int, int]


class RefusedError(Exception):
    """A conversation cannot be rendered whole and with certain spans; says why, and what to do about it."""


def forms(conversation: Conversation, reasoning_keys: Sequence[str]) -> list[Form]:
    """The forms worth trying on a template, the last of them the one that asks least of it.

    `reasoning_keys` are those under which it writes reasoning. One that has such a key has a form of its own
    for reasoning, and text within the content would not be in it.
    """
    turns = conversation.turns
    calls = [turn for turn in turns if turn.tool_calls is not None]
    arguments, contents = ["source"], ["source"]
    if calls:
        kinds = {isinstance(call["arguments"], str) for turn in calls for call in read_calls(turn)}
        arguments += [kind for kind, text in (("object", True), ("text", False)) if text in kinds]
        contents += _blank_contents(calls)
    thinks = any(turn.role == "assistant" and reasoning_of(turn.content) for turn in turns)
    choices: dict[str, list[tuple[int, Any]]] = {
        "system": list(enumerate(_systems(turns, conversation.tools))),
        "tools": list(
            enumerate(["wrapped", "bare", "key"] if conversation.tools is not None else ["wrapped"])
        ),
        "arguments": list(enumerate(arguments)),
        "ids": [(0, "source"), (2, "made")] if calls else [(0, "source")],
        "content": list(enumerate(contents)),
        "reasoning": list(enumerate(reasoning_keys if thinks and reasoning_keys else [None])),
        "results": [(0, "turns")],
    }
    for name, needed, last in (
        ("tools", conversation.tools is not None, "text"),
        ("arguments", bool(calls), "lines"),
        ("results", any(turn.role == "tool" for turn in turns), "user"),
    ):
        choices[name] += [(_AS_TEXT, last)] if needed else []
    weighed = [
        (
            sum(cost for cost, _ in choice),
            Form(**dict(zip(choices, (value for _, value in choice), strict=True))),
        )
        for choice in product(*choices.values())
    ]
    weighed.sort(key=lambda each: each[0])
    return [form for _, form in weighed if form.is_sensible]


def _systems(turns: Sequence[Turn], tools: str | None) -> list[str]:
    """Ways to write the system turns, which tools as text make one of, each changing more than the last."""
    opening = len(list(takewhile(lambda turn: turn.role == "system", turns)))
    later = any(turn.role == "system" for turn in turns[opening:])
    return [
        "turns",
        *(["joined"] if opening > 1 else []),
        *(["moved"] if later else []),
        *(["user"] if opening or tools is not None else []),
    ]


def _blank_contents(calls: Sequence[Turn]) -> list[str]:
    """Other ways to write blank contents beside calls than the row's."""
    blank = {turn.null for turn in calls if not answer_of(turn.content)}
    return [kind for kind, null in (("empty", True), ("null", False)) if null in blank]


def read_calls(turn: Turn) -> list[dict[str, Any]]:
    """The calls of a turn: name, arguments, and an id where there is one. Raises RefusedError."""
    return [_function(call) for call in _read(turn.tool_calls or "[]", "tool_calls")]


def read_tools(conversation: Conversation) -> list[dict[str, Any]]:
    """The tool schemas, in OpenAI's wrapping or not. Raises RefusedError."""
    return _read(conversation.tools or "[]", "tools")


def _read(text: str, what: str) -> list[dict[str, Any]]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise RefusedError(f"{what} is not JSON: {error}") from error
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise RefusedError(f"{what} is not a JSON list of objects")
    return value


def _function(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call in OpenAI's wrapping or not."""
    function = call.get("function", call)
    found = {"name": function.get("name", ""), "arguments": function.get("arguments", {})}
    return found if call.get("id") is None else {"id": str(call["id"]), **found}


def as_object(arguments: Any) -> Any:
    """Arguments that are the text of JSON as what it says; what models wrote wrong stays text."""
    if isinstance(arguments, str):
        with suppress(ValueError):
            return json.loads(arguments)
    return arguments


def _line(call: Mapping[str, Any]) -> str:
    """A call as text, its arguments as the row has them where they are JSON."""
    name, said = json.dumps(call["name"], ensure_ascii=False), call["arguments"]
    if isinstance(as_object(said), str):
        said = json.dumps(said, ensure_ascii=False)
    return f'<tool_call>\n{{"name": {name}, "arguments": {as_text(said)}}}\n</tool_call>'


def as_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def give(conversation: Conversation, form: Form) -> Given:
    """The conversation in this form. Raises RefusedError."""
    turns, shift = list(conversation.turns), 0
    tools = None if conversation.tools is None else read_tools(conversation)
    if tools is not None and form.tools in ("key", "text"):
        block = "" if form.tools == "key" else "Tools:\n" + json.dumps(tools, ensure_ascii=False)
        turns, shift = _with_block(turns, block)
    messages, at = _Writer(form).write(turns)
    if tools is not None and form.tools == "key":
        system = next(message for message in messages if message["role"] == "system")
        system["tools"] = json.dumps(tools, ensure_ascii=False)
    if tools is not None and form.tools == "bare":
        tools = [tool.get("function", tool) for tool in tools]
    if tools is not None and form.tools == "wrapped":
        tools = [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]
    native = form.tools in ("wrapped", "bare")
    return Given(messages, tools if native else None, {turn - shift: place for turn, place in at.items()})


def _with_block(turns: list[Turn], block: str) -> tuple[list[Turn], int]:
    """The turns with a text at the end of the first system turn, and how many that put before them."""
    if turns[0].role != "system":
        return [Turn("system", block), *turns], 1
    text = f"{turns[0].content}\n\n{block}" if block else turns[0].content
    return [Turn("system", text), *turns[1:]], 0


class _Writer:
    """Writes turns as messages, one after another."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._messages: list[Message] = []
        self._waiting = ""  # system text for the next user turn
        self._asked: dict[str, str] = {}  # made ids of the calls so far, by the row's
        self._made: list[str] = []  # those that no result has named yet
        self._count = 0

    def write(self, turns: Sequence[Turn]) -> tuple[list[Message], dict[int, int]]:
        """The messages, and the message of each assistant turn."""
        at: dict[int, int] = {}
        opening = True
        for index, turn in enumerate(turns):
            opening = opening and turn.role == "system"
            if turn.role == "system":
                self._system(turn.content, opening=opening)
            elif turn.role == "user":
                self._user(turn.content)
            elif turn.role == "tool" and self._form.results == "user":
                self._user(f"<tool_response>\n{turn.content}\n</tool_response>", joins=True)
            elif turn.role == "tool":
                self._put(self._result(turn))
            else:
                self._put(self._answer(turn))
                at[index] = len(self._messages) - 1
        if self._waiting:
            self._settle()
        return self._messages, at

    def _put(self, message: Message) -> None:
        if self._waiting:
            self._settle()
        self._messages.append(message)

    def _system(self, content: str, *, opening: bool) -> None:
        how, messages = self._form.system, self._messages
        if (
            how == "turns"
            or (how == "joined" and not opening)
            or (opening and how != "user" and not messages)
        ):
            self._put({"role": "system", "content": content})
        elif opening and how != "user":
            messages[0]["content"] += f"\n\n{content}"
        else:
            self._waiting += f"\n\n{content}" if self._waiting else content

    def _user(self, content: str, *, joins: bool = False) -> None:
        if self._waiting:
            content, self._waiting = f"{self._waiting}\n\n{content}", ""
        last = self._messages[-1] if self._messages else None
        joins = joins or (last is not None and str(last["content"]).endswith("</tool_response>"))
        if self._form.results == "user" and joins and last is not None and last["role"] == "user":
            last["content"] += f"\n\n{content}"
        else:
            self._messages.append({"role": "user", "content": content})

    def _settle(self) -> None:
        """System text that no user turn follows goes to the end of the one before, or becomes one."""
        text, self._waiting = self._waiting, ""
        if self._messages and self._messages[-1]["role"] == "user":
            self._messages[-1]["content"] += f"\n\n{text}"
        else:
            self._messages.append({"role": "user", "content": text})

    def _result(self, turn: Turn) -> Message:
        message: Message = {"role": "tool", "content": turn.content}
        if turn.name is not None:
            message["name"] = turn.name
        if self._form.ids == "made":
            asked = self._asked.get(turn.tool_call_id or "")
            named = asked if asked in self._made else self._made[0] if self._made else _made_id(self._count)
            message["tool_call_id"] = named
            self._made = [made for made in self._made if made != named]
        elif turn.tool_call_id is not None:
            message["tool_call_id"] = turn.tool_call_id
        return message

    def _answer(self, turn: Turn) -> Message:
        form = self._form
        message: Message = {"role": "assistant", "content": turn.content}
        if turn.name is not None:
            message["name"] = turn.name
        if form.reasoning is not None and (reasoning := reasoning_of(turn.content)) is not None:
            message |= {"content": answer_of(turn.content), form.reasoning: reasoning}
        if turn.tool_calls is None:
            return message
        calls = read_calls(turn)
        if form.arguments == "lines":
            message["content"] = "\n".join([*filter(None, [message["content"]]), *map(_line, calls)])
            return message
        if not message["content"]:
            null = turn.null if form.content == "source" else form.content == "null"
            message["content"] = None if null else ""
        message["tool_calls"] = [self._call(call) for call in calls]
        return message

    def _call(self, call: Mapping[str, Any]) -> Message:
        arguments = call["arguments"]
        if self._form.arguments == "text":
            arguments = as_text(arguments)
        elif self._form.arguments == "object":
            arguments = as_object(arguments)
        wrapped: Message = {"type": "function", "function": {"name": call["name"], "arguments": arguments}}
        if self._form.ids == "made":
            made = _made_id(self._count)
            self._count += 1
            self._made.append(made)
            self._asked[call.get("id", "")] = made
            return {"id": made, **wrapped}
        return {"id": call["id"], **wrapped} if "id" in call else wrapped


def _made_id(place: int) -> str:
    """Nine letters and digits for the call at this place of a conversation."""
    return hashlib.blake2b(str(place).encode(), digest_size=8).hexdigest()[:9]
