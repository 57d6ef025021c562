"""A mask from one tokenizer's tokens to another's, by the characters that both cover.

Notable choices:
- a turn that both cut in the same places is carried token by token, so that the same tokenizer gives the same
  mask: tokens of a byte-level tokenizer may be parts of one character, which characters cannot tell apart;
- characters that the first tokenizer did not read (a template trimmed them) have no say;
- a token's weight is the mean of those of its kept characters, and a character's that of the kept tokens that
  have a part of it; a token without characters has the mean of those in its place, or else of its turn;
- text that is in no turn's content (an end of turn, a tool call, a template's words) is as what the first has
  in its place, letter by letter where only some of that is kept and the letters are known, else as one; where
  the first has nothing there, it goes with the text beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
Ints = NDArray[np.integer]

_MANY = 1_000_000
"""Pairs of tokens above which their letters are not compared, which takes as long."""


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

    def at(self, place: int, is_end: bool) -> Ints:
        """Which tokens have no character, and stand there."""
        return np.flatnonzero((self.start == place) & (self.end == place) & (self.is_end == is_end))

    def turns(self) -> dict[int, tuple[int, int]]:
        """Of each turn, its first token and the one behind its last."""
        borders = np.flatnonzero(np.diff(self.turn)) + 1
        bounds = [0, *borders.tolist(), len(self)]
        return {int(self.turn[begin]): (begin, stop) for begin, stop in pairwise(bounds) if begin < stop}


@dataclass(frozen=True, slots=True)
class Written:
    """What neighbouring tokens write: the text, and where in it each of them ends, (T,)."""

    text: str
    ends: Ints

    @property
    def starts(self) -> Ints:
        return np.concatenate([[0], self.ends[:-1]])


Write = Callable[[Ints], Written]
"""What some tokens write, by their numbers among those of a row's responses."""


