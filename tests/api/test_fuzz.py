"""What schemathesis makes of the committed OpenAPI document, sent to a real service that has real things.

Every answer has to be one that the document promises: no 5xx, and a status, content type, headers and body
as documented. Every time each operation gets the same few requests: a part of those that schemathesis makes
up systematically, and some at random. All of them, many at random, new ones each time, on both databases:

    DATAPRUNER_FUZZ_EXAMPLES=500 pytest tests/api/test_fuzz.py
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import zlib
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.generation.meta import TestPhase
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.openapi import FILE
from datapruner.catalog import migrations
from tests.databases import new_postgres
from tests.served import SELDOM, Server, serving

_EXAMPLES = int(os.environ.get("DATAPRUNER_FUZZ_EXAMPLES", "0"))
_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
_SYSTEMATIC = 8
"""One of so many systematic requests is sent where time is short."""
_VALID: dict[str, Any] = {
    "cron": SELDOM,
    "keep": 0.5,
    "keep_tokens": None,
    "mapping": {},
    "methods": None,
    "options": {},
    "preset": None,
    "source": None,
    "timezone": "UTC",
    "token_keep": None,
    "webhook": None,
}
"""Values of fields that random ones would make most requests invalid by."""
_ROWS = [{"instruction": f"Say {n}.", "output": f"Here is {n}, as you said."} for n in range(6)]

_config = SchemathesisConfig(seed=1)
_config.projects.default.generation.update(with_security_parameters=False)
schema = schemathesis.openapi.from_path(FILE, config=_config)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"] if _EXAMPLES else ["sqlite"])
def server(
    request: pytest.FixtureRequest, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Of its own, as its jobs would keep others waiting; it fetches nothing."""
    home = tmp_path_factory.mktemp("service") / "home"
    with contextlib.ExitStack() as stack:
        given: dict[str, object] = {"allow_hub": 0}
        if request.param == "postgresql":
            url = stack.enter_context(new_postgres(request.getfixturevalue("postgres_server")))
            migrations.upgrade(url)
            given["database_url"] = url
        yield stack.enter_context(serving(home, tiny_folder, **given))


@pytest.fixture(scope="module")
def session(server: Server) -> Iterator[requests.Session]:
    """Asks as the admin of the default project, over one connection."""
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {server.token}"
        yield session


@pytest.fixture(scope="module")
def there(server: Server) -> dict[str, Any]:
    """What requests are aimed at: values of parameters and fields, by name."""
    return _made(server, "fuzzed")


@pytest.fixture(scope="module")
def doomed(server: Server) -> dict[str, Any]:
    """The same for requests that delete."""
    return _made(server, "doomed")


def _made(server: Server, name: str) -> dict[str, Any]:
    measuring = {"model": server.model, "max_length": 64}
    how = {"method": "length", "keep": 0.5, "measuring": measuring}
    started = server.client.post("/v1/prune", json={"name": name, "rows": _ROWS, **how})
    job = server.wait(started.headers["Location"])
    assert job["state"] == "succeeded", job
    asked = {"name": name, "dataset": name, "cron": SELDOM, "run": how}
    server.client.post("/v1/schedules", json=asked).raise_for_status()
    server.new_token("read", project=name)
    return {
        "dataset": name,
        "number": 1,
        "run": job["result"]["run_id"],
        "other": job["result"]["run_id"],
        "sample": 0,
        "export": job["result"]["export_id"],
        "job": job["id"],
        "schedule": name,
        "method": "length",
        "project": name,
        "token": server.client.get("/v1/tokens").json()["items"][0]["id"],
        "model": server.model,
        "sql": f"SELECT * FROM {name}.samples",
    }


@pytest.mark.slow
@schema.parametrize()
@settings(
    max_examples=_EXAMPLES or 3,
    derandomize=not _EXAMPLES,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
def test_every_answer_is_as_documented(
    case: schemathesis.Case[Any],
    server: Server,
    session: requests.Session,
    there: dict[str, Any],
    doomed: dict[str, Any],
) -> None:
    draw = zlib.crc32(repr((case.path_parameters, case.query, case.body)).encode(errors="replace"))
    systematic = case.meta is not None and case.meta.phase.name is TestPhase.COVERAGE
    if systematic and not _EXAMPLES and draw % _SYSTEMATIC:
        return
    _aim(case, doomed if case.method == "DELETE" else there, draw)
    answer = case.call(base_url=server.url, session=session, allow_redirects=False)
    assert answer.status_code != 500, (answer.text, server.log.read_text()[-5000:])
    case.validate_response(answer, checks=_CHECKS)


def _aim(case: schemathesis.Case[Any], at: dict[str, Any], draw: int) -> None:
    """Make most requests mean things that there are, many be valid, which chance would not, and none wait."""
    _replace(case.path_parameters, at if draw % 4 else {})
    _replace(case.query, at if draw % 4 else {})
    _replace(case.body, ({}, at, at | _VALID, at | _VALID)[draw // 4 % 4])
    for name, value in (case.headers or {}).items():
        if name == "Prefer":
            case.headers[name] = re.sub("[0-9]+", "0", str(value))
        if name == "Idempotency-Key":  # else most requests are refused for using that of another
            case.headers[name] = f"{value}{secrets.token_hex(8)}"[-255:]


def _replace(part: Any, at: dict[str, Any]) -> None:
    if not isinstance(part, MutableMapping):
        return
    for name, value in part.items():
        if name in at:
            part[name] = at[name]
        else:
            _replace(value, at)


@pytest.mark.slow
def test_no_job_failed_for_a_reason_of_ours(server: Server) -> None:
    jobs: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = server.client.get("/v1/jobs", params={"limit": 200} | ({"cursor": cursor} if cursor else {}))
        jobs += page.raise_for_status().json()["items"]
        cursor = page.json()["next"]
    ended = [server.wait(job["id"]) for job in jobs]
    ours = ("/problems/internal", "/problems/worker-failed", "/problems/storage-unavailable")
    assert [job for job in ended if job["error"] and job["error"]["type"] in ours] == []
    assert "Traceback" not in server.log.read_text()
