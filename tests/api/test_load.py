"""Fifty clients at once: nothing fails, and every job that was accepted is done. They are the benchmark's."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.load import Observed, Target, drive
from tests.served import Server

CLIENTS, SECONDS = 50, 6.0
OPERATIONS = {"upload", "run", "sql", "download", "range", "job"}


def enough(observed: Observed) -> bool:
    """Whether as many jobs as clients were accepted, and each operation was asked for."""
    return len(observed.jobs) >= CLIENTS and set(observed.requests) >= OPERATIONS


@pytest.mark.slow
def test_fifty_clients_see_no_failure_and_lose_no_job(server: Server) -> None:
    before = len(server.log.read_text())
    target = Target.prepare(server.url, server.token, server.model)
    observed = asyncio.run(drive(target, clients=CLIENTS, seconds=SECONDS, enough=enough))
    assert set(observed.statuses) <= {200, 202, 206, 429}, observed.table()
    assert enough(observed), observed.table()
    assert set(observed.states) == {"succeeded"}, observed.table()
    assert "Traceback" not in server.log.read_text()[before:]
