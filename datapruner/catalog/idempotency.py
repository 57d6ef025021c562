"""First answers to requests with an Idempotency-Key, kept for a day.

Notable choice: whoever answers a request renews its row now and then, so that a row left behind by a process
that was killed is told from one that is still being worked on.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from datapruner.catalog.models import Reply, new_id, utcnow

KEPT = timedelta(hours=24)
RENEWED_EVERY = timedelta(seconds=15)
_GIVEN_UP = 4 * RENEWED_EVERY


def claim(session: Session, token_id: str, key: str) -> tuple[Reply, bool]:
    """The row of this key, and whether the caller is the first: then it is to be answered and settled.

    Otherwise `status` is None while the first request is still being answered. Raises IntegrityError when
    another process claims the key at the same moment.
    """
    now = utcnow()
    query = select(Reply).where(Reply.token_id == token_id, Reply.key == key)
    reply = session.scalar(query.with_for_update())
    if reply is not None:
        age = now - reply.created_at
        if age < (KEPT if reply.status is not None else _GIVEN_UP):
            return reply, False
        session.delete(reply)
        session.flush()
    reply = Reply(id=new_id("rep"), token_id=token_id, key=key, fingerprint="", created_at=now)
    session.add(reply)
    session.flush()
    return reply, True


def renew(session: Session, reply_id: str) -> None:
    """Say that the request is still being answered."""
    session.execute(update(Reply).where(Reply.id == reply_id).values(created_at=utcnow()))


def settle(
    session: Session, reply_id: str, fingerprint: str, status: int, headers: dict[str, str], body: str
) -> None:
    """Keep the answer."""
    session.execute(
        update(Reply)
        .where(Reply.id == reply_id)
        .values(fingerprint=fingerprint, status=status, headers=headers, body=body, created_at=utcnow())
    )


def release(session: Session, reply_id: str) -> None:
    """Let the key be used again: the answer is not one to keep."""
    session.execute(delete(Reply).where(Reply.id == reply_id))


def sweep(session: Session) -> None:
    """Remove what was kept long enough."""
    session.execute(delete(Reply).where(Reply.created_at < utcnow() - KEPT))
