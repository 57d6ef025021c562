"""A pytest plugin: the real service in processes of its own, and clients that talk to it over a socket."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.forked import Forked, command_line
from tests.waiting import PATIENCE, until

WAIT = {"Prefer": f"wait={PATIENCE:.0f}"}
"""The header of a request that is to be answered with what the job made."""
MOST_UNPACKED = 32 << 20
"""Bytes that an upload to the service of all tests may unpack to."""
SELDOM = "0 2 29 2 *"
"""A cron that does not fire while a test runs, unless it is the 29th of February."""


@dataclass
class Server:
    """A running `datapruner serve`. `url` has no /v1; `model` is the folder of the tiny proxy model.

    `said` is what it printed and logged until it answered.
    """

    process: Forked
    url: str
    home: Path
    model: str
    token: str
    log: Path
    said: str
    client: httpx.Client = field(init=False)
    """Asks as the admin of the default project, who has every scope; paths begin with /v1."""

    def __post_init__(self) -> None:
        self.client = self.as_token(self.token)

    def as_token(self, token: str | None) -> httpx.Client:
        """A client with this token; None: without one."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=2 * PATIENCE, trust_env=False)

    def new_token(self, *scopes: str, project: str = "default", **more: Any) -> str:
        """The secret of a new token; the project is made when there is none of that name."""
        if self.client.get(f"/v1/projects/{project}").status_code == 404:
            self.client.post("/v1/projects", json={"name": project}).raise_for_status()
        asked = {"name": "test", "scopes": list(scopes), "project": project, **more}
        made = self.client.post("/v1/tokens", json=asked)
        made.raise_for_status()
        return str(made.json()["secret"])

    def wait(self, job: str) -> dict[str, Any]:
        """The job, by id or path, once it has finished."""
        path = job if job.startswith("/") else f"/v1/jobs/{job}"

        def finished() -> dict[str, Any] | None:
            found: dict[str, Any] = self.client.get(path).raise_for_status().json()
            return found if found["state"] in ("succeeded", "failed", "cancelled") else None

        done = until(finished, lambda: (self.client.get(path).text, self.log.read_text()[-5000:]))
        assert done is not None
        return done

    def newest_job(self) -> str | None:
        """Id of the project's newest job."""
        newest = self.client.get("/v1/jobs", params={"limit": 1}).raise_for_status().json()["items"]
        return newest[0]["id"] if newest else None

    def change(self, statement: str, *values: object) -> None:
        """Change one row of the catalog behind the service's back, such as to let time pass."""
        with closing(sqlite3.connect(self.home / "catalog.sqlite", timeout=PATIENCE)) as database, database:
            assert database.execute(statement, values).rowcount == 1

    def unready(self) -> httpx.Response:
        """The answer of /ready once it is no: good news is believed for some seconds."""

        def refused() -> httpx.Response | None:
            answer = self.client.get("/v1/ready")
            return None if answer.status_code == 200 else answer

        refusal = until(refused, lambda: "ready all the time")
        assert refusal is not None
        return refusal

    def stop(self) -> int:
        """End it as a service manager does; the exit code."""
        self.client.close()
        self.process.terminate()
        return self.process.wait()


@contextlib.contextmanager
def serving(home: Path, model: Path, **settings: object) -> Iterator[Server]:
    """The service on any free port, with its files in `home`; `settings` by their names in `Settings`."""
    home.mkdir(parents=True, exist_ok=True)
    given = {"home": home, "port": 0, "workers": 1, "devices": "cpu", "threads": 1, "sql_warm": 1} | {
        "import_roots": model.parent
    }
    plain = {name: value for name, value in os.environ.items() if not name.startswith("DATAPRUNER_")}
    wanted = {f"DATAPRUNER_{name.upper()}": str(value) for name, value in (given | settings).items()}
    task = (command_line, ["serve"], str(Path.cwd()))
    process = Forked(*task, environment=plain | wanted, said=home / "serve.log")
    try:
        said = until(lambda: _once_it_listens(process), process.printed)
        url = said.split("listens on ")[1].split()[0]
        token = (home / "admin-token").read_text().strip()
        server = Server(process, url, home, str(model), token, process.said, said)
        try:
            yield server
        finally:
            server.client.close()
    finally:
        process.terminate()
        try:
            process.wait()
        finally:
            process.kill()


def _once_it_listens(process: Forked) -> str:
    said = process.printed()
    assert process.poll() is None, f"serve ended: {said}"
    return said if "\n" in said.partition("listens on ")[2] else ""


@pytest.fixture(scope="session")
def server(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One service for all tests of this process, with a worker and the tiny model at `server.model`.

    Starting one takes seconds of two processors. Tests mind only what they made themselves; one that cannot
    has a service of its own by `serving`.
    """
    home = tmp_path_factory.mktemp("service") / "home"
    with serving(home, tiny_folder, max_unpacked_bytes=MOST_UNPACKED) as running:
        yield running


@pytest.fixture
def client(server: Server) -> httpx.Client:
    """Asks as the admin of the default project."""
    return server.client
