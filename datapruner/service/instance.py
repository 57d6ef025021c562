"""What every request needs of the service: opened once by the process that answers, shared by all."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from datapruner.catalog import migrations
from datapruner.catalog.database import Database
from datapruner.errors import NotReadyError, StorageError
from datapruner.query.pool import SandboxPool
from datapruner.service.metrics import Metrics
from datapruner.service.stopping import Stopping
from datapruner.service.storage import Storage, open_storage
from datapruner.service.token_key import load_key
from datapruner.settings import Settings
from datapruner.system.panics import contained

_GOOD_SECONDS = 2.0
_log = structlog.get_logger(__name__)


@dataclass
class Service:
    """Whatever waits for something else in a request looks whether `stopping` has `ended`."""

    settings: Settings
    db: Database
    storage: Storage
    sql: SandboxPool
    key: bytes
    """Of token digests."""
    metrics: Metrics
    stopping: Stopping
    _checked: float = -math.inf

    @classmethod
    def open(cls, settings: Settings, stopping: Stopping) -> Service:
        db = Database(settings.database)
        return cls(
            settings=settings,
            db=db,
            storage=open_storage(settings.files, settings.home / "cache", settings.cache_bytes),
            sql=SandboxPool(settings.sql_warm, settings.sql_concurrent),
            key=load_key(settings),
            metrics=Metrics(db),
            stopping=stopping,
        )

    def close(self) -> None:
        self.stopping.end()
        self.sql.close()
        self.db.close()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """While the block answers a request: that is counted, and a panic of a native library in it raised as
        WorkerError."""
        self.metrics.began()
        with contained():
            yield

    def check(self) -> None:
        """Raise NotReadyError unless the service can do its work. Good news is believed for a few seconds, as
        anybody may ask and the storage is tried by writing to it."""
        if self.stopping.leaving.is_set():
            raise NotReadyError("the service is stopping")
        if time.monotonic() - self._checked < _GOOD_SECONDS:
            return
        try:
            with self.db.read() as session:
                session.execute(text("SELECT 1"))
            found, wanted = migrations.current(self.db), migrations.newest()
        except SQLAlchemyError as error:
            raise NotReadyError("the database does not answer", remedy="see the logs") from error
        if found != wanted:
            raise NotReadyError(
                f"the database is at revision {found or 'none'}, {wanted} is needed",
                remedy="run `datapruner db upgrade`",
            )
        try:
            self.storage.check()
        except StorageError as error:
            _log.warning("storage cannot be written", error=str(error))
            raise NotReadyError("the storage cannot be written", remedy="see the logs") from error
        self._checked = time.monotonic()
