"""Which of the representations on offer a caller's Accept header prefers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from fastapi import Request, status
from starlette.exceptions import HTTPException

T = TypeVar("T")
_QUALITY = re.compile(r";\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*(?:;|$)", re.IGNORECASE)


def negotiated(request: Request, offers: Mapping[str, T], what: str) -> T:
    """What is offered under the media type that the request likes best. Raises HTTPException 406."""
    found = preferred(accepted(request), list(offers))
    if found is None:
        raise HTTPException(status.HTTP_406_NOT_ACCEPTABLE, f"{what} as {' or '.join(offers)}")
    return offers[found]


def accepted(request: Request) -> str:
    """The Accept header of a request, however many lines it has."""
    return ",".join(request.headers.getlist("accept"))


def preferred(accept: str, offers: Sequence[str]) -> str | None:
    """The media type in `offers` that the header likes best, the first of equals; None when it takes none.

    For each offer the most specific range decides (RFC 9110, 12.5.1). Without a header anything goes.
    """
    ranges = dict(filter(None, map(_range, accept.split(",")))) or {"*/*": 1.0}
    rated = [(_quality(offer, ranges), -index, offer) for index, offer in enumerate(offers)]
    quality, _, offer = max(rated)
    return offer if quality > 0 else None


def _range(text: str) -> tuple[str, float] | None:
    kind = text.split(";")[0].strip().lower()
    if not kind:
        return None
    quality = _QUALITY.search(text)
    return kind, 1.0 if quality is None else float(quality[1])


def _quality(offer: str, ranges: dict[str, float]) -> float:
    for kind in (offer, offer.split("/")[0] + "/*", "*/*"):
        if kind in ranges:
            return ranges[kind]
    return 0.0
