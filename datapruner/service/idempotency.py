"""First answers to requests with an idempotency key: given again to whoever repeats the request.

Notable choice: answers may hold secrets shown only once, so they are kept encrypted, with a key made of the
caller's token, which is not kept anywhere: a copy of the database does not disclose them.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass

from cryptography.fernet import Fernet
from sqlalchemy.exc import IntegrityError

from datapruner.catalog import idempotency
from datapruner.catalog.models import Reply
from datapruner.errors import RepeatedKeyError, ReusedKeyError
from datapruner.service import tokens
from datapruner.service.instance import Service

FIELD = "Idempotency-Key"
"""Where a request has its key; what errors about it name."""
RENEW_SECONDS = idempotency.RENEWED_EVERY.total_seconds()
"""How often a claim is to be renewed."""


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """What the first request with a key was answered."""

    status: int
    headers: dict[str, str]
    content: bytes


class Claim:
    """The key of one request, of which it is known whether it is the first with it.

    Whoever has the first has to `renew` it while the request is being answered, and at last to `keep` an
    answer or to `release` the key.
    """

    def __init__(self, service: Service, reply: Reply, cipher: Fernet, *, first: bool) -> None:
        self.first = first
        self._db, self._reply, self._cipher = service.db, reply, cipher

    def answer(self, fingerprint: str) -> FirstAnswer:
        """What the first request was answered. Raises ReusedKeyError when that had another fingerprint."""
        assert self._reply.status is not None, self._reply.id
        if fingerprint != self._reply.fingerprint:
            raise ReusedKeyError(
                "this key came with another method, path or body before",
                field=FIELD,
                remedy="make a new key for a new request",
            )
        content = self._cipher.decrypt((self._reply.body or "").encode())
        return FirstAnswer(self._reply.status, self._reply.headers or {}, content)

    def renew(self) -> None:
        """Say that the request is still being answered."""
        with self._db.write() as session:
            idempotency.renew(session, self._reply.id)

    def keep(self, fingerprint: str, answer: FirstAnswer) -> None:
        """Keep the answer to the request with this fingerprint for its repetitions."""
        body = self._cipher.encrypt(answer.content).decode()
        with self._db.write() as session:
            idempotency.settle(session, self._reply.id, fingerprint, answer.status, answer.headers, body)

    def release(self) -> None:
        """Let the key be used again: the answer is not one to keep."""
        with self._db.write() as session:
            idempotency.release(session, self._reply.id)


def claim(service: Service, secret: str, key: str) -> Claim | None:
    """The key, for the caller with the token `secret`; None when that is no good token.

    Raises RepeatedKeyError while the first request with it is still being answered.
    """
    caller = tokens.authenticate(service.db, secret, service.key)
    if caller is None:
        return None
    try:
        with service.db.write() as session:
            reply, first = idempotency.claim(session, caller.token_id, key)
    except IntegrityError as error:  # another process claimed it at the same moment
        raise _still_running() from error
    if not first and reply.status is None:
        raise _still_running()
    return Claim(service, reply, _cipher(secret, key), first=first)


def _still_running() -> RepeatedKeyError:
    return RepeatedKeyError(
        "the first request with this key is still being answered",
        field=FIELD,
        remedy="wait and ask again",
    )


def _cipher(secret: str, key: str) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(hmac.digest(secret.encode(), b"reply" + key.encode(), "sha256")))
