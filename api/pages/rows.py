"""A row of a run: the conversation with what became of each token, why, and the row as it came."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from api.dependencies import ServiceDep
from api.pages.rendering import page
from api.pages.visits import PageRoute, Visitor
from datapruner import shown
from datapruner.schemas.runs import PieceAnswer, SampleAnswer, TokenAnswer, TurnAnswer
from datapruner.service import run_pages, runs

router = APIRouter(route_class=PageRoute, include_in_schema=False)

MOST_TURNS, MOST_CHARACTERS, MOST_TOKENS = 200, 100_000, 20_000
"""Turns that are shown, characters of one, and tokens that are coloured."""


@dataclass(frozen=True, slots=True)
class ShownTurn:
    """A turn as far as it is shown: its pieces, and the characters that are left out."""

    about: TurnAnswer
    pieces: list[PieceAnswer]
    left_out: int


@router.get("/runs/{run}/rows/{sample}", operation_id="page_row")
def page_row(request: Request, service: ServiceDep, visitor: Visitor, run: str, sample: str) -> HTMLResponse:
    """Everything that is known of a row."""
    found = runs.explain(service, visitor.caller, run, sample)
    return page(
        request,
        "row.html",
        visitor,
        run=runs.show(service, visitor.caller, run),
        row=found,
        turns=list(_turns(found)),
        turns_left=max(0, len(found.turns) - MOST_TURNS),
        parts=_tokens(found),
        coloured=min(len(found.tokens), MOST_TOKENS),
        weighted=any(token.weight is not None for token in found.tokens[:1]),
        tokens_left=max(0, len(found.tokens) - MOST_TOKENS),
        original=None
        if found.status == "rejected"
        else run_pages.original(service, visitor.caller, run, found.row),
    )


def _turns(found: SampleAnswer) -> Iterator[ShownTurn]:
    for turn in found.turns[:MOST_TURNS]:
        pieces, room, size = [], MOST_CHARACTERS, sum(len(piece.text) for piece in turn.pieces)
        for piece in turn.pieces:
            if room > 0:
                pieces.append(piece.model_copy(update={"text": piece.text[:room]}))
            room -= len(piece.text)
        yield ShownTurn(turn, pieces, max(0, size - MOST_CHARACTERS))


def _tokens(found: SampleAnswer) -> list[dict[str, Any]]:
    """The parts of turns that have tokens, in order, as a page shows them: tokens with their numbers, and the
    texts between tokens.

    A character of several tokens is of the first of them.
    """
    by_turn: dict[int, list[TokenAnswer]] = {}
    for token in found.tokens[:MOST_TOKENS]:
        by_turn.setdefault(token.turn, []).append(token)
    parts: list[dict[str, Any]] = []
    for turn, tokens in by_turn.items():
        if turn >= min(len(found.turns), MOST_TURNS):
            continue
        text = "".join(piece.text for piece in found.turns[turn].pieces)[:MOST_CHARACTERS]
        at = 0
        for token in tokens:
            start = max(at, token.start)
            if token.is_end or token.end <= start or start >= len(text):
                continue
            if start > at:
                parts.append({"turn": turn, "text": shown.plain(text[at:start])})
            at = token.end
            numbers = {"nll": token.nll, "entropy": token.entropy, "weight": token.weight}
            part = {"turn": turn, "text": shown.plain(text[start:at]), "keep": token.keep}
            parts.append(part | {"numbers": numbers})
        if at < len(text):
            parts.append({"turn": turn, "text": shown.plain(text[at:])})
    return parts
