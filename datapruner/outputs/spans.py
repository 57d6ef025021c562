"""A mask from one tokenizer's tokens to another's, by the characters that both cover.

Notable choices:
- a turn that both cut in the same places is carried token by token, so that the same tokenizer gives the same
  mask: tokens of a byte-level tokenizer may be parts of one character, which characters cannot tell apart;
- characters that the first tokenizer did not read (a template trimmed them) have no say;
- a token with no character that was read (an end of turn, a template's words) is as those are that the other
  has in its place; where it has none, as the text beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Ints = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Spans:
    """Which characters of its turn each of T tokens covers, as in `scorers.conversations.chat.Encoded`.

    turn, start, end: (T,) ints, turns ascending. is_end: (T,) whether the token closes its turn.
    """

    turn: Ints
    start: Ints
    end: Ints
    is_end: Bools

    def __len__(self) -> int:
        return len(self.turn)

    def part(self, chosen: slice) -> Spans:
        return Spans(self.turn[chosen], self.start[chosen], self.end[chosen], self.is_end[chosen])

    def begins_with(self, other: Spans) -> bool:
        """Whether the first tokens are those of `other`."""
        first = self.part(slice(len(other)))
        return len(self) >= len(other) and all(
            np.array_equal(getattr(first, name), getattr(other, name)) for name in self.__slots__
        )

    def turns(self) -> dict[int, tuple[int, int]]:
        """Of each turn, its first token and the one behind its last."""
        borders = np.flatnonzero(np.diff(self.turn)) + 1
        bounds = [0, *borders.tolist(), len(self)]
        return {int(self.turn[begin]): (begin, stop) for begin, stop in pairwise(bounds) if begin < stop}


def carried(
    read: Spans, kept: Bools, wanted: Spans, *, any_character: bool = False, cut: bool = False
) -> tuple[Bools, int]:
    """Which of the W tokens of `wanted` to train on, given which of those that were `read` are kept, (R,);
    and how many of them stand on a border, with characters of both kinds.

    A token is trained on when all of its characters are, or with `any_character` one; and a character when
    all tokens that have a part of it are kept, or one. `cut`: what was read ends where the proxy's limit is.
    Then the result, (T,) with T <= W, ends there too.
    """
    if cut:
        wanted = _as_far(read, wanted)
    trained = np.zeros(len(wanted), np.bool_)
    on_border = 0
    known = read.turns()
    for turn, (begin, stop) in wanted.turns().items():
        if turn not in known:
            continue
        first, last = known[turn]
        theirs, ours = read.part(slice(first, last)), wanted.part(slice(begin, stop))
        if len(theirs) == len(ours) and ours.begins_with(theirs):
            trained[begin:stop] = kept[first:last]
        else:
            found, border = _by_characters(theirs, kept[first:last], ours, any_character)
            trained[begin:stop] = found
            on_border += int(border.sum())
    return trained, on_border


def _as_far(read: Spans, wanted: Spans) -> Spans:
    """The wanted tokens up to where reading stopped."""
    if not len(read):
        return wanted.part(slice(0))
    turn, end, is_end = int(read.turn[-1]), int(read.end[-1]), bool(read.is_end[-1])
    here = (wanted.end < end) | ((wanted.end == end) & (wanted.is_end <= is_end))
    stop = int(((wanted.turn < turn) | ((wanted.turn == turn) & here)).sum())
    (begin, _), (first, _) = read.turns()[turn], wanted.turns().get(turn, (0, 0))
    last = read.part(slice(begin, None))
    if first < stop and wanted.part(slice(first, None)).begins_with(last):
        stop = first + len(last)  # of the last character, only some parts may have been read
    return wanted.part(slice(stop))


def _by_characters(read: Spans, kept: Bools, wanted: Spans, any_character: bool) -> tuple[Bools, Bools]:
    size = int(max(read.end.max(), wanted.end.max()))
    covering, keeping = _tokens_at(read, size), _tokens_at(read, size, kept)
    is_read = covering > 0
    is_trained = keeping > 0 if any_character else is_read & (keeping == covering)
    n_read, n_trained = (np.concatenate([[0], np.cumsum(each)]) for each in (is_read, is_trained))
    seen = n_read[wanted.end] - n_read[wanted.start]
    on = n_trained[wanted.end] - n_trained[wanted.start]
    found = (on > 0) if any_character else (on == seen)
    border = (on > 0) & (on < seen)
    places = np.flatnonzero(is_read)
    textless: dict[tuple[int, bool], bool] = {}
    for at in np.flatnonzero(seen == 0).tolist():
        place = int(wanted.start[at]), bool(wanted.is_end[at])
        if place not in textless:
            there = (read.start == place[0]) & (read.end == place[0]) & (read.is_end == place[1])
            if there.any():
                textless[place] = _one_of(kept[there], any_character)
            elif len(places):
                before = int(n_read[place[0]]) - 1
                textless[place] = bool(is_trained[places[max(before, 0)]])
            else:
                textless[place] = _one_of(kept, any_character)
        found[at] = textless[place]
    return found, border


def _one_of(kept: Bools, any_character: bool) -> bool:
    return bool(kept.any() if any_character else kept.all())


def _tokens_at(spans: Spans, size: int, chosen: Bools | None = None) -> Ints:
    """(size,) how many of the tokens, or of the chosen ones, cover each character."""
    starts, ends = spans.start, spans.end
    if chosen is not None:
        starts, ends = starts[chosen], ends[chosen]
    change = np.bincount(starts, minlength=size + 1) - np.bincount(ends, minlength=size + 1)
    covering: Ints = np.cumsum(change)[:size]
    return covering
