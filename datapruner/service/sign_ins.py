"""Browsers that sign in with a token: what their cookie holds, and that a request was meant.

Notable choices:
- the cookie holds chance, not the token: who steals it has it for hours at most, and until it is signed out;
- a sign-in is worth what its token is: one that is revoked or over ends it;
- the word that forms and scripts send along is a digest of the cookie: a page of another site knows neither.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta

from datapruner.catalog import sign_ins
from datapruner.catalog.models import utcnow
from datapruner.service import tokens
from datapruner.service.instance import Service
from datapruner.service.tokens import Caller

LASTS = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who a browser is, and the word that its changes are to bring along."""

    caller: Caller
    word: str


def begin(service: Service, secret: str) -> str | None:
    """Sign in with a token: what the cookie is to hold; None when the token is not good."""
    caller = tokens.authenticate(service.db, secret, service.key)
    if caller is None:
        return None
    held = secrets.token_urlsafe(32)
    with service.db.write() as session:
        sign_ins.create(session, caller.token_id, _digest(service, held), utcnow() + LASTS)
    return held


def find(service: Service, held: str, request_id: str) -> SignedIn | None:
    """Who has this cookie; None when nobody has, or the sign-in or its token is over."""
    with service.db.read() as session:
        token = sign_ins.token_of(session, _digest(service, held))
    caller = None if token is None else tokens.caller_of(service.db, token, request_id)
    return None if caller is None else SignedIn(caller, _word(service, held))


def end(service: Service, held: str) -> None:
    """Sign out."""
    with service.db.write() as session:
        sign_ins.remove(session, _digest(service, held))


def meant(signed_in: SignedIn, word: str) -> bool:
    """Whether a change comes from one of our own pages."""
    return hmac.compare_digest(word.encode(), signed_in.word.encode())


def _digest(service: Service, held: str) -> str:
    return tokens.digest(f"cookie {held}", service.key)


def _word(service: Service, held: str) -> str:
    return tokens.digest(f"word {held}", service.key)
