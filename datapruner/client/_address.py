"""Where the service is, and the token for it, when they are not given."""

from __future__ import annotations

import os
import re

import httpx

from datapruner.errors import UsageError
from datapruner.home import home_folder
from datapruner.http.addresses import is_loopback

URL_VARIABLE = "DATAPRUNER_URL"
TOKEN_VARIABLE = "DATAPRUNER_TOKEN"  # noqa: S105 (its name)
DEFAULT_URL = "http://127.0.0.1:8000"
_TOKEN_FILE = "admin-token"  # noqa: S105 (its name)


def find_url(given: str | None) -> httpx.URL:
    """The service's address: as given, or DATAPRUNER_URL, or this machine's. Raises UsageError."""
    text = given or os.environ.get(URL_VARIABLE) or DEFAULT_URL
    # What is given is not quoted: a password may be in it.
    no_url = UsageError("this is no URL of a service", remedy="write http://host:8000", field="url")
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        raise no_url from None
    if url.scheme not in ("http", "https") or not url.host:
        raise no_url
    if url.userinfo:
        raise UsageError("the URL has a user or password in it", remedy="give a token instead", field="url")
    return url.copy_with(query=None, fragment=None)


def find_token(given: str | None, url: httpx.URL) -> str | None:
    """The token: as given, or DATAPRUNER_TOKEN, or the one that `serve` left in this user's home folder.

    That file is for this machine's own service only. Raises UsageError for text that is no token.
    """
    token = given or os.environ.get(TOKEN_VARIABLE)
    if token is None and is_loopback(url):
        try:
            token = (home_folder() / _TOKEN_FILE).read_text(encoding="ascii").strip()
        except (OSError, UnicodeError):
            return None
    if token is not None and not re.fullmatch(r"[\x21-\x7e]+", token):
        raise UsageError("the token has characters in it that no token has", field="token")
    return token
