"""JSON lines and JSON arrays as streams of records that keep each row's own text.

Notable choices:
* A line is parsed by orjson; an array by the standard scanner, because it says where a value ends, over
  a sliding buffer of text.
* A row is kept as its own text (numbers, key order and escapes as they were). Line breaks between
  tokens of a pretty-printed array are dropped, which is safe: inside a JSON string they are escaped.
* After a broken element the array reader looks for the next `{` that is followed by the key with which
  the broken element began; inside a string the quotes would be escaped, so text cannot match.
* NaN and Infinity are not JSON and are rejected: a Parquet or database column would lose them silently. So
  are numbers beyond 64-bit floats, which would become infinite.
* A last line that breaks off, without a line break behind it, is where the file was cut.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import orjson

from datapruner.input.readers.records import Batch, Record, truncated
from datapruner.input.readers.streams import CHUNK, BrokenStreamError
from datapruner.input.shapes import Limits, Rejection, too_large

_EXCERPT, _DIGITS = 200, 20
#: Digits of an integer that need a look at whether it is beyond 64-bit floats.
_MANY_DIGITS = 300
#: How near the end of the buffer an error must be to be blamed on the missing rest ("\uD83D\uDE00").
_EDGE = 16
_BLANKS = re.compile(r"[ \t\r\n]*")
_SEPARATORS = re.compile(r"[ \t\r\n,]*")
_FIRST_KEY = re.compile(r'\{\s*("(?:[^"\\]|\\.)*")\s*:')
# More digits than a 64-bit whole number has.
_LONG_NUMBER = re.compile(rb"[0-9]{20}")
_BOM = codecs.BOM_UTF8


def read_lines(chunks: Iterator[bytes], limits: Limits) -> Iterator[Batch]:
    """One JSON value per line; blank lines are not rows. One batch per chunk."""
    number = 0
    carry = b""
    skipped = 0  # bytes of an over-long line thrown away so far
    first = True
    try:
        for chunk in chunks:
            if first:
                chunk, first = chunk.removeprefix(_BOM), False
            if skipped:
                head, newline, chunk = chunk.partition(b"\n")
                skipped += len(head)
                if not newline:
                    continue
                number += 1
                yield Batch([Record.faulty(number, too_large(skipped, limits))])
                skipped = 0
            lines = (carry + chunk).split(b"\n")
            carry = lines.pop()
            yield Batch(_line(line, i, limits) for i, line in enumerate(lines, number + 1) if line.strip())
            number += len(lines)
            if len(carry) > limits.max_row_bytes:
                skipped, carry = len(carry), b""
    except BrokenStreamError as error:
        yield Batch([Record.faulty(number + 1, truncated(str(error)), _show(carry))])
        return
    if skipped:
        yield Batch([Record.faulty(number + 1, too_large(skipped, limits))])
    elif carry.strip():
        record = _line(carry, number + 1, limits)
        if record.fault is not None and _is_cut(carry):
            record = record._replace(fault=truncated("the file ends inside this row"))
        yield Batch([record])


def _is_cut(line: bytes) -> bool:
    """Whether the text is the beginning of a JSON object and no more."""
    try:
        text = line.decode().strip()
        json.loads(text, parse_constant=str, parse_int=str)
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    except json.JSONDecodeError as error:
        near = error.pos >= len(text) - _EDGE and not text.endswith("}")
        breaks_off = error.pos >= len(text) or error.msg.startswith("Unterminated") or near
        return text.startswith("{") and breaks_off and not error.msg.startswith("Extra data")
    except RecursionError:
        pass
    return False


def _line(line: bytes, number: int, limits: Limits) -> Record:
    if len(line) > limits.max_row_bytes:
        return Record.faulty(number, too_large(len(line), limits), _show(line))
    try:
        row = orjson.loads(line)
        if _LONG_NUMBER.search(line):  # of which it makes a float
            row = json.loads(line)
        return Record(number, row, line.strip())
    except orjson.JSONDecodeError as error:
        return Record.faulty(number, diagnose(line, error.msg), _show(line))


def diagnose(line: bytes, message: str) -> Rejection:
    """Why this text is not the JSON of a row."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        reason = f"the bytes are not UTF-8 ({error.reason} at byte {error.start:,} of the row)"
        return Rejection("invalid_unicode", None, reason, "write the file as UTF-8")
    if "\0" in text:
        return Rejection("nul_character", None, "the row holds a NUL character", "remove it from the file")
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_number, parse_int=_number)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, _ConstantError) else message
        return Rejection("broken_json", None, f"not JSON: {reason}", "write one complete JSON value per row")
    if (found := _beyond_range(value)) is not None:
        field, digits = found
        shown = digits if len(digits) <= _DIGITS else f"{digits[:_DIGITS]}… ({len(digits):,} characters)"
        where = f"'{field}'" if field else "the row"
        reason = f"{where} is the number {shown}, which no 64-bit float holds"
        return Rejection("number_out_of_range", field, reason, "write it as text, or leave it out")
    if "surrogate" in message:
        reason = "the row holds half of a surrogate pair"
        return Rejection("invalid_unicode", None, reason, "write whole characters")
    return Rejection("broken_json", None, f"not JSON: {message}", "write one complete JSON value per row")


