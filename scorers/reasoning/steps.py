"""A chain of thought cut into steps at its blank lines, with exact character spans, and put together again.

Notable choices:
- what belongs together is one step, blank lines within it or not: fenced code, displayed mathematics, the
  parts of code without fences, the rows of a table. Where the paragraph before such a block, or before a
  list, ends on a colon, it announces the block, and both are one step;
- a list that nothing announces is cut between its items where blank lines are; what is indented below an item
  belongs to it;
- a fence closes as CommonMark has it (the same mark, as long or longer, nothing behind it), however far it is
  indented. What opens and never closes opens nothing: one stray mark must not make one step of all the rest;
- a step's span is its lines without the line break that ends them; blank lines between steps belong to no
  step, so a text is steps and gaps, and every character of it is in one of them;
- a line of nothing but whitespace is blank, and lines end at line feeds only: a form feed or a Unicode line
  separator inside a step does not cut it;
- whether a paragraph goes on a step depends on that step and itself alone, so a step cut again is one step;
- a removed step takes the gap behind it along, the last steps the gap before them: what is left reads as if
  the step had never been written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scorers.reasoning.blocks import Block, announces, block_ends, kind_of

Span = tuple[int, int]

_INSIDE_ITEM = 2  # blanks before what belongs to the item of a list above it


def split_steps(text: str) -> list[Span]:
    """Character spans [start, end) of the steps of `text`, in order; none in a blank text. O(length)."""
    steps: list[Span] = []
    step: _Paragraph | None = None
    for paragraph in _paragraphs(text):
        joined = None if step is None else _joined(step, paragraph)
        if step is not None and joined is None:
            steps.append((step.start, step.end))
        step = paragraph if joined is None else joined
    return steps if step is None else [*steps, (step.start, step.end)]


@dataclass(frozen=True, slots=True)
class _Paragraph:
    """Lines without a blank one among them but inside of blocks, or several such that are one step.

    head, tail: what its first and its last line are part of. indent: blanks before its first character.
    listing: it ends with a list that it introduced. announces: it ends on a colon.
    """

    start: int
    end: int
    head: Block
    tail: Block
    indent: int
    listing: bool
    announces: bool


def _joined(step: _Paragraph, following: _Paragraph) -> _Paragraph | None:
    """Both as one, None where the second begins a step of its own."""
    inside = step.tail == "list" and following.indent >= _INSIDE_ITEM
    item = following.head == "list" and step.listing
    announced = step.announces and following.head != "text"
    more = following.head == step.tail and step.tail in ("code", "table")
    if not (inside or item or announced or more):
        return None
    return _Paragraph(
        step.start,
        following.end,
        step.head,
        "list" if inside else following.tail,
        step.indent,
        step.listing or following.listing or (announced and following.head == "list"),
        following.announces,
    )


def _paragraphs(text: str) -> Iterator[_Paragraph]:
    lines = text.split("\n")
    ends = block_ends(lines)
    at = number = 0
    while number < len(lines):
        if not lines[number].strip():
            at += len(lines[number]) + 1
            number += 1
            continue
        start, first = at, number
        head = kind_of(lines, number, ends)
        tail, listing, above = head, False, ""
        while number < len(lines) and lines[number].strip():
            tail = kind_of(lines, number, ends, tail)
            listing = listing or (tail == "list" and announces(above))
            stop = ends.get(number, number)
            at += sum(len(line) + 1 for line in lines[number : stop + 1])
            number, above = stop + 1, lines[stop]
        end = at - 1 - (len(above) - len(above.rstrip("\r")))
        opening = lines[first]
        indent = len(opening.expandtabs(4)) - len(opening.expandtabs(4).lstrip())
        yield _Paragraph(start, end, head, tail, indent, listing, announces(above))


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
