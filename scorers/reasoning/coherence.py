"""What steps of a chain of thought need of each other, and what is left hanging where one is gone.

- A step that ends on a colon announces the one behind it.
- A step refers back by number: "as in step 2", "equation (3)", "case 1". Meant is the last step before it
  with a line that begins so (or with the number as a list does), and of equations one with `\\tag{3}` or
  with (3) at the end of a line.
- A step refers back by place: "the approximation above", "the previous result", "as above". Meant is the
  nearest step before it with that word; of equations, code, tables and lists the nearest one with such a
  block; else, and without a word, the step right before it.

Notable choices:
- such words are those that speak of a text (`result`, `equation`, `case`, ...): the previous year and what
  lies above zero are none. What is referred to in other words is not seen;
- a number that no step before begins with refers to something else, such as the problem, and is none either.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from scorers.reasoning.blocks import announces
from scorers.signals.columns import Bools

_WORDS = (
    "analysis|answer|approach|approximation|argument|assumption|bound|calculation|case|claim|code|computation|"
    "conclusion|condition|constraint|definition|derivation|equation|estimate|example|expression|fact|formula|"
    "function|idea|identity|implementation|inequality|lemma|list|logic|method|observation|point|problem|proof|"
    "reasoning|relation|result|scenario|snippet|solution|statement|step|substitution|sum|table|theorem"
)
_BACK = re.compile(
    rf"\b(?:above|previous|preceding|earlier|foregoing|prior)\s+(?P<after>{_WORDS})(?:s|es)?\b"
    rf"|\b(?P<before>{_WORDS})(?:s|es)?\s+(?:from\s+)?above\b"
    r"|\b(?:the|as|from|see|shown|given|derived|mentioned|noted|found)\s+above\b(?!\s+\w)",
    re.IGNORECASE,
)
_LABELS = r"step|case|equation|eqn?\.?|approach|method|option|part|lemma|claim|condition|example"
_NUMBERED = re.compile(rf"\b(?P<word>{_LABELS})s?\s*\(?(?P<number>[0-9]{{1,3}})\b\)?", re.IGNORECASE)
_BEGINS = re.compile(
    rf"^[ \t>#*_-]*(?:(?P<word>{_LABELS})\s*\(?(?P<number>[0-9]{{1,3}})\b|(?P<item>[0-9]{{1,3}})[.)]\s)",
    re.IGNORECASE | re.MULTILINE,
)
_TAG = re.compile(r"\\tag\{([0-9]{1,3})\}|\(([0-9]{1,3})\)[ \t]*\r?$", re.MULTILINE)
_BLOCKS = {
    "equation": re.compile(r"\\\[|\$\$|\\begin\{|=(?!=)"),
    "code": re.compile(r"^\s*(?:```|~~~|def |class |import |from \w+ import )", re.MULTILINE),
    "table": re.compile(r"^\s*\|?[ \t]*:?-{2,}:?[ \t]*\|", re.MULTILINE),
    "list": re.compile(r"^\s*(?:[-*+•]|[0-9]{1,3}[.)])\s", re.MULTILINE),
}
_ALSO = {
    **dict.fromkeys(("formula", "expression", "inequality", "identity", "relation", "sum"), "equation"),
    **dict.fromkeys(("function", "implementation", "snippet"), "code"),
}

Label = tuple[str, int]


def references(steps: Sequence[str]) -> list[set[int]]:
    """By step the earlier ones that it refers to."""
    defined: dict[Label, int] = {}
    last_with: dict[str, int] = {}
    found: list[set[int]] = []
    for number, step in enumerate(steps):
        own = labels(step)
        meant = {defined[label] for label in mentioned(step) - own if label in defined}
        if number:
            for match in _BACK.finditer(step):
                word = (match["after"] or match["before"] or "").lower()
                meant.add(last_with.get(word, last_with.get(_ALSO.get(word, ""), number - 1)))
        found.append(meant)
        defined |= dict.fromkeys(own, number)
        last_with |= dict.fromkeys(_spoken(step), number)
        last_with |= {kind: number for kind, block in _BLOCKS.items() if block.search(step)}
    return found


def labels(step: str) -> set[Label]:
    """The numbers that a step's lines begin with, and those of its equations."""
    found = {
        (_name(match["word"] or "step"), int(match["number"] or match["item"]))
        for match in _BEGINS.finditer(step)
    }
    return found | {("equation", int(tag or end)) for tag, end in _TAG.findall(step)}


def mentioned(step: str) -> set[Label]:
    """The numbers that a step speaks of."""
    return {(_name(match["word"]), int(match["number"])) for match in _NUMBERED.finditer(step)}


def needs(steps: Sequence[str]) -> dict[int, set[int]]:
    """By step those that it makes no sense without: what it announces, and what it refers to."""
    found = dict(enumerate(references(steps)))
    for number, step in enumerate(steps[:-1]):
        if announces(step):
            found[number].add(number + 1)
    return {number: others for number, others in found.items() if others}


def hanging(steps: Sequence[str], keep: Bools) -> dict[int, tuple[bool, set[int]]]:
    """By kept step that hangs: whether what it announces is gone, and what it refers to and is gone."""
    found: dict[int, tuple[bool, set[int]]] = {}
    for number, others in needs(steps).items():
        gone = {other for other in others if not keep[other]}
        if keep[number] and gone:
            found[number] = number + 1 in gone, gone - {number + 1}
    return found


_SPOKEN = re.compile(rf"\b({_WORDS})(?:s|es)?\b", re.IGNORECASE)


def _spoken(step: str) -> set[str]:
    return {word.lower() for word in _SPOKEN.findall(step)}


def _name(word: str) -> str:
    name = word.lower().rstrip(".")
    return "equation" if name.startswith("eq") else name
