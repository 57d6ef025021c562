"""What the lines of a chain of thought are part of: fenced code, displayed mathematics, tables, lists, code.

Notable choices:
- fences, `\\[ \\]`, `$$ $$` and environments are blocks from the line that opens them to the line that closes
  them, whatever is in between. What is never closed is no block, and `\\[` before another `\\[` is not
  closed;
- mathematics is displayed where its mark begins or ends a line; marks amid a line are of the text around it;
- models write code without fences: lines are taken for code by keywords with their punctuation (`def f():`,
  `import re`), and by an indentation of four blanks. A bare `x = 5` is more often mathematics.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

Block = Literal["text", "fence", "mathematics", "table", "list", "code"]

_FENCE = re.compile(r"\s*(?P<mark>`{3,}(?=[^`]*$)|~{3,})(?P<info>.*)", re.DOTALL)
_ITEM = re.compile(r"\s*(?:[-*+•]|\(?(?:[0-9]{1,3}|[a-z])[.)])\s+\S")
_DELIMITER = re.compile(r"\s*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?\s*")
_CODE = re.compile(
    r"(?: {4}|\t)"
    r"|(?:async\s+def|def|class)\s+\w.*:\s*$"
    r"|(?:if|elif|for|while|with|except)\b[^.?!]*[\w)\]]:\s*$|(?:try|else|finally):\s*$"
    r"|import\s+\w+(?:\.\w+)*(?:\s+as\s+\w+|(?:,\s*\w+)+)?;?\s*$|from\s+[\w.]+\s+import\s"
    r"|@\w+(?:\.\w+)*(?:\(.*\))?\s*$|#include\s*[<\"]|(?:const|let|var)\s+\w+\s*="
    r"|(?:public|private|static|function|func|fn)\s.*\{\s*$"
    r"|return\s[^.?!]*[\w)\]}'\"][(.\[][^?!]*\s*$"
)
_BRACKET = re.compile(r"(?<!\\)\\[\[\]]")
_EDGE = re.compile(r"\\(begin|end)\{([A-Za-z]{1,30}\*?)\}")
_MARKUP = " \t\r\n*_"


def announces(text: str) -> bool:
    """Whether a text ends on a colon, so that what it speaks of is still to come."""
    return text.rstrip(_MARKUP).endswith((":", "\N{FULLWIDTH COLON}"))


def block_ends(lines: Sequence[str]) -> dict[int, int]:
    """The last line of each block of several lines, by its first; blocks do not overlap. O(characters)."""
    closers = [_fences(lines), _brackets(lines), _dollars(lines), _environments(lines)]
    ends: dict[int, int] = {}
    number = 0
    while number < len(lines):
        found = (closer(number) for closer in closers)
        end = next((end for end in found if end is not None and end > number), number)
        if end > number:
            ends[number] = end
        number = end + 1
    return ends


def kind_of(lines: Sequence[str], number: int, ends: Mapping[int, int], above: Block = "text") -> Block:
    """What a line is part of; `above`: what the line over it, in the same paragraph, is part of."""
    line = lines[number]
    bare = line.strip()
    if number in ends:
        return "fence" if _FENCE.fullmatch(line) else "mathematics"
    if bare.startswith(("\\[", "$$", "\\begin{")):
        return "mathematics"
    if above == "table" and "|" in bare:
        return "table"
    if bare.startswith("|") or ("|" in bare and _is_delimited(lines, number)):
        return "table"
    if _ITEM.match(line):
        return "list"
    if above == "list":
        return "list"  # the lines of an item
    return "code" if _CODE.match(line) else "text"


def _is_delimited(lines: Sequence[str], number: int) -> bool:
    below = lines[number + 1] if number + 1 < len(lines) else ""
    return "|" in below and _DELIMITER.fullmatch(below) is not None


# Each of these says where the block that a line opens ends, None where it opens none. What came before the
# line never counts. All searches together are linear: one that would fail is not begun, and what one passes
# over is in the block that it found.
_Closer = Callable[[int], int | None]


def _fences(lines: Sequence[str]) -> _Closer:
    marks = [(number, match) for number, line in enumerate(lines) if (match := _FENCE.fullmatch(line))]
    place = {number: index for index, (number, _) in enumerate(marks)}
    longest: dict[int, int] = {}  # by fence: the longest mark behind it that could close one of its kind
    most = {"`": 0, "~": 0}
    for index in reversed(range(len(marks))):
        mark = marks[index][1]["mark"]
        longest[index] = most[mark[0]]
        if not marks[index][1]["info"].strip():
            most[mark[0]] = max(most[mark[0]], len(mark))

    def closer(number: int) -> int | None:
        if number not in place:
            return None
        index = place[number]
        mark = marks[index][1]["mark"]
        if longest[index] < len(mark):
            return None
        while True:
            index += 1
            other = marks[index][1]
            if other["mark"].startswith(mark) and not other["info"].strip():
                return marks[index][0]

    return closer


def _brackets(lines: Sequence[str]) -> _Closer:
    marked = [(number, found) for number, line in enumerate(lines) if (found := _BRACKET.findall(line))]
    place = {number: index for index, (number, _) in enumerate(marked)}

    def closer(number: int) -> int | None:
        if number not in place or not _at_an_edge(lines[number], "\\["):
            return None
        index = place[number]
        while marked[index][1][-1] == "\\[":
            index += 1
            if index == len(marked) or marked[index][1][0] == "\\[":
                return None
        return marked[index][0]

    return closer


def _dollars(lines: Sequence[str]) -> _Closer:
    odd = [number for number, line in enumerate(lines) if line.count("$$") % 2]
    following = dict(pairwise(odd))
    return lambda number: following.get(number) if _at_an_edge(lines[number], "$$") else None


def _environments(lines: Sequence[str]) -> _Closer:
    begun: dict[str, list[int]] = {}
    ends: dict[int, int] = {}
    for number, line in enumerate(lines):
        for edge, name in _EDGE.findall(line):
            if edge == "begin":
                begun.setdefault(name, []).append(number)
            elif begun.get(name):
                ends[begun[name].pop()] = number
    return lambda number: ends.get(number) if lines[number].lstrip().startswith("\\begin{") else None


def _at_an_edge(line: str, mark: str) -> bool:
    bare = line.strip()
    return bare.startswith(mark) or bare.endswith(mark)


def broken_blocks(text: str) -> int:
    """Marks of fences and displayed mathematics in a text that have no counterpart: it does not render."""
    lines = text.split("\n")
    ends = block_ends(lines)
    left: list[str] = []
    number = broken = 0
    while number < len(lines):
        end = ends.get(number, number)
        fence = _FENCE.fullmatch(lines[number]) is not None
        broken += fence and end == number
        left += [] if fence else lines[number : end + 1]
        number = end + 1
    rest = "\n".join(left)
    depth: dict[str, int] = {}
    for edge, name in _EDGE.findall(rest):
        depth[name] = depth.get(name, 0) + (1 if edge == "begin" else -1)
    brackets = _BRACKET.findall(rest)
    unmatched = abs(2 * brackets.count("\\[") - len(brackets))
    return broken + unmatched + rest.count("$$") % 2 + sum(map(abs, depth.values()))
