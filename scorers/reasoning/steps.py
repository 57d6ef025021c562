"""A chain of thought cut into steps at its blank lines, with exact character spans, and put together again.

Notable choices:
- a step's span is its lines without the line break that ends them; blank lines belong to no step, so a text
  is steps and gaps, and every character of it is in one of them;
- a line of nothing but whitespace is blank, and lines end at line feeds only: a form feed or a Unicode line
  separator inside a step does not cut it;
- a removed step takes the gap behind it along, the last steps the gap before them: what is left reads as if
  the step had never been written.
"""

from __future__ import annotations

from collections.abc import Sequence

Span = tuple[int, int]


def split_steps(text: str) -> list[Span]:
    """Character spans [start, end) of the steps of `text`, in order; none in a blank text. O(length)."""
    steps: list[Span] = []
    start: int | None = None
    at = end = 0
    for line in text.split("\n"):
        if line.strip():
            start = at if start is None else start
            end = at + len(line.rstrip("\r"))
        elif start is not None:
            steps.append((start, end))
            start = None
        at += len(line) + 1
    return steps if start is None else [*steps, (start, end)]


def removed_spans(steps: Sequence[Span], keep: Sequence[bool]) -> list[Span]:
    """The character spans to cut out so that only the kept steps are left: ascending and apart.

    Text before the first step and behind the last one stays. With no step kept, all of them and the gaps
    between them go.
    """
    spans: list[Span] = []
    last = len(steps) - 1
    first_kept = next((index for index, kept in enumerate(keep) if kept), None)
    index = 0
    while index <= last:
        if keep[index]:
            index += 1
            continue
        begin = index
        while index <= last and not keep[index]:
            index += 1
        if index <= last:
            spans.append((steps[begin][0], steps[index][0]))
        else:
            start = steps[begin][0] if first_kept is None else steps[begin - 1][1]
            spans.append((start, steps[last][1]))
    return spans


def without(text: str, spans: Sequence[Span]) -> str:
    """`text` without these character spans, which are ascending and apart."""
    kept: list[str] = []
    at = 0
    for start, end in spans:
        kept.append(text[at:start])
        at = end
    return "".join([*kept, text[at:]])
