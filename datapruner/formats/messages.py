"""Lists of messages: roles, content parts, reasoning, tool calls."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import orjson

from datapruner.formats.columns import Shape
from datapruner.formats.rejections import (
    Limits,
    is_blank,
    load_list,
    reject,
    reject_type,
    response_text,
    too_many_turns,
)
from scorers.conversation import Role

#: Role, content and calls of one turn: a `scorers.conversation.Turn` before it is one. Ingest makes
#: millions of these, and a plain tuple costs a tenth of a frozen dataclass.
RawTurn = tuple[Role, str, str | None]

ROLE_NAMES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "ipython": "tool",
    "observation": "tool",
    "function_response": "tool",
}
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_REASONING_PARTS = ("reasoning", "thinking")


class Messages(NamedTuple):
    """A list of messages as read, and the tool schemas found inside it."""

    shape: Shape
    turns: list[RawTurn]
    tools: str | None


def read_messages(value: object, column: str, limits: Limits) -> Messages:
    """Read role/content or from/value messages; `value` may be the list or its JSON text.

    Raises RejectedRowError.
    """
    items = load_list(value, column)
    if not items:
        reject("no_turns", column, f"'{column}' has no turns", "give the row at least an assistant turn")
    if len(items) > limits.max_turns:
        too_many_turns(len(items), column, limits)
    first = items[0]
    sharegpt = isinstance(first, Mapping) and first.get("from") is not None
    role_key, text_key = ("from", "value") if sharegpt else ("role", "content")
    turns: list[RawTurn] = []
    tools = None
    for index, item in enumerate(items):
        if not isinstance(item, Mapping):
            reject_type(f"{column}[{index}]", "an object", item)
        name = item.get(role_key)
        role = ROLE_NAMES.get(name) if isinstance(name, str) else None
        if role is None:
            _reject_role(name, f"{column}[{index}].{role_key}")
        content = item.get(text_key)
        if len(item) == 2 and isinstance(content, str) and (role != "assistant" or not is_blank(content)):
            turns.append((role, content, None))
        else:
            turn, found = _read_message(item, role, f"{column}[{index}]", text_key)
            turns.append(turn)
            tools = found or tools
    return Messages("sharegpt" if sharegpt else "messages", turns, tools)


def _read_message(
    item: Mapping[str, Any], role: Role, field: str, text_key: str
) -> tuple[RawTurn, str | None]:
    """One message with all that may hang on it, and the tool schemas among its parts."""
    calls = _read_calls(item.get("tool_calls"), f"{field}.tool_calls")
    if calls is None and item.get("function_call") is not None:
        calls = _read_calls([item["function_call"]], f"{field}.function_call")
    reasoning = next((item[key] for key in _REASONING_KEYS if item.get(key)), None)
    if reasoning is not None and not isinstance(reasoning, str):
        reject_type(f"{field}.reasoning", "a string", reasoning)
    content = item.get(text_key)
    field = f"{field}.{text_key}"
    tools = None
    if isinstance(content, list):
        parts = _read_parts(content, field)
        content, tools = parts.text, parts.tools
        calls, reasoning = parts.calls or calls, parts.reasoning or reasoning
    if content is None and calls is not None:
        content = ""
    if role == "assistant" and calls is None:
        content = response_text(content, field)
    elif not isinstance(content, str):
        reject_type(field, "a string or a list of parts", content)
    if role == "assistant":
        content = fold_reasoning(reasoning, content)
    return (role, content, calls), tools


class _Parts(NamedTuple):
    text: str
    reasoning: str | None
    calls: str | None
    tools: str | None


def _read_parts(parts: list[Any], field: str) -> _Parts:
    texts: list[str] = []
    thoughts: list[str] = []
    calls = tools = None
    for index, part in enumerate(parts):
        where = f"{field}[{index}]"
        if not isinstance(part, Mapping):
            reject_type(where, "a content part", part)
        kind = part.get("type")
        value = next((part[key] for key in ("text", "value", "thinking") if part.get(key) is not None), None)
        if kind == "tools":
            tools = read_tools(value, where)
        elif kind == "tool_calls":
            calls = _read_calls(value, where)
        elif kind == "text" and isinstance(value, str):
            texts.append(value)
        elif kind in _REASONING_PARTS and isinstance(value, str):
            thoughts.append(value)
        else:
            reject(
                "unsupported_content",
                where,
                f"a content part of type {kind!r} is not text",
                "keep only text parts: the proxy model reads text",
            )
    return _Parts("".join(texts), "\n".join(thoughts) or None, calls, tools)


def fold_reasoning(reasoning: str | None, answer: str) -> str:
    """The answer with its reasoning before it, in the form that reasoning models are trained on."""
    if not reasoning or is_blank(reasoning) or "<think>" in answer:
        return answer
    return f"<think>\n{reasoning}\n</think>\n{answer}"


def read_tools(value: object, field: str) -> str | None:
    """Tool schemas as JSON text of a list; None when there are none."""
    tools = load_list(value, field, "bad_tools")
    return _dump(tools, field) if tools else None


def _read_calls(value: object, field: str) -> str | None:
    """OpenAI-style or bare calls as JSON text of `[{"name", "arguments"}]`, arguments as an object."""
    calls = []
    for index, call in enumerate(load_list(value, field, "bad_tools") or ()):
        function = call.get("function") or call if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            reject("bad_tools", f"{field}[{index}]", "a tool call has no name", "write name and arguments")
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            # Models write broken arguments; then the text itself is what they said.
            with contextlib.suppress(orjson.JSONDecodeError):
                arguments = orjson.loads(arguments)
        calls.append({"name": function["name"], "arguments": {} if arguments is None else arguments})
    return _dump(calls, field) if calls else None


def _dump(value: object, field: str) -> str:
    try:
        return orjson.dumps(_without_nulls(value)).decode()
    except orjson.JSONEncodeError as error:
        return reject(
            "bad_tools", field, f"the value cannot be written as JSON: {error}", "use plain JSON values"
        )


def _without_nulls(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _reject_role(name: object, field: str) -> NoReturn:
    if name is None:
        reject("unknown_role", field, "the turn has no role", "give each turn a role")
    reject("unknown_role", field, f"unknown role {name!r}", f"use one of {', '.join(ROLE_NAMES)}")
