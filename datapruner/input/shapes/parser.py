"""One raw row to one sample."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import orjson

from datapruner.input.shapes.columns import Columns, Shape, detect_columns, mapped_columns
from datapruner.input.shapes.flags import FLAG_COLUMNS, check_flags
from datapruner.input.shapes.messages import (
    Messages,
    RawTurn,
    fold_reasoning,
    is_message,
    message_text,
    read_messages,
    read_tools,
)
from datapruner.input.shapes.rejections import (
    DEFAULT_LIMITS,
    Limits,
    RejectedRowError,
    Rejection,
    is_blank,
    load_list,
    optional_text,
    reject,
    reject_messages_repr,
    reject_missing,
    reject_type,
    response_text,
    too_large,
    too_many_turns,
    type_name,
)

#: Layouts of keys remembered; rows with free-form keys would otherwise grow the memory without bound.
_MAX_LAYOUTS = 10_000


class Sample(NamedTuple):
    """One accepted row. `n_chars` counts the characters of all turn contents."""

    sample_id: str
    shape: Shape
    columns: Columns
    turns: list[RawTurn]
    tools: str | None
    n_chars: int


class RowParser:
    """Turns raw rows into samples, remembering which columns each layout of keys uses.

    `mapping` goes from part (one of `MAPPING_TARGETS`) to column name and replaces detection. Raises
    UsageError when it names an unknown part, or neither `messages` nor both `prompt` and `response`.
    `unseen_columns` are the mapped columns that no row parsed so far has had: likely misspelt.
    """

    def __init__(self, mapping: Mapping[str, str] | None = None, limits: Limits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self.mapped = mapped_columns(mapping) if mapping else None
        self.unseen_columns = set(self.mapped.used) if self.mapped else set()
        self._layouts: dict[object, Columns] = {}

    def parse(self, row: object, *, padded: bool = False) -> Sample | Rejection:
        """The row's sample, or why it has none. Never raises for bad data.

        `padded`: it comes from a typed source, whose nulls inside objects may be padding.
        """
        try:
            return self._parse(row, padded=padded)
        except RejectedRowError as error:
            return error.rejection

    def _parse(self, row: object, *, padded: bool) -> Sample:
        if not isinstance(row, dict):
            kind = type_name(row)
            reject("not_an_object", None, f"the row is {kind}, not an object", "write each row as {...}")
        if not FLAG_COLUMNS.isdisjoint(row):
            check_flags(row, mapped=self.mapped is not None)
        columns = self.mapped or self._detect(row)
        if self.unseen_columns:
            self.unseen_columns.difference_update(row)
        shape = columns.shape
        if columns.messages is not None:
            messages = read_messages(row.get(columns.messages), columns.messages, self.limits, padded=padded)
            turns, tools = messages.turns, messages.tools
            if shape != "mapped":
                shape = messages.shape
        else:
            turns, asked = self._read_prompt(row, columns, padded=padded)
            answers, tools = self._read_response(row, columns, padded=padded)
            turns, tools = turns + answers, tools or asked
        if columns.system is not None:
            system = optional_text(row, columns.system)
            if system and turns[0][:2] != ("system", system):
                turns.insert(0, ("system", system, None))
        if columns.tools is not None:
            tools = read_tools(row.get(columns.tools), columns.tools, padded=padded) or tools
        n_chars = self._check_turns(turns, row, columns)
        return Sample(self._identify(row, columns, turns, tools), shape, columns, turns, tools, n_chars)

    def _detect(self, row: dict[str, Any]) -> Columns:
        names = tuple(row)
        layout: object = names
        if None in row.values():
            present = tuple([name for name, value in row.items() if value is not None])
            layout = (names, present)
        else:
            present = names
        columns = self._layouts.get(layout)
        if columns is None:
            columns = detect_columns(present, names)
            if len(self._layouts) < _MAX_LAYOUTS:
                self._layouts[layout] = columns
        return columns

    def _read_messages(self, value: object, name: str, *, padded: bool) -> Messages | None:
        """A prompt or response that is messages, or their JSON text; None when it is anything else."""
        if isinstance(value, str):
            if value[:1] not in "[{ \t\r\n":  # most texts
                return None
            reject_messages_repr(value, name)
            value = message_text(value)
        elif is_message(value):
            value = [value]
        if not isinstance(value, list):
            return None
        return read_messages(value, name, self.limits, padded=padded)

    def _read_prompt(
        self, row: dict[str, Any], columns: Columns, *, padded: bool
    ) -> tuple[list[RawTurn], str | None]:
        """The turns before the response, and the tool schemas among them."""
        name = columns.prompt
        assert name is not None, columns
        prompt = row.get(name)
        messages = self._read_messages(prompt, name, padded=padded)
        if messages is not None:
            return messages.turns, messages.tools
        if prompt is not None and not isinstance(prompt, str):
            reject_type(name, "a string or a list of messages", prompt)
        text = prompt or ""
        extra = row.get(columns.input) if columns.input is not None else None
        if extra:
            extra = optional_text(row, columns.input)
            if extra is not None:
                text = extra if is_blank(text) else f"{text}\n\n{extra}"
        if not text or text.isspace():
            reject(
                "missing_prompt", name, f"'{name}' is missing or empty", "give the row a prompt or remove it"
            )
        turns = self._read_history(row, columns.history) if columns.history is not None else []
        turns.append(("user", text, None))
        return turns, None

    def _read_history(self, row: dict[str, Any], column: str) -> list[RawTurn]:
        turns: list[RawTurn] = []
        for index, pair in enumerate(load_list(row.get(column), column) or ()):
            field = f"{column}[{index}]"
            if not isinstance(pair, list) or len(pair) != 2:
                reject_type(field, "a pair [user text, assistant text]", pair)
            user, assistant = pair
            if not isinstance(user, str):
                reject_type(f"{field}[0]", "a string", user)
            turns.append(("user", user, None))
            turns.append(("assistant", response_text(assistant, f"{field}[1]"), None))
        return turns

    def _read_response(
        self, row: dict[str, Any], columns: Columns, *, padded: bool
    ) -> tuple[list[RawTurn], str | None]:
        """The turns of the response, and the tool schemas among them."""
        name = columns.response
        assert name is not None, columns
        if name not in row:
            reject_missing("missing_response", name, row)
        response = row[name]
        reasoning = optional_text(row, columns.reasoning) if columns.reasoning is not None else None
        messages = self._read_messages(response, name, padded=padded)
        if messages is None:
            return [("assistant", fold_reasoning(reasoning, response_text(response, name), name), None)], None
        turns = messages.turns
        if reasoning is not None and turns[-1][0] == "assistant":
            role, content, *rest = turns[-1]
            turns[-1] = cast(RawTurn, (role, fold_reasoning(reasoning, content, name), *rest))
        elif reasoning is not None:
            reject_type(columns.reasoning, "null: the response does not end with an answer", reasoning)
        return turns, messages.tools

    def _check_turns(self, turns: list[RawTurn], row: dict[str, Any], columns: Columns) -> int:
        """Reject what no turn or no sum of turns may be; the number of characters."""
        if len(turns) > self.limits.max_turns:
            too_many_turns(len(turns), columns.messages or columns.history, self.limits)
        n_chars = 0
        answered = trained = False
        for turn in turns:
            content = turn[1]
            n_chars += len(content)
            if turn[0] == "assistant":
                answered = True
                trained = trained or len(turn) == 3 or turn[5] is None
            if "\0" in content:
                field = _locate(row, columns, lambda text: "\0" in text)
                remedy = "remove it: tokenizers and databases disagree on it"
                reject("nul_character", field, "the text holds a NUL character", remedy)
        if not answered:
            field = columns.messages or columns.response
            reason = "no turn is the assistant's, so there is nothing to train on"
            reject("no_assistant_turn", field, reason, "add an assistant turn or remove the row")
        if not trained:
            field = columns.messages or columns.response
            reason = "the row says of every assistant turn that it is not to be trained on"
            reject("nothing_to_train_on", field, reason, "give a turn weight 1, or remove the row")
        return n_chars

    def _identify(
        self, row: dict[str, Any], columns: Columns, turns: list[RawTurn], tools: str | None
    ) -> str:
        """Hash the canonical content, whose bytes also show surrogates and the size of the row."""
        try:
            canonical = orjson.dumps((turns, tools))
        except orjson.JSONEncodeError:
            field = _locate(row, columns, _has_surrogate)
            reason = "the text holds bytes that are not UTF-8, or half of a surrogate pair"
            reject("invalid_unicode", field, reason, "write the file as UTF-8")
        if len(canonical) > self.limits.max_row_bytes:
            raise RejectedRowError(too_large(len(canonical), self.limits))
        return hashlib.blake2b(canonical, digest_size=16).hexdigest()


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def _locate(row: dict[str, Any], columns: Columns, wrong: Callable[[str], bool]) -> str | None:
    """Path of the first string that is `wrong` among the columns read."""

    def walk(value: object, path: str) -> str | None:
        if isinstance(value, str):
            return path if wrong(value) else None
        children: Iterator[tuple[str, object]] = iter(())
        if isinstance(value, list):
            children = ((f"{path}[{index}]", item) for index, item in enumerate(value))
        elif isinstance(value, Mapping):
            children = ((f"{path}.{key}", item) for key, item in value.items())
        return next((found for where, item in children if (found := walk(item, where))), None)

    found = (walk(row.get(name), name) for name in columns.used)
    return next((path for path in found if path), columns.messages or columns.response)
