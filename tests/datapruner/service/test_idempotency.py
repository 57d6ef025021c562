"""First answers by key: one request is the first, repetitions get its answer, a stolen database has none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from datapruner.catalog import migrations
from datapruner.errors import RepeatedKeyError, ReusedKeyError
from datapruner.service import idempotency, tokens
from datapruner.service.idempotency import Claim, FirstAnswer
from datapruner.service.instance import Service
from datapruner.service.stopping import Stopping
from datapruner.settings import Settings

ANSWER = FirstAnswer(201, {"location": "/v1/tokens/tok_1"}, b'{"secret": "dpr_shown_once"}')


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    settings = Settings(home=tmp_path, sql_warm=0, secret="of the test")
    migrations.upgrade(settings.database)
    service = Service.open(settings, Stopping())
    yield service
    service.close()


@pytest.fixture
def secret(service: Service) -> str:
    """A token."""
    path = tokens.bootstrap(service.db, service.settings, service.key)
    assert path is not None
    return path.read_text().strip()


def claim(service: Service, secret: str) -> Claim:
    """A claim on the key `k`, which there must be."""
    claim = idempotency.claim(service, secret, "k")
    assert claim is not None
    return claim


def test_a_repetition_gets_what_was_kept_for_the_same_request_and_nothing_for_another(
    service: Service, secret: str
) -> None:
    first = claim(service, secret)
    assert first.first
    with pytest.raises(RepeatedKeyError):
        claim(service, secret)
    first.keep("this request", ANSWER)
    again = claim(service, secret)
    assert not again.first
    assert again.answer("this request") == ANSWER
    with pytest.raises(ReusedKeyError) as caught:
        again.answer("another request")
    assert caught.value.field == "Idempotency-Key"


def test_a_key_that_was_released_is_another_requests_first(service: Service, secret: str) -> None:
    claim(service, secret).release()
    assert claim(service, secret).first


def test_an_unknown_token_claims_nothing(service: Service, secret: str) -> None:
    assert idempotency.claim(service, secret + "x", "k") is None
    assert claim(service, secret).first


def test_the_database_does_not_disclose_what_is_kept(service: Service, secret: str) -> None:
    claim(service, secret).keep("this request", ANSWER)
    for file in service.settings.home.glob("catalog.sqlite*"):
        assert b"shown_once" not in file.read_bytes()
