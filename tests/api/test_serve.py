"""`datapruner serve` as whoever runs it knows it: starting, being killed in part, stopping."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.forked import Forked, command_line
from tests.served import Server, serving
from tests.waiting import PATIENCE, has_ended, until

pytestmark = pytest.mark.slow


def workers(server: Server) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(server.process.pid).children():
        with contextlib.suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
            if child.cmdline()[-1:] == ["worker"]:
                found.append(child)
    return found


def test_a_life_of_the_service(tiny_folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with serving(home, tiny_folder, workers=2, log_format="json", drain_seconds=0.5) as server:
        until(lambda: len(workers(server)) == 2)
        first = workers(server)[0]
        first.kill()
        until(lambda: len(set(workers(server)) - {first}) == 2)
        until(lambda: '"event": "worker died"' in server.log.read_text())

        rows = [{"instruction": f"Say {n}.", "output": f"Here is {n}."} for n in range(20)]
        body = {"rows": rows, "method": "ppl", "keep": 0.5, "measuring": {"model": server.model}}
        job = server.client.post("/v1/prune", json=body).headers["Location"]
        until(lambda: server.client.get(job).json()["state"] != "queued")
        token, kept = server.token, workers(server)
        assert server.stop() == 0
        assert '"event": "leaving"' in server.log.read_text()
        assert not any(worker.is_running() for worker in kept)

    with serving(home, tiny_folder) as server:
        assert server.token == token  # the second start makes none
        done = server.wait(job)
        assert (done["state"], done["error"]) == ("succeeded", None)
        [worker] = workers(server)
        os.kill(server.process.pid, signal.SIGKILL)
        until(lambda: has_ended(worker.pid))  # workers end with a service that is killed


def test_a_service_that_leaves_serves_on_and_then_ends_what_waits_in_a_request(
    tiny_folder: Path, tmp_path: Path
) -> None:
    with serving(tmp_path / "home", tiny_folder, workers=0, drain_seconds=10 * PATIENCE) as server:
        rows = [{"instruction": "Hi", "output": "Hello."}]
        job = server.client.post("/v1/datasets", json={"name": "waits", "rows": rows}).headers["Location"]
        seen: list[str] = []
        answers: list[int] = []

        def watch() -> None:
            with server.as_token(server.token) as client, client.stream("GET", f"{job}/events") as events:
                seen.extend(events.iter_lines())

        def wait() -> None:
            with server.as_token(server.token) as client:
                body = {"name": "waits_too", "rows": rows}
                answer = client.post("/v1/datasets", json=body, headers={"Prefer": "wait=600"}, timeout=900)
                answers.append(answer.status_code)

        threads = [threading.Thread(target=watch), threading.Thread(target=wait)]
        for thread in threads:
            thread.start()
        until(lambda: seen and len(server.client.get("/v1/jobs").json()["items"]) == 2)  # both are at it

        server.process.terminate()
        assert server.unready().json()["detail"] == "the service is stopping"
        answer = server.client.post("/v1/datasets", json={"name": "late", "rows": rows})
        assert (answer.status_code, answer.headers["Connection"]) == (202, "close")
        assert server.client.get("/v1/health").status_code == 200  # nobody is to kill it now
        assert answers == []
        assert threads[0].is_alive()

        assert server.stop() == 0  # told a second time, it does not wait any longer
        for thread in threads:
            thread.join(PATIENCE)
        assert answers == [202]
        assert any(line.startswith("event: job") for line in seen)


def test_a_script_is_told_the_address_and_the_file_of_the_token(tmp_path: Path) -> None:
    """In one document, and a service that nobody listens to serves all the same."""
    environment = {**os.environ, "DATAPRUNER_HOME": str(tmp_path)}
    command = ["serve", "--workers", "0", "--port"]
    told: dict[str, Any] = {
        "environment": environment,
        "said": tmp_path / "said",
        "errors": tmp_path / "errors",
    }
    process = Forked(command_line, [*command, "0", "--json"], str(tmp_path), **told)
    document = json.loads(until(lambda: said if (said := process.printed()).endswith("}\n") else ""))
    process.terminate()
    assert process.wait() == 0
    token = (tmp_path / "admin-token").read_text().strip()
    assert document == {"url": document["url"], "admin_token_file": str(tmp_path / "admin-token")}

    port = document["url"].rpartition(":")[2]
    process = Forked(unheard, [*command, port], str(tmp_path), **told)

    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            found = httpx.get(f"{document['url']}/v1/jobs", headers={"Authorization": f"Bearer {token}"})
            return found.status_code == 200
        return False

    try:
        until(answers)
    finally:
        process.terminate()
    assert process.wait() == 0


def unheard(arguments: list[str], folder: str) -> None:
    """A task: what our command does, with nobody who reads its output."""
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, sys.stdout.fileno())
    command_line(arguments, folder)


def test_a_port_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = Forked(
            command_line,
            ["serve", "--port", str(port), "--workers", "0"],
            str(tmp_path),
            environment={**os.environ, "DATAPRUNER_HOME": str(tmp_path)},
            said=tmp_path / "said",
            errors=errors,
        )
        assert process.wait() == 2
    assert errors.read_text().startswith(f"error: cannot listen on 127.0.0.1 port {port}")
    assert len(errors.read_text().splitlines()) == 1
