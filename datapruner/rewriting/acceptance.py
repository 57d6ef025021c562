"""When a rewritten trace is accepted: its form, its level's headings, its final answer, its length.

Checked by code alone: whatever a row or a teacher says about acceptance is text among text.

Notable choices:
- the authors check nothing; the answer check and the order of the checks are ours;
- headings are those of the level, all of them, in order, each with text under it; in a hard rewrite the three
  of a sub-problem come as often as there are sub-problems. Markdown marks around a heading do not matter;
- an answer is the reference's, or it is not: a rewrite whose answer cannot be read is refused;
- a rewrite that holds the marks of reasoning is refused: a reader would take them for its end.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal, get_args

from datapruner.rewriting.answers import AnswerCheck, final_answer
from datapruner.rewriting.reasoning import ReasoningRow

Level = Literal["easy", "medium", "hard"]
LEVELS: tuple[Level, ...] = get_args(Level)

_SUBPROBLEM = ("Initial Approach", "Reflection", "Improved Solution")
HEADINGS: dict[Level, tuple[str, ...]] = {
    "easy": ("Analysis", "Approach", "Summary", "Solution"),
    "medium": ("Analysis", "Initial Approach", "Reflection", "Improvement", "Summary", "Solution"),
    "hard": (
        "Analysis",
        "Problem Decomposition",
        "Sub-problem Processing",
        *_SUBPROBLEM,
        "Integration",
        "Overall Reflection",
        "Final Optimization",
        "Summary",
        "Solution",
    ),
}
"""In order. In hard ones, what follows "Sub-problem Processing" up to "Integration" may come repeatedly."""

_EMPTY_MAY_BE = "Sub-problem Processing"  # its text is under its own headings


class Rejection(StrEnum):
    """Why a rewrite was not accepted, in the words of the report."""

    UNREADABLE = "the teacher's answer is not in the form asked for"
    LEVEL = "no difficulty of easy, medium or hard"
    CUT = "cut off at the length limit"
    MARKUP = "reasoning tags inside the rewrite"
    HEADINGS = "headings do not fit the level"
    NO_ANSWER = "no final answer in the rewrite"
    ANSWER = "the final answer is another"
    LENGTH = "not shorter than the original"


class RejectedRewriteError(Exception):
    """A rewrite was not accepted; `rejection` says why."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection.value)
        self.rejection = rejection


@dataclass(frozen=True, slots=True)
class Trace:
    """An accepted rewrite: the reasoning with its headings, and what stood under Solution."""

    reasoning: str
    solution: str

    def response(self, row: ReasoningRow) -> str:
        """The text to train on, in the form of the row's own response."""
        return replace(row, answer=self.solution).response(self.reasoning)


def parse_level(text: str) -> Level:
    """The level that a teacher named. Raises RejectedRewriteError."""
    word = text.strip().strip("*\"'.").casefold()
    for level in LEVELS:
        if word == level:
            return level
    raise RejectedRewriteError(Rejection.LEVEL)


def accept(
    rewrite: str,
    level: Level,
    row: ReasoningRow,
    reference: str,
    length: Callable[[str], int],
    check: AnswerCheck,
) -> Trace:
    """The rewrite taken apart, if it stands every check; raises RejectedRewriteError with the first it fails.

    reference: the right final answer. length: counts a text's tokens.
    """
    trace = split_solution(rewrite, level)
    if holds_marks(trace.reasoning, row) or "</think>" in trace.solution:
        raise RejectedRewriteError(Rejection.MARKUP)
    answer = final_answer(trace.solution)
    if answer is None:
        raise RejectedRewriteError(Rejection.NO_ANSWER)
    if not check.same(reference, answer):
        raise RejectedRewriteError(Rejection.ANSWER)
    if length(trace.response(row)) >= length(row.response(row.reasoning)):
        raise RejectedRewriteError(Rejection.LENGTH)
    return trace


def holds_marks(reasoning: str, row: ReasoningRow) -> bool:
    """Whether a reader would take something in new reasoning for the beginning or the end of reasoning."""
    closing = row.closing.strip()
    return "<think>" in reasoning or "</think>" in reasoning or bool(closing and closing in reasoning)


def split_solution(rewrite: str, level: Level) -> Trace:
    """A rewrite divided at Solution. Raises RejectedRewriteError when its headings do not fit the level."""
    rewrite = rewrite.strip()
    found = list(_HEADING.finditer(rewrite))
    names = [_NAMES[str(match[str(match.lastgroup)]).casefold()] for match in found]
    if not _ORDER[level].fullmatch("".join(f"{name}\n" for name in names)) or found[0].start() > 0:
        raise RejectedRewriteError(Rejection.HEADINGS)
    ends = [match.start() for match in found[1:]] + [len(rewrite)]
    bodies = [rewrite[match.end() : end].strip() for match, end in zip(found, ends, strict=True)]
    if not all(body or name == _EMPTY_MAY_BE for name, body in zip(names, bodies, strict=True)):
        raise RejectedRewriteError(Rejection.HEADINGS)
    return Trace(rewrite[: found[-1].start()].rstrip(), bodies[-1])


_NAMES = {name.casefold(): name for names in HEADINGS.values() for name in names}
_ANY = "|".join(sorted(map(re.escape, _NAMES), key=len, reverse=True))
_NUMBER = r"(?:\d{1,2}[.)][ \t]*)?"
# "## Analysis", "**1. Analysis:** with text behind it", "Analysis:". A bare word in a sentence is no heading.
_HEADING = re.compile(
    rf"^[ \t]*(?:\#{{1,6}}[ \t]+[*_]{{0,2}}{_NUMBER}(?P<hash>{_ANY})[*_: \t]*$"
    rf"|(?:\*\*|__){_NUMBER}(?P<bold>{_ANY})[ \t]*:?(?:\*\*|__):?"
    rf"|{_NUMBER}(?P<plain>{_ANY})[ \t]*:[ \t]*$)",
    re.IGNORECASE | re.MULTILINE,
)


def _order(level: Level) -> re.Pattern[str]:
    lines = "".join(re.escape(f"{name}\n") for name in HEADINGS[level])
    repeated = "".join(re.escape(f"{name}\n") for name in _SUBPROBLEM)
    return re.compile(lines.replace(repeated, f"(?:{repeated})+") if level == "hard" else lines)


_ORDER = {level: _order(level) for level in LEVELS}
