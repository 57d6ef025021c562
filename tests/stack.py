"""The services of docker-compose.yml as processes on this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests import compose
from tests.forked import Forked, command_line
from tests.waiting import PATIENCE, until


@dataclass
class Stack:
    """The compose file's services as processes: only the two addresses, the port and /data are other ones."""

    services: dict[str, Any]
    addresses: dict[str, str]
    folder: Path
    model: Path

    def environment(self, service: str, data: str) -> dict[str, str]:
        """What a container of `service` with the volume `data` would have."""
        home = self.folder / data
        (home / "tmp").mkdir(parents=True, exist_ok=True)
        image = {
            name: value.replace("/data", str(home), 1) for name, value in compose.image_environment().items()
        }
        here = {
            "PATH": os.environ["PATH"],
            "DATAPRUNER_HOST": "127.0.0.1",
            "DATAPRUNER_PORT": "0",
            "DATAPRUNER_DEVICES": "cpu",
            "DATAPRUNER_THREADS": "1",
            "DATAPRUNER_IMPORT_ROOTS": str(self.model.parent),
        }
        return image | self.services[service]["environment"] | self.addresses | here

    def start(self, service: str, environment: Mapping[str, str], said: Path) -> Forked:
        """Start what a container of `service` runs: our command, or the Python code that is given to `-c`."""
        entrypoint = self.services[service].get("entrypoint", ["datapruner"])
        arguments = self.services[service]["command"]
        if entrypoint == ["datapruner"]:
            return Forked(command_line, arguments, str(self.folder), environment=environment, said=said)
        assert entrypoint == ["python", "-P", "-c"]
        return Forked(exec, *arguments, environment=environment, said=said)

    def run(self, service: str) -> tuple[int, str]:
        """Run a service that ends by itself: its exit code, and what it said."""
        said = self.folder / f"{service}.log"
        code = self.start(service, self.environment(service, service), said).wait()
        return code, said.read_text()

    @contextlib.contextmanager
    def running(self, service: str, data: str, **settings: object) -> Iterator[Host]:
        """Run a service that goes on, and see that it ends well when it is told to. `settings` by their names
        in `Settings`."""
        host = Host(self, service, data, {f"DATAPRUNER_{k.upper()}": str(v) for k, v in settings.items()})
        try:
            yield host
            host.stop()
        finally:
            host.process.kill()


class Host:
    """A machine with one service, which can be stopped and started again."""

    def __init__(self, stack: Stack, service: str, data: str, settings: dict[str, str]) -> None:
        self._stack, self._service, self.home = stack, service, stack.folder / data
        self._environment = stack.environment(service, data) | settings
        self.log = stack.folder / f"{data}.log"
        self.start()

    def start(self) -> None:
        """Start it, for the first time or where it was stopped."""
        self.process = self._stack.start(self._service, self._environment, self.log)

    def stop(self) -> None:
        """End it, as a container engine does, unless it was told already."""
        self.process.terminate()
        assert self.process.wait() == 0, self.log.read_text()[-3000:]

    def url(self) -> str:
        """The address of an API, once it answers."""

        def said() -> str:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            address, end, _ = self.process.printed().partition("listens on ")[2].partition(" ")
            return address if end else ""

        return until(said, lambda: self.log.read_text()[-3000:])

    def client(self, url: str) -> httpx.Client:
        """Asks the API at `url` with the token that this host made at its first start."""
        token = (self.home / "admin-token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=url, headers=headers, timeout=2 * PATIENCE, trust_env=False)
