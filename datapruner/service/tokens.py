"""Bearer tokens: how they are made, kept as an HMAC only, recognised, listed and ended.

Notable choices:
- a token is looked up by its digest, which whoever guesses cannot steer, so the comparison leaks nothing;
- the key of the HMAC is not in the database: a stolen one alone is of no use, see `service.token_key`.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from datapruner.catalog import projects
from datapruner.catalog.database import Database
from datapruner.catalog.models import DEFAULT_PROJECT, InCommon, Project, Token, utcnow
from datapruner.errors import UsageError
from datapruner.schemas.projects import NewToken, NewTokenAnswer, TokenAnswer
from datapruner.service.instance import Service
from datapruner.service.token_key import write_private
from datapruner.settings import Settings

PREFIX = "dpr_"
SCOPES = ("read", "write", "sql", "admin")
_USED_EVERY = timedelta(minutes=1)
_FIRST_LOCK = 0x66697273  # any number that nothing else locks
_KEY_ITSELF = "key of tokens"


def issue() -> str:
    """A new token: 256 bits of chance."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(secret: str, key: bytes) -> str:
    """What is kept of a token."""
    return hmac.new(key, secret.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, for what project, and by which request."""

    token_id: str
    project_id: str
    scopes: frozenset[str]
    request_id: str


def authenticate(db: Database, secret: str, key: bytes, request_id: str = "") -> Caller | None:
    """Who holds the live token that `secret` is; None when there is none, or it is revoked or over."""
    with db.read() as session:
        token = session.scalar(select(Token).where(Token.digest == digest(secret, key)))
    return None if token is None else caller_of(db, token, request_id)


def caller_of(db: Database, token: Token, request_id: str) -> Caller | None:
    """Who holds this token; None when it is revoked or over."""
    now = utcnow()
    if token.revoked_at is not None or (token.expires_at or now) < now:
        return None
    if token.last_used_at is None or now - token.last_used_at >= _USED_EVERY:
        _used(db, token.id)
    return Caller(token.id, token.project_id, frozenset(token.scopes), request_id)


def _used(db: Database, token_id: str) -> None:
    try:
        with db.write() as session:
            row = session.get(Token, token_id)
            if row is not None:
                row.last_used_at = utcnow()
    except OperationalError:
        return  # a full disk is no reason to refuse a reader


def create(service: Service, caller: Caller, wanted: NewToken) -> NewTokenAnswer:
    """A token of a project, of the caller's unless another is wanted. Raises NotFoundError for none."""
    secret = issue()
    over = None if wanted.expires_in_days is None else utcnow() + timedelta(days=wanted.expires_in_days)
    with service.db.write() as session:
        project = projects.find_project(session, wanted.project or caller.project_id)
        token = projects.create_token(
            session,
            project.id,
            wanted.name,
            digest(secret, service.key),
            sorted(set(wanted.scopes), key=SCOPES.index),
            max_jobs=wanted.max_jobs,
            expires_at=over,
        )
    return NewTokenAnswer(**TokenAnswer.model_validate(token).model_dump(), secret=secret)


def listing(service: Service, *, limit: int, before: str | None = None) -> list[TokenAnswer]:
    """The newest `limit` tokens of all projects, those older than the id `before` if it is given."""
    with service.db.read() as session:
        found = projects.list_tokens(session, limit=limit, before=before)
    return [TokenAnswer.model_validate(token) for token in found]


def revoke(service: Service, token_id: str) -> TokenAnswer:
    """End a token; ending it again changes nothing. Raises NotFoundError."""
    with service.db.write() as session:
        return TokenAnswer.model_validate(projects.revoke_token(session, token_id))


def bootstrap(db: Database, settings: Settings, key: bytes) -> Path | None:
    """In an empty database: make the default project and an admin token, kept in home/admin-token.

    That file, or None when there are projects already. Of services that start at once, one makes them. Raises
    UsageError when the tokens that there are were made with another key: none of them would be known here.
    """
    mark = digest(_KEY_ITSELF, key)
    with db.write() as session:
        if not db.is_sqlite:  # which has one writer at a time
            session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _FIRST_LOCK})
        known = session.get(InCommon, _KEY_ITSELF)
        if known is None:
            session.add(InCommon(name=_KEY_ITSELF, value=mark))
        elif known.value != mark:
            raise UsageError(
                "the tokens in the database were made with another key, so that none is known here",
                remedy="give every service the DATAPRUNER_SECRET of the first, or its file home/secret",
                field="DATAPRUNER_SECRET",
            )
        if session.scalar(select(Project.id).limit(1)) is not None:
            return None
        return _first_token(session, settings, key)


def first_token_file(settings: Settings) -> Path:
    """Where `bootstrap` puts the admin token, and where it is as long as nobody takes it away."""
    return settings.home / "admin-token"


def _first_token(session: Session, settings: Settings, key: bytes) -> Path:
    project = projects.create_project(session, DEFAULT_PROJECT)
    secret, path = issue(), first_token_file(settings)
    projects.create_token(session, project.id, "first admin", digest(secret, key), list(SCOPES))
    settings.home.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".admin-token.{secrets.token_hex(4)}")
    write_private(temporary, secret + "\n")
    temporary.replace(path)
    return path
