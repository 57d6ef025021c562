"""The services of docker-compose.yml as processes on this machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests import compose
from tests.waiting import PATIENCE


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

    def command(self, service: str) -> list[str]:
        """What a container of `service` runs."""
        entrypoint = self.services[service].get("entrypoint", ["python", "-m", "datapruner"])
        assert entrypoint[0] == "python"
        return [sys.executable, *entrypoint[1:], *self.services[service]["command"]]

    def run(self, service: str) -> subprocess.CompletedProcess[str]:
        """Run a service that ends by itself."""
        return subprocess.run(
            self.command(service),
            env=self.environment(service, service),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    @contextlib.contextmanager
    def running(self, service: str, data: str, **settings: object) -> Iterator[Host]:
        """Run a service that goes on, and see that it ends well when it is told to. `settings` by their names
        in `Settings`."""
        host = Host(self, service, data, {f"DATAPRUNER_{k.upper()}": str(v) for k, v in settings.items()})
        try:
            yield host
            host.stop()
        finally:
            host.end()


class Host:
    """A machine with one service, which can be stopped and started again."""

    def __init__(self, stack: Stack, service: str, data: str, settings: dict[str, str]) -> None:
        self._stack, self._service, self.home = stack, service, stack.folder / data
        self._environment = stack.environment(service, data) | settings
        self.log = stack.folder / f"{data}.log"
        self.process = self._started()

    def stop(self) -> None:
        """End it, as a container engine does, unless it was told already."""
        if self.process.poll() is None:
            self.process.terminate()
        assert self.process.wait(PATIENCE) == 0, self.log.read_text()[-3000:]
        self.end()

    def end(self) -> None:
        """Leave nothing of it, however it came to this."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def start(self) -> None:
        """Start it again where it was stopped."""
        self.process = self._started()

    def url(self) -> str:
        """The address of an API, once it answers. To be asked for once after each start."""
        assert self.process.stdout is not None
        line = next((line for line in self.process.stdout if "listens on " in line), None)
        assert line is not None, self.log.read_text()[-3000:]
        return line.split("listens on ")[1].split()[0]

    def client(self, url: str) -> httpx.Client:
        """Asks the API at `url` with the token that this host made at its first start."""
        token = (self.home / "admin-token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=url, headers=headers, timeout=2 * PATIENCE, trust_env=False)

    def _started(self) -> subprocess.Popen[str]:
        with self.log.open("a") as errors:
            return subprocess.Popen(
                self._stack.command(self._service),
                env=self._environment,
                cwd=self._stack.folder,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