class _ConstantError(ValueError):
    pass


def _no_constant(name: str) -> NoReturn:
    also = ", as a number beyond 64-bit floats is read," if name.endswith("Infinity") else ""
    raise _ConstantError(f"{name}{also} is not a JSON value, write null")


class _Huge(str):
    """Digits of a number beyond 64-bit floats."""

    __slots__ = ()


def _number(digits: str) -> float | _Huge:
    value = float(digits)
    return _Huge(digits) if math.isinf(value) else value


def _beyond_range(value: Any, path: str = "") -> tuple[str | None, str] | None:
    """Where the first number beyond 64-bit floats stands, if there is one, and its digits."""
    if isinstance(value, _Huge):
        return path or None, value
    children: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        children = ((f"{path}.{key}" if path else key, each) for key, each in value.items())
    elif isinstance(value, list):
        children = ((f"{path}[{index}]", each) for index, each in enumerate(value))
    return next((found for place, each in children if (found := _beyond_range(each, place))), None)


def read_array(chunks: Iterator[bytes], limits: Limits) -> Iterator[Batch]:
    """The elements of one JSON array. One batch per chunk; positions are line numbers."""
    return _ArrayReader(chunks, limits).batches()


class _ArrayReader:
    """A window of text over the array, moved on element by element."""

    def __init__(self, chunks: Iterator[bytes], limits: Limits) -> None:
        self.chunks = chunks
        self.limits = limits
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self.scan = json.JSONDecoder(
            parse_constant=_no_constant, parse_float=self._float, parse_int=self._int
        ).raw_decode
        self.infinite = False
        self.window = ""
        self.at = 0
        self.line = 1
        self.exhausted = False
        self.done = False
        self.broken: BrokenStreamError | None = None

    def batches(self) -> Iterator[Batch]:
        self._grow()
        self._move(self.window.index("[") + 1)
        records: list[Record] = []
        size = 0
        while not self.done:
            record = self._next()
            if record is None:
                break
            records.append(record)
            size += len(record.text or "")
            if size >= CHUNK:
                yield Batch(records)
                records, size = [], 0
        yield Batch(records)

    def _next(self) -> Record | None:
        """The next element or fault; None after the array's end."""
        while (at := _SEPARATORS.match(self.window, self.at).end()) == len(self.window):  # type: ignore[union-attr]
            self._move(at)
            if not self._grow():
                return self._unfinished()
        self._move(at)
        if self.window[at] == "]":
            self._move(at + 1)
            return self._after_end()
        wanted = CHUNK
        while True:
            self.infinite = False
            try:
                value, end = self.scan(self.window, self.at)
            except json.JSONDecodeError as error:
                incomplete = error.pos >= len(self.window) - _EDGE or error.msg.startswith("Unterminated")
                if not incomplete:
                    return self._skip(error.pos, error.msg)
                if self.exhausted:
                    return self._unfinished()
            except (_ConstantError, RecursionError) as error:
                return self._skip(self.at + 1, str(error))
            else:
                if end < len(self.window) or self.exhausted:
                    return self._element(value, end)
            if len(self.window) - self.at > self.limits.max_row_bytes:
                return self._skip(len(self.window), None)
            self._grow(wanted)
            wanted *= 2  # doubling keeps the work on one long element linear

    def _element(self, value: Any, end: int) -> Record:
        shown, line = self.window[self.at : end], self.line
        self._move(end)
        if "\n" in shown or "\r" in shown:
            shown = "".join([part.strip() for part in shown.replace("\r", "\n").split("\n")])
        try:
            text = shown.encode()
        except UnicodeEncodeError:
            text = shown.encode(errors="surrogateescape")
            return Record.faulty(line, diagnose(text, ""), _show(text))
        if len(text) > self.limits.max_row_bytes:
            return Record.faulty(line, too_large(len(text), self.limits), _show(text))
        if self.infinite or "\\ud" in shown or "\\uD" in shown:
            try:  # the scanner lets infinite numbers and half a surrogate pair pass, orjson does not
                orjson.loads(text)
            except orjson.JSONDecodeError as error:
                return Record.faulty(line, diagnose(text, error.msg), _show(text))
        return Record(line, value, text)

    def _float(self, digits: str) -> float:
        value = float(digits)
        self.infinite = self.infinite or math.isinf(value)
        return value

    def _int(self, digits: str) -> int:
        if len(digits) > _MANY_DIGITS and math.isinf(float(digits)):
            self.infinite = True
            return 0
        return int(digits)

    def _skip(self, error_at: int, message: str | None) -> Record:
        """Give up the element at hand and move to the next; `message` None means that it is too large."""
        line, start = self.line, self.at
        excerpt = self._excerpt()
        key = _FIRST_KEY.match(self.window, start)
        following = re.compile(r"\{\s*" + re.escape(key[1]) + r"\s*:" if key else r"\{")
        margin = 2 * len(key[0]) if key else 1
        size = self._move(max(error_at, start + 1))
        while (found := following.search(self.window, self.at)) is None:
            size += self._move(max(self.at, len(self.window) - margin))
            if not self._grow():
                size += self._move(len(self.window))
                self.done = self.broken is None
                break
        else:
            size += self._move(found.start())
        if message is None:
            return Record.faulty(line, too_large(size, self.limits), excerpt)
        remedy = "repair the element; the rows after it were read" if found else "repair the file"
        return Record.faulty(line, Rejection("broken_json", None, f"not JSON: {message}", remedy), excerpt)

    def _unfinished(self) -> Record:
        """The text ended inside the array."""
        self.done = True
        reason = str(self.broken or "the file ends before the array's closing bracket")
        return Record.faulty(self.line, truncated(reason), self._excerpt() or None)

    def _after_end(self) -> Record | None:
        self.done = True
        while (at := _BLANKS.match(self.window, self.at).end()) == len(self.window):  # type: ignore[union-attr]
            self._move(at)
            if not self._grow():
                return None if self.broken is None else self._unfinished()
        self._move(at)
        reason = "there is more text after the array's end"
        fault = Rejection("broken_json", None, reason, "write one array per file, or one row per line")
        return Record.faulty(self.line, fault, self._excerpt())

    def _grow(self, size: int = 1) -> bool:
        """Read on by at least `size` characters, dropping what lies behind; False at the end."""
        parts, got = [self.window[self.at :]], 0
        while got < size and not self.exhausted:
            try:
                chunk = next(self.chunks, None)
            except BrokenStreamError as error:
                self.broken, chunk = error, None
            self.exhausted = chunk is None
            text = self.decoder.decode(chunk or b"", final=chunk is None)
            parts.append(text)
            got += len(text)
        self.window, self.at = "".join(parts), 0
        return got > 0

    def _excerpt(self) -> str:
        return _printable(self.window[self.at : self.at + _EXCERPT])

    def _move(self, to: int) -> int:
        """Step forward, counting lines; the number of characters passed."""
        passed = to - self.at
        self.line += self.window.count("\n", self.at, to)
        self.at = to
        return passed


def _show(line: bytes) -> str:
    return line[:_EXCERPT].decode(errors="replace")


def _printable(text: str) -> str:
    return text.encode(errors="surrogateescape").decode(errors="replace")
