"""What a worker has at hand for every job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datapruner.catalog.database import Database
from datapruner.measuring.workers.local import IdleWorkers
from datapruner.service.storage import Storage
from datapruner.settings import Settings


@dataclass(frozen=True, slots=True)
class Context:
    """One per worker process. `idle` holds the measuring processes between jobs."""

    settings: Settings
    db: Database
    storage: Storage
    devices: tuple[str, ...]
    idle: IdleWorkers

    @property
    def scratch(self) -> Path:
        """Where jobs build files before they are published, see `service.scratch`."""
        return self.settings.home / "work"
