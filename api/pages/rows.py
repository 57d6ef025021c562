"""A row of a run: the conversation with what became of each token, why, what it is like, and the row as it
came."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from api.dependencies import ServiceDep
from api.pages.rendering import page
from api.pages.visits import PageRoute, Visitor
from datapruner import shown
from datapruner.schemas.neighbours import NearestRows
from datapruner.schemas.runs import ChangeAnswer, PieceAnswer, SampleAnswer, TokenAnswer, TurnAnswer
from datapruner.service import exports, run_pages, runs

router = APIRouter(route_class=PageRoute, include_in_schema=False)
data = APIRouter(include_in_schema=False)
"""What scripts ask for; its errors are documents."""

MOST_TURNS, MOST_CHARACTERS, MOST_TOKENS = 200, 100_000, 20_000
"""Turns that are shown at once, characters of one, and tokens that are coloured."""
_EXPORTS = 5
_SHADES = {"nll": "nll, nats", "entropy": "entropy, nats", "el2n": "el2n", "weight": "weight of the loss"}


@dataclass(frozen=True, slots=True)
class ShownTurn:
    """A turn as far as it is shown: its number, its pieces, and the characters that are left out."""

    number: int
    about: TurnAnswer
    pieces: list[PieceAnswer]
    left_out: int


@router.get("/runs/{run}/rows/{sample}", operation_id="page_row")
def page_row(
    request: Request,
    service: ServiceDep,
    visitor: Visitor,
    run: str,
    sample: str,
    first: Annotated[int, Query(alias="turn", ge=0, lt=2**31)] = 0,
) -> HTMLResponse:
    """Everything that is known of a row; of its turns those from the number `turn` on."""
    found = runs.explain(service, visitor.caller, run, sample)
    turns = range(len(found.turns))[first : first + MOST_TURNS]
    tokens = [token for token in found.tokens if token.turn in turns]
    coloured = tokens[:MOST_TOKENS]
    return page(
        request,
        "row.html",
        visitor,
        run=runs.show(service, visitor.caller, run),
        row=found,
        turns=[_turn(found, number) for number in turns],
        most_turns=MOST_TURNS,
        first=first,
        parts=list(_parts(found, coloured)),
        coloured=len(coloured),
        tokens_left=len(tokens) - len(coloured),
        shades={
            name: text
            for name, text in _SHADES.items()
            if any(getattr(token, name) is not None for token in coloured)
        },
        original_response=_side(found.changes, "removed"),
        new_response=_side(found.changes, "added"),
        most_characters=MOST_CHARACTERS,
        exports=exports.listing(service, visitor.caller, limit=_EXPORTS, run=run),
        original=None
        if found.status == "rejected"
        else run_pages.original(service, visitor.caller, run, found.row),
    )


@data.get("/runs/{run}/rows/{sample}/nearest.json", operation_id="page_row_nearest")
def page_row_nearest(service: ServiceDep, visitor: Visitor, run: str, sample: str) -> NearestRows:
    """The samples most like one, which is given by its whole id."""
    return run_pages.nearest(service, visitor.caller, run, sample)


def _turn(found: SampleAnswer, number: int) -> ShownTurn:
    turn, room = found.turns[number], MOST_CHARACTERS
    pieces = []
    for piece in turn.pieces:
        if room > 0:
            pieces.append(piece.model_copy(update={"text": piece.text[:room]}))
        room -= len(piece.text)
    return ShownTurn(number, turn, pieces, max(0, -room))


def _side(changes: list[ChangeAnswer], own: str) -> list[tuple[str, bool]]:
    """What one of two texts has, as far as it is shown, and whether it alone has that."""
    room, side = MOST_CHARACTERS, []
    for each in changes:
        if each.kind in ("same", own) and room > 0:
            side.append((each.text[:room], each.kind == own))
            room -= len(each.text)
    return side


def _parts(found: SampleAnswer, tokens: list[TokenAnswer]) -> Iterator[dict[str, Any]]:
    """The parts of turns that have these tokens, in order, as a page shows them: tokens with their numbers,
    and the texts between tokens.

    A character of several tokens is of the first of them.
    """
    by_turn: dict[int, list[TokenAnswer]] = {}
    for token in tokens:
        by_turn.setdefault(token.turn, []).append(token)
    for turn, of_turn in by_turn.items():
        pieces = found.turns[turn].pieces
        text = "".join(piece.text for piece in pieces)[:MOST_CHARACTERS]
        ends = list(accumulate(len(piece.text) for piece in pieces))
        at = 0
        for token in of_turn:
            start = max(at, token.start)
            if token.is_end or token.end <= start or start >= len(text):
                continue
            if start > at:
                yield {"turn": turn, "text": shown.plain(text[at:start])}
            at = token.end
            # A token of a text that was rewritten has no mask; what was cut out of it is known all the same.
            is_cut = pieces[bisect_right(ends, start)].state == "pruned"
            yield {
                "turn": turn,
                "text": shown.plain(text[start:at]),
                "keep": False if is_cut else token.keep,
                "numbers": {name: getattr(token, name) for name in _SHADES},
            }
        if at < len(text):
            yield {"turn": turn, "text": shown.plain(text[at:])}
