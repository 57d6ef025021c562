"""A row from Python as the JSON text that it is kept as.

Bytes become base64; dates, decimals, numpy scalars and what else JSON has no form for become their text.
Whole numbers keep all digits, and NaN and infinity stay: a corpus has words for them.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from datapruner.input.readers.records import Record
from datapruner.input.shapes import Limits, Rejection, too_large

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def read_row(position: int, row: Any, limits: Limits) -> Record:
    """The row, or why it cannot be kept."""
    if not isinstance(row, Mapping):
        return Record(position, row)
    try:
        text = _text(row)
    except (TypeError, ValueError, RecursionError) as error:
        code = "invalid_unicode" if "surrogate" in str(error) else "wrong_type"
        fault = Rejection(code, None, f"the row cannot be written as JSON: {error}", "use plain JSON values")
        return Record.faulty(position, fault, repr(row)[:200])
    if len(text) > limits.max_row_bytes:
        return Record.faulty(position, too_large(len(text), limits))
    return Record(position, dict(row), text)


def _text(row: Mapping[Any, Any]) -> bytes:
    try:
        text = orjson.dumps(row, default=_plain, option=_OPTIONS)
    except orjson.JSONEncodeError as error:
        if "64-bit" not in str(error):
            raise
    else:
        if b"null" not in text or not _not_finite(row):  # of which orjson makes null
            return text
    return json.dumps(row, default=_plain, ensure_ascii=False, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
        return value.tolist()
    return str(value)


def _not_finite(value: Any) -> bool:
    """Whether there is a NaN or an infinity in a value."""
    if isinstance(value, Mapping):
        return any(map(_not_finite, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_not_finite, value))
    if isinstance(value, np.ndarray):
        return value.dtype.kind == "f" and not bool(np.isfinite(value).all())
    return isinstance(value, float | np.floating) and not math.isfinite(value)
