"""A teacher that says what the test has it say."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.datapruner.client.unruly import Unruly, unruly_server


@pytest.fixture(scope="module")
def server() -> Iterator[Unruly]:
    with unruly_server() as unruly:
        yield unruly


@pytest.fixture
def script(server: Unruly) -> Unruly:
    server.will()
    return server
