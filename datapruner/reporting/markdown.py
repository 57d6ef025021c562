"""Texts as Markdown that says them and does nothing: no markup, no HTML, no links of theirs."""

from __future__ import annotations

import re

from datapruner.shown import plain

# Punctuation that Markdown reads, a hyphen where it could begin a list or a line, the dot that makes a link.
_MARKUP = re.compile(r"[!#$&()*+<=>@\[\\\]^_`{|}~]|:(?! |$)|(?<![^ ])-|(?<=www)\.", re.IGNORECASE)
_NUMBERED = re.compile(r"^(\d+)\.(?= |$)")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "@": "&#64;"}
_TICKS = re.compile("`+")
_LONGEST = 400


def text(value: object, longest: int = _LONGEST) -> str:
    """A value as words in a line, in a cell of a table as well; what is too long is cut."""
    said = " ".join(plain(str(value)).split())
    said = said if len(said) <= longest else f"{said[: longest - 1]}…"
    said = _MARKUP.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), said)
    return _NUMBERED.sub(r"\1\\.", said)


def block(code: str) -> str:
    """One line of code as a block, which no text in it can end."""
    line = " ".join(plain(code).split())
    longest = max(map(len, _TICKS.findall(line)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{line}\n{fence}"
