"""What a worker has at hand for every job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datapruner.catalog.database import Database
from datapruner.measuring.engine import machine_on
from datapruner.measuring.measure import Machine
from datapruner.measuring.workers.local import IdleWorkers
from datapruner.request.config import Engine
from datapruner.service.storage import Storage
from datapruner.settings import Settings


@dataclass(frozen=True, slots=True)
class Context:
    """One per worker process. `devices` are those of its machine; `idle` holds the measuring processes
    between jobs."""

    settings: Settings
    db: Database
    storage: Storage
    devices: tuple[str, ...]
    idle: IdleWorkers

    def machine(self, engine: Engine | None) -> Machine:
        """Where a run is measured that asks for this engine, None for that of the settings.

        Raises WorkerError where that is a Ray cluster that cannot be reached.
        """
        settings = self.settings
        if (engine or settings.engine) == "local":
            return self.here
        return machine_on(
            settings.devices,
            "ray",
            settings.ray_address,
            token_budget=settings.token_budget,
            threads=settings.threads,
            models=settings.home,
        )

    @property
    def here(self) -> Machine:
        """This machine."""
        settings = self.settings
        return Machine(self.devices, settings.token_budget, settings.threads, settings.home, self.idle)

    @property
    def scratch(self) -> Path:
        """Where jobs build files before they are published, see `service.scratch`."""
        return self.settings.home / "work"