def carried(
    read: Spans,
    kept: Bools,
    wanted: Spans,
    *,
    any_character: bool = False,
    cut: bool = False,
    write: tuple[Write, Write] | None = None,
) -> tuple[Bools, int]:
    """Which of the W tokens of `wanted` to train on, given which of those that were `read` are kept, (R,);
    and how many of them stand on a border, with characters of both kinds.

    A token is trained on when all of its characters are, or with `any_character` one; and a character when
    all tokens that have a part of it are kept, or one. `cut`: what was read ends where the proxy's limit is.
    Then the result, (T,) with T <= W, ends there too. `write`: what tokens of `read` and of `wanted` write.
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
            if write is not None:
                for there, here in _torn(theirs, kept[first:last], ours):
                    texts = write[0](there + first), write[1](here + begin)
                    found[here], border[here] = _by_letters(*texts, kept[first + there], any_character)
            trained[begin:stop] = found
            on_border += int(border.sum())
    return trained, on_border


def carried_weights(read: Spans, kept: Bools, weights: Floats, wanted: Spans) -> Floats:
    """Weights of the W tokens of `wanted`, (W,), given those of the ones that were read and kept, both (R,).

    They mean something for tokens that `carried` trains on.
    """
    found = np.zeros(len(wanted), np.float32)
    known = read.turns()
    for turn, (begin, stop) in wanted.turns().items():
        if turn not in known:
            continue
        first, last = known[turn]
        theirs, ours = read.part(slice(first, last)), wanted.part(slice(begin, stop))
        if len(ours) <= len(theirs) and theirs.begins_with(ours):
            found[begin:stop] = weights[first : first + len(ours)]
        elif kept[first:last].any():
            found[begin:stop] = _mean_weights(theirs, kept[first:last], weights[first:last], ours)
    return found


def _mean_weights(read: Spans, kept: Bools, weights: Floats, wanted: Spans) -> Floats:
    """`carried_weights` of one turn, of which some token is kept."""
    size = int(max(read.end.max(), wanted.end.max()))
    starts, ends = read.start[kept], read.end[kept]
    change = np.bincount(starts, weights[kept], size + 1) - np.bincount(ends, weights[kept], size + 1)
    keeping = _tokens_at(starts, ends, size)
    of_character = np.where(keeping > 0, np.cumsum(change)[:size] / np.maximum(keeping, 1), 0.0)
    total, number = (np.concatenate([[0], np.cumsum(each)]) for each in (of_character, keeping > 0))
    count = number[wanted.end] - number[wanted.start]
    found = (total[wanted.end] - total[wanted.start]) / np.maximum(count, 1)
    others = np.flatnonzero(count == 0)
    for at in others.tolist():
        there = read.at(int(wanted.start[at]), bool(wanted.is_end[at]))
        there = there[kept[there]]
        found[at] = (weights[there] if len(there) else weights[kept]).mean()
    least, most = weights[kept].min(), weights[kept].max()  # which differences of sums may pass by a hair
    clipped: Floats = np.clip(found, least, most).astype(np.float32)
    return clipped


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
    is_read, is_trained = _fates(read.start, read.end, kept, size, any_character)
    found, border, seen = _held(is_read, is_trained, wanted.start, wanted.end, any_character)
    places = np.flatnonzero(is_read)
    textless: dict[tuple[int, bool], bool] = {}
    for at in np.flatnonzero(seen == 0).tolist():
        place = int(wanted.start[at]), bool(wanted.is_end[at])
        if place not in textless:
            there = read.at(*place)
            if len(there):
                textless[place] = _one_of(kept[there], any_character)
            elif len(places):
                before = int(np.searchsorted(places, place[0])) - 1
                textless[place] = bool(is_trained[places[max(before, 0)]])
            else:
                textless[place] = _one_of(kept, any_character)
        found[at] = textless[place]
    return found, border


def _torn(read: Spans, kept: Bools, wanted: Spans) -> Iterator[tuple[Ints, Ints]]:
    """Tokens without characters that stand in the same place and do not close a turn, of both, where only
    some of those that were read are kept."""
    for place in np.unique(wanted.start[(wanted.start == wanted.end) & ~wanted.is_end]).tolist():
        there, here = read.at(place, False), wanted.at(place, False)
        if kept[there].any() and not kept[there].all() and len(there) * len(here) <= _MANY:
            yield there, here


def _by_letters(read: Written, wanted: Written, kept: Bools, any_character: bool) -> tuple[Bools, Bools]:
    """`_by_characters` of tokens of which the texts are known, which need not be equal: letters that only one
    of them has are passed over. Tokens without any that both have are as all of the others."""
    is_read, is_trained = _fates(read.starts, read.ends, kept, len(read.text), any_character)
    seen_here, trained_here = (np.zeros(len(wanted.text), np.bool_) for _ in range(2))
    for there, here, size in SequenceMatcher(
        None, read.text, wanted.text, autojunk=False
    ).get_matching_blocks():
        seen_here[here : here + size] = is_read[there : there + size]
        trained_here[here : here + size] = is_trained[there : there + size]
    found, border, seen = _held(seen_here, trained_here, wanted.starts, wanted.ends, any_character)
    found[seen == 0] = _one_of(kept, any_character)
    return found, border


def _fates(starts: Ints, ends: Ints, kept: Bools, size: int, any_character: bool) -> tuple[Bools, Bools]:
    """Of each of `size` characters: whether a token covers it, and whether it is trained on."""
    covering = _tokens_at(starts, ends, size)
    keeping = _tokens_at(starts[kept], ends[kept], size)
    is_read = covering > 0
    return is_read, keeping > 0 if any_character else is_read & (keeping == covering)


def _held(
    is_read: Bools, is_trained: Bools, starts: Ints, ends: Ints, any_character: bool
) -> tuple[Bools, Bools, Ints]:
    """Of tokens that cover these characters: whether to train on each, whether it stands on a border, and how
    many of its characters were read."""
    n_read, n_trained = (np.concatenate([[0], np.cumsum(each)]) for each in (is_read, is_trained))
    seen, on = n_read[ends] - n_read[starts], n_trained[ends] - n_trained[starts]
    return (on > 0) if any_character else (on == seen), (on > 0) & (on < seen), seen


def _one_of(kept: Bools, any_character: bool) -> bool:
    return bool(kept.any() if any_character else kept.all())


def _tokens_at(starts: Ints, ends: Ints, size: int) -> Ints:
    """(size,) how many of the tokens cover each character."""
    change = np.bincount(starts, minlength=size + 1) - np.bincount(ends, minlength=size + 1)
    covering: Ints = np.cumsum(change)[:size]
    return covering
