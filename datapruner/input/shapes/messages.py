"""Lists of messages: roles, content parts, reasoning, tool calls."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import orjson

from datapruner.input.shapes.columns import Shape
from datapruner.input.shapes.rejections import (
    Limits,
    is_blank,
    load_list,
    reject,
    reject_type,
    response_text,
    too_many_turns,
    type_name,
)
from scorers.conversations.conversation import Role, reasoning_of

#: The fields of a conversation's `Turn` before it is one, the last four only where one of them is not
#: as in most turns. Ingest makes millions of these, and a plain tuple costs a tenth of a frozen dataclass.
RawTurn = (
    tuple[Role, str, str | None] | tuple[Role, str, str | None, str | None, str | None, str | None, bool]
)

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
#: Whether a message is trained on: 1 or true for yes, 0 or false for no.
_FLAGS = ("weight", "train", "training", "trainable", "loss", "loss_weight", "loss_mask")
#: Of these nobody knows which value means what.
_MASKS = ("mask", "masks")
_KEEP_FLAG = "remove it, or write weight 0 or 1 for the messages of the assistant"
_REASONING_PARTS = ("reasoning", "thinking")
_LOOKS_LIKE_MESSAGES = re.compile(r'\s*\[?\s*\{\s*"')


class Messages(NamedTuple):
    """A list of messages as read, and the tool schemas found inside it."""

    shape: Shape
    turns: list[RawTurn]
    tools: str | None


def read_messages(value: object, column: str, limits: Limits, *, padded: bool) -> Messages:
    """Read role/content or from/value messages; `value` may be the list or its JSON text.

    `padded`: nulls in objects of the list may be the padding of a typed source (Arrow gives all objects of a
    column the same keys), so that in tools and calls they count as absent. Raises RejectedRowError.
    """
    padded = padded and not isinstance(value, str)
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
            turn, found = _read_message(item, role, f"{column}[{index}]", text_key, padded=padded)
            turns.append(turn)
            tools = found or tools
    return Messages("sharegpt" if sharegpt else "messages", turns, tools)


def message_text(text: str) -> list[Any] | None:
    """The messages that a text holds as JSON, one alone or a list; None when it is any other text."""
    if not _LOOKS_LIKE_MESSAGES.match(text):
        return None
    try:
        loaded = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    items = loaded if isinstance(loaded, list) else [loaded]
    return items if items and all(map(is_message, items)) else None


def is_message(value: object) -> bool:
    """Whether this is an object with a known role and a content (or calls)."""
    if not isinstance(value, Mapping):
        return False
    role = value.get("role", value.get("from"))
    said = not value.keys().isdisjoint(("content", "value", "tool_calls", "function_call"))
    return isinstance(role, str) and role in ROLE_NAMES and said


def _read_message(
    item: Mapping[str, Any], role: Role, field: str, text_key: str, *, padded: bool
) -> tuple[RawTurn, str | None]:
    """One message with all that may hang on it, and the tool schemas among its parts."""
    calls = _read_calls(item.get("tool_calls"), f"{field}.tool_calls", padded=padded)
    if calls is None and item.get("function_call") is not None:
        calls = _read_calls([item["function_call"]], f"{field}.function_call", padded=padded)
    reasoning = _read_reasoning(item, field)
    untrained = _read_flags(item, role, field)
    content = item.get(text_key)
    where = f"{field}.{text_key}"
    tools = None
    if isinstance(content, list):
        parts = _read_parts(content, where, padded=padded)
        content, tools = parts.text, parts.tools
        calls, reasoning = parts.calls or calls, parts.reasoning or reasoning
    if calls is not None and role != "assistant":
        reject("bad_tools", field, f"a {role} turn has tool calls", "give the calls to an assistant turn")
    null = content is None and calls is not None
    if null:
        content = ""
    if role == "assistant" and calls is None:
        content = response_text(content, where)
    elif not isinstance(content, str):
        reject_type(where, "a string or a list of parts", content)
    if role == "assistant":
        content = fold_reasoning(reasoning, content, field)
    asked = name = None
    if role == "tool":
        asked, name = (_read_name(item.get(key), f"{field}.{key}") for key in ("tool_call_id", "name"))
    if asked is None and name is None and untrained is None and not null:
        return (role, content, calls), tools
    return (role, content, calls, asked, name, untrained, null), tools


def _read_name(value: object, field: str) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int) else reject_type(field, "a string", value)


def _read_reasoning(item: Mapping[str, Any], field: str) -> str | None:
    found = None
    for key in _REASONING_KEYS:
        value = item.get(key)
        if not value:
            continue
        if not isinstance(value, str):
            reject_type(f"{field}.{key}", "a string", value)
        if found is not None and found != value:
            _reject_second_reasoning(f"{field}.{key}")
        found = value
    return found


def _read_flags(item: Mapping[str, Any], role: Role, field: str) -> str | None:
    """Why the message is not to be trained on, None when it is."""
    why = None
    for key in item.keys() & {*_FLAGS, *_MASKS}:
        value = item[key]
        if value is None:
            continue
        where = f"{field}.{key}"
        if key in _MASKS:
            reason = f"'{where}' does not say whether 1 means trained or masked"
            reject("unsupported_weight", where, reason, _KEEP_FLAG)
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            reason = f"'{where}' is {value!r}: a message is trained on (1) or not (0), nothing between"
            reject("unsupported_weight", where, reason, _KEEP_FLAG)
        if value and role != "assistant":
            reason = f"'{where}' asks to train on a {role} turn; only the assistant's are"
            reject("unsupported_weight", where, reason, _KEEP_FLAG)
        if not value and role == "assistant":
            why = f"{key} {orjson.dumps(value).decode()}"
    return why


class _Parts(NamedTuple):
    text: str
    reasoning: str | None
    calls: str | None
    tools: str | None


def _read_parts(parts: list[Any], field: str, *, padded: bool) -> _Parts:
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
            tools = read_tools(value, where, padded=padded)
        elif kind == "tool_calls":
            calls = _read_calls(value, where, padded=padded)
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


def fold_reasoning(reasoning: str | None, answer: str, field: str) -> str:
    """The answer with its reasoning before it, in the form that reasoning models are trained on.

    An answer that begins with the same reasoning stays as it is. Raises RejectedRowError where it begins with
    other reasoning.
    """
    if not reasoning or is_blank(reasoning):
        return answer
    there = reasoning_of(answer) if answer.lstrip().startswith("<think>") else None
    if there is None:
        return f"<think>\n{reasoning}\n</think>\n{answer}"
    if there.split() != reasoning.split():
        _reject_second_reasoning(field)
    return answer


def _reject_second_reasoning(field: str) -> NoReturn:
    reason = "the row holds two different reasonings for one answer"
    reject("two_reasonings", field, reason, "keep one of them: a column, or a <think> block in the answer")


def read_tools(value: object, field: str, *, padded: bool) -> str | None:
    """Tool schemas as JSON text of a list of objects; None when there are none."""
    tools = load_list(value, field, "bad_tools")
    if not tools:
        return None
    padded = padded and not isinstance(value, str)
    schemas = [_load_object(tool, f"{field}[{index}]") for index, tool in enumerate(tools)]
    return _dump(schemas, field, padded=padded)


def _load_object(value: object, field: str) -> Mapping[str, Any]:
    """An object, or the one that a string holds as JSON."""
    loaded = value
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            loaded = json.loads(value)
    if not isinstance(loaded, Mapping):
        reject("bad_tools", field, f"'{field}' is {type_name(value)}, not an object", "write a tool's schema")
    return loaded


def _read_calls(value: object, field: str, *, padded: bool) -> str | None:
    """OpenAI-style or bare calls as JSON text: a list of name, arguments, and the id where there is one.

    Arguments stay the object or the text that the row has: models write broken ones, and the text itself is
    what they said then.
    """
    calls = []
    for index, call in enumerate(load_list(value, field, "bad_tools") or ()):
        function = call.get("function") or call if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            reject("bad_tools", f"{field}[{index}]", "a tool call has no name", "write name and arguments")
        arguments = function.get("arguments")
        if arguments is None or (isinstance(arguments, str) and is_blank(arguments)):
            arguments = {}
        found = {"name": function["name"], "arguments": arguments}
        named = _read_name(call.get("id"), f"{field}[{index}].id")
        calls.append(found if named is None else {"id": named, **found})
    return _dump(calls, field, padded=padded and not isinstance(value, str)) if calls else None


def _dump(value: object, field: str, *, padded: bool) -> str:
    """JSON text. By the standard library, which writes whole numbers of any size, and no NaN as null."""
    value = _without_nulls(value) if padded else value
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        return reject(
            "bad_tools", field, f"the value cannot be written as JSON: {error}", "use plain JSON values"
        )


def _without_nulls(value: object) -> object:
    """Without the keys whose value is null, which a typed source cannot tell from absent ones."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _reject_role(name: object, field: str) -> NoReturn:
    if name is None:
        reject("unknown_role", field, "the turn has no role", "give each turn a role")
    reject("unknown_role", field, f"unknown role {name!r}", f"use one of {', '.join(ROLE_NAMES)}")
