"""Rows of JSON as text: joined, taken apart and made strict without reading their values."""

from __future__ import annotations

import json

import orjson


def strict(text: bytes) -> bytes:
    """A row as JSON that every reader takes: rows of tables may have NaN and infinity, which become text."""
    if b"NaN" not in text and b"Infinity" not in text:
        return text
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        value = json.loads(text, parse_constant=str)
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return text


def spliced(*objects: bytes) -> bytes:
    """One object of JSON with the members of several."""
    inner = [text[1:] for each in objects if (text := each.strip()[:-1]).strip() != b"{"]
    return b"{" + b",".join(inner) + b"}"


_decoder = json.JSONDecoder()


def members(text: bytes) -> dict[str, str]:
    """The keys of a row's object with the text of each value, as it is there; of a repeated key the last."""
    row = text.decode()
    found: dict[str, str] = {}
    at = _blanks(row, row.index("{") + 1)
    while row[at] != "}":
        key, at = _decoder.raw_decode(row, at)
        start = _blanks(row, row.index(":", at) + 1)
        _, end = _decoder.raw_decode(row, start)
        found[key] = row[start:end]
        at = _blanks(row, end)
        if row[at] == ",":
            at = _blanks(row, at + 1)
    return found


def _blanks(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at
