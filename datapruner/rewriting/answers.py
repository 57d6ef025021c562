"""The final answer of a solution, and whether two final answers are the same.

Notable choices:
- mathematics is compared as mathematics (`0.5` equals `\\frac12`), everything else by its letters;
- words are never handed to the algebra system: it reads them as products of letters, and "listen" would equal
  "silent". What holds no digit, operator or TeX command is words;
- signs, decimal points and digits always count: normalising strips only what stands around an answer.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

from datapruner.rewriting.math_judge import MathJudge

#: A whole text of at most so many characters, on one line, may be an answer by itself.
_SHORT = 100
#: A line longer than this is an explanation, whatever its first words are.
_LONGEST = 500

#: Boxes without an end that are passed over, from the last one backwards.
_TRIED = 20

_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_SAID = re.compile(
    r"(?:^|\n)[ \t>#*_]*(?:the[ \t]+)?(?:final[ \t]+)?answer(?:[ \t]+is)?[ \t*_]*[:=](?P<colon>[^\n]+)"
    r"|(?:^|\s)(?:final[ \t]+)?answer[ \t]+is[ \t]*:?[ \t]+(?P<prose>[^\n]+?)(?=\.\s|\n|$)"
    r"|(?:^|\n)####[ \t]*(?P<gsm>[^\n]+)",
    re.IGNORECASE,
)
_BEFORE = " \t\r\n*_`\"'“”‘’«»"
_AFTER = _BEFORE + ".,;:"  # not "!", and no "." before: 10! is not 10, .5 is not 5
_MATHEMATICS = re.compile(r"[0-9\\^=+*/<>|π√∞∪∩≤≥±×÷]")
_NUMBER = re.compile(r"-?(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)(?:\.[0-9]+)?")
_CHOICE = re.compile(r"\(([a-z])\)")  # of a multiple choice: (B) is B


def final_answer(text: str) -> str | None:
    """The answer that a solution ends on: its last `\\boxed{}`, else what follows its last "answer is",
    "Answer:" or "####", else the text itself where that is one short line. None where there is none."""
    if _BOXED.search(text) or _SAID.search(text):
        return stated_answer(text)
    return _line(text, _SHORT)


def stated_answer(text: str) -> str | None:
    """The answer that a solution states as such: `final_answer`, but that no text is one by being short."""
    if _BOXED.search(text):
        return _last_boxed(text)
    said = [match[str(match.lastgroup)] for match in _SAID.finditer(text)]
    return _line(said[-1], _LONGEST) if said else None


def _line(text: str, limit: int) -> str | None:
    found = text.lstrip(_BEFORE).rstrip(_AFTER)
    return found if found and len(found) <= limit and "\n" not in found else None


def _last_boxed(text: str) -> str | None:
    starts = [match.end() for match in _BOXED.finditer(text)]
    for start in reversed(starts[-_TRIED:]):
        depth = 1
        for position in range(start, min(len(text), start + _LONGEST)):
            if text[position] in "{}" and text[position - 1] != "\\":
                depth += 1 if text[position] == "{" else -1
            if depth == 0:
                return text[start:position].strip() or None
    return None


class AnswerCheck:
    """Compares final answers, with a process at hand for mathematics. Safe to share between threads."""

    def __init__(self, judge: MathJudge) -> None:
        self._judge = judge

    def same(self, reference: str, candidate: str) -> bool:
        """Whether `candidate` says what `reference` says. Raises WorkerError as the judge does."""
        left, right = normalised(reference), normalised(candidate)
        if left == right:
            return bool(left)
        if _NUMBER.fullmatch(left) and _NUMBER.fullmatch(right):  # most answers: no need to ask
            return Decimal(left.replace(",", "")) == Decimal(right.replace(",", ""))
        if not all(_MATHEMATICS.search(text) and _balanced(text) for text in (reference, candidate)):
            return False
        return self._judge.equal(_bare(reference), _bare(candidate))


def normalised(answer: str) -> str:
    """An answer without case, without what stands around it, and with single blanks."""
    text = unicodedata.normalize("NFC", answer).casefold().lstrip(_BEFORE).rstrip(_AFTER)
    text = " ".join(_bare(text).split())
    choice = _CHOICE.fullmatch(text)
    return choice[1] if choice else text


def _bare(answer: str) -> str:
    """Without the marks that say "this is mathematics"."""
    text = answer.strip()
    for start, end in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if text.startswith(start) and text.endswith(end) and len(text) >= len(start) + len(end):
            return text[len(start) : len(text) - len(end)].strip()
    return text


def _balanced(text: str) -> bool:
    """Whether no brace of it could close the `\\boxed{}` that it is put in."""
    depth = 0
    for before, char in zip(" " + text, text, strict=False):
        if char in "{}" and before != "\\":
            depth += 1 if char == "{" else -1
        if depth < 0:
            return False
    return depth == 0
