"""No log line and no command's output holds a secret, whatever goes wrong; but for the two that make one.

A service with a PostgreSQL, a teacher that quotes the key it refuses, and a webhook that cannot be delivered
does everything that commands can ask of it, and logs as much as it can.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL, make_url

from tests.command_line import Said
from tests.databases import new_postgres
from tests.datapruner.client.unruly import unruly_server
from tests.datapruner.teacher.scripted import fails
from tests.served import SELDOM, Server, serving
from tests.waiting import until

KEY, PASSWORD, HMAC_KEY = "sk-teacher-4711-key", "pg-4712-password", "hmac-4713-secret"
ROWS = [
    {
        "prompt": f"What is {n} plus {n}?",
        "response": f"<think>\nTake {n}.\n\nAdd {n}.\n</think>\nIt is {2 * n}.",
    }
    for n in range(1, 7)
]
RECIPE = "methods: [ppl]\nkeep: 50%\nrewrite: {method: dap}\nmeasuring: {model: MODEL}\n"

pytestmark = pytest.mark.slow


@dataclass
class Watched:
    """Runs commands at the service, and keeps what each said, by its arguments."""

    run: Callable[..., Said]
    server: Server
    said: dict[tuple[str, ...], str] = field(default_factory=dict)

    def __call__(self, *arguments: object, code: int = 0) -> Said:
        words = tuple(map(str, arguments))
        answer = self.run(*words)
        assert answer.code == code, answer
        self.said[words] = answer.out + answer.err
        return answer


@pytest.fixture
def database(postgres_server: URL) -> Iterator[str]:
    with new_postgres(postgres_server) as url:
        yield make_url(url).set(password=PASSWORD).render_as_string(hide_password=False)


@pytest.fixture
def watched(
    database: str,
    command: Callable[..., Said],
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Watched]:
    monkeypatch.setenv("DATAPRUNER_DATABASE_URL", database)
    assert command("db", "upgrade").code == 0
    with unruly_server() as teacher:
        teacher.will(fails(401, f"Incorrect API key provided: {KEY}"))
        settings: dict[str, Any] = {
            "database_url": database,
            "secret": HMAC_KEY,
            "log_level": "debug",
            "log_format": "json",
            "webhook_hosts": "127.0.0.1",
            "teacher_base_url": f"{teacher.url}/v1",
            "teacher_model": "m",
            "teacher_api_key": KEY,
        }
        with serving(tmp_path / "home", tiny_folder, **settings) as server:
            monkeypatch.setenv("DATAPRUNER_URL", server.url)
            monkeypatch.setenv("DATAPRUNER_TOKEN", server.token)
            yield Watched(command, server)


def test_secrets_are_in_no_output_and_no_log_line(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, model = watched.server, ("--model", watched.server.model)
    rows, recipe = tmp_path / "rows.jsonl", tmp_path / "recipe.yaml"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    recipe.write_text(RECIPE.replace("MODEL", server.model), encoding="utf-8")

    watched("datasets", "create", "sums", rows)
    refused = watched("run", recipe, "sums", code=1)
    assert "the teacher answered 401: Incorrect API key provided: [key]" in refused.err
    pruned = watched("prune", "sums", "-m", "ppl", "--keep", "0.5", *model, "--json").json["run"]
    hook = "http://127.0.0.1:9/hook"
    nightly = ("sums", SELDOM, "-m", "ppl", "--keep", "0.5", *model, "--name", "nightly")
    made = watched("schedules", "create", *nightly, "--webhook", hook, "--json").json
    fired = watched("schedules", "fire", "nightly", "--json").json["id"]
    watched("jobs", "wait", fired)
    until(lambda: server.client.get("/v1/schedules/nightly/deliveries").json()["items"])
    token = watched("tokens", "create", "ci", "--json").json
    watched("sql", "select nothing", code=2)
    for shown in (
        ("datasets", "list"),
        ("datasets", "show", "sums"),
        ("datasets", "rejects", "sums"),
        ("runs",),
        ("explain", pruned, "row:0"),
        ("exports", "list"),
        ("jobs", "list"),
        ("jobs", "show", fired),
        ("schedules", "list"),
        ("schedules", "show", "nightly"),
        ("schedules", "fires", "nightly"),
        ("schedules", "pause", "nightly"),
        ("tokens", "list"),
        ("tokens", "revoke", token["id"]),
        ("projects", "list"),
        ("projects", "show", "default"),
        ("sql", "select * from sums.samples"),
        ("db", "current"),
        ("methods",),
        ("models",),
    ):
        watched(*shown)
        watched(*shown, "--json")
    for job in server.client.get("/v1/jobs").json()["items"]:
        watched("jobs", "show", job["id"], "--json")
    monkeypatch.setenv("DATAPRUNER_TOKEN", token["secret"])
    watched("runs", code=2)
    monkeypatch.setenv("DATAPRUNER_DATABASE_URL", f"postgresql://me:{PASSWORD}@127.0.0.1:9/none")
    watched("db", "current", "--json", code=2)
    monkeypatch.setenv("DATAPRUNER_URL", f"http://me:{PASSWORD}@127.0.0.1:9")
    watched("runs", "--json", code=2)
    watched("prune", "sums", "--keep", "0.5", "--device", "cpu", code=2)

    created, hooked = token["secret"], made["webhook_secret"]
    secrets = {server.token, HMAC_KEY, PASSWORD, KEY, created, hooked}
    assert all(len(secret) > 10 for secret in secrets)
    shown_once = {"tokens": {created}, "schedules": {hooked}}
    for words, text in watched.said.items():
        allowed = shown_once[words[0]] if words[1:2] == ("create",) and words[0] in shown_once else set()
        assert {secret for secret in secrets if secret in text} == allowed, words
    log = server.log.read_text()
    assert '"level": "debug"' in log
    assert "attempt failed" in log
    assert not [secret for secret in secrets if secret in log + server.said]
    assert f"the admin token is in {server.home / 'admin-token'}" in server.said
