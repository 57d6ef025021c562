"""Which representation an Accept header asks for."""

from __future__ import annotations

import pytest

from api.negotiation import preferred

OFFERS = ["text/a", "text/b", "image/c"]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "text/a"),
        ("*/*", "text/a"),
        ("text/b", "text/b"),
        ("TEXT/B; charset=x", "text/b"),
        ("text/*", "text/a"),
        ("image/*, text/*;q=0.5", "image/c"),
        ("text/a;q=0.1, text/b;q=0.9", "text/b"),
        ("text/a;q=0, */*", "text/b"),
        ("text/*;q=0.2, text/b;q=0, */*;q=0.1", "text/a"),
        ("application/json", None),
        ("*/*;q=0", None),
        (",", "text/a"),
    ],
)
def test_the_best_liked_of_what_there_is(accept: str, chosen: str | None) -> None:
    assert preferred(accept, OFFERS) == chosen
