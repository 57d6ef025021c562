"""What a rewriter gives back for one row, whatever the method: a status, the text, and what was removed.

Notable choices:
- every row that came to be rewritten has one of four statuses: one whose rewriting failed is in the table;
- spans are offsets of characters into the reasoning as it was found, never into the new text, so that they
  can be shown, checked and undone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Status = Literal["rewritten", "original", "dropped", "error"]
STATUSES: tuple[Status, ...] = get_args(Status)
"""rewritten: `text` is new. original: kept as it was (no reasoning in it, nothing to remove, or no rewrite
was acceptable and that is the setting). dropped: no rewrite was acceptable, and that is the setting.
error: it could not be rewritten (not measured, or the teacher failed)."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a chain of thought: its characters [start, end) in the reasoning as found.

    surprisal: what it was scored by, nats (`scorers.reasoning.asap`), by default -ln p of its first token;
    None where nothing measured it. why: in words, for people.
    """

    start: int
    end: int
    surprisal: float | None
    kept: bool
    why: str


@dataclass(frozen=True, slots=True)
class Flaws:
    """What is wrong with a rewritten text (`datapruner.rewriting.checks`). references: to what is gone.
    colons: that announce what is gone. blocks: marks of fences and mathematics without their counterpart."""

    references: int
    colons: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What became of one row.

    text: the response to train on; the original one for status "original", None unless status is
    "rewritten" or "original". reason: why this status, a short phrase that repeats from row to row.
    level: difficulty as judged ("easy", "medium", "hard"), None for methods that judge none.
    removed: character spans [start, end) of the reasoning that are not in `text`, ascending; empty where the
    text is new. steps: of the reasoning, in order; empty for methods that know none. budget: tokens that the
    reasoning may have, None for methods without one. tokens_before and tokens_after: of the reasoning,
    counted by the proxy's or the teacher's tokenizer; None if not known. flaws: of a text that
    was rewritten and checked.
    """

    status: Status
    text: str | None
    reason: str
    level: str | None = None
    removed: tuple[tuple[int, int], ...] = ()
    steps: tuple[Step, ...] = ()
    budget: int | None = None
    tokens_before: int | None = None
    tokens_after: int | None = None
    flaws: Flaws | None = None

    def __post_init__(self) -> None:
        assert self.status in STATUSES, f"no such status: {self.status}"
        assert (self.text is not None) == (self.status in ("rewritten", "original")), (
            f"a row that is {self.status} has {'a' if self.text is not None else 'no'} text"
        )
