"""Queries on browsers that signed in."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from datapruner.catalog.models import SignIn, Token, new_id, utcnow


def create(session: Session, token_id: str, digest: str, expires_at: datetime) -> None:
    """Keep one, and forget those that are over."""
    session.execute(delete(SignIn).where(SignIn.expires_at < utcnow()))
    session.add(SignIn(id=new_id("sig"), token_id=token_id, digest=digest, expires_at=expires_at))


def token_of(session: Session, digest: str) -> Token | None:
    """The token that a browser signed in with, if that is not over."""
    found = SignIn.digest == digest, SignIn.expires_at >= utcnow()
    return session.scalar(select(Token).join(SignIn, SignIn.token_id == Token.id).where(*found))


def remove(session: Session, digest: str) -> None:
    """End one; nothing happens where there is none."""
    session.execute(delete(SignIn).where(SignIn.digest == digest))
