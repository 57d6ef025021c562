"""How values are shown to people on a page: texts of rows that cannot steer it, numbers, shares, moments; and
the templates that show them."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

# Control characters but line breaks and tabs, and those of bidirectional text.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """A text as a page shows it: characters that steer are replaced by their numbers."""
    return _STEERING.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)


def number(value: float | None) -> str:
    """A number as people read it."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    return f"{value:,.0f}" if 1e4 <= size < 1e9 else f"{value:,.4g}"


def share(part: float | None, whole: float) -> str:
    """`part` of `whole` in per cent."""
    return f"{100 * part / whole:.1f} %" if whole and part is not None else "–"


def moment(value: datetime | None) -> str:
    """A time in UTC, to the minute."""
    return "–" if value is None else f"{value:%Y-%m-%d %H:%M} UTC"


def templates(folder: Path) -> Environment:
    """The templates of pages in a folder: they escape what is given, and have these as filters."""
    made = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"shown": plain, "number": number, "share": share, "moment": moment}
    return made
