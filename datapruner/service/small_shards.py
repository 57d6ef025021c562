"""Small shards of signals in storage, merged where a run has added some.

Notable choice: in an object store another machine's copies of what is gone may be sent there again until they
leave its cache; whichever run comes next takes them away again.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC
from pathlib import Path

import structlog

from datapruner.errors import StorageError
from datapruner.measuring import compaction
from datapruner.service import retention
from datapruner.service.storage import Storage

log = structlog.stdlib.get_logger(__name__)


def merge(storage: Storage, prefixes: Iterable[str]) -> None:
    """Merge the small shards below these prefixes, which must have been pulled, if they are many, and delete
    those merged a day ago. What the storage refuses now is done after another run."""
    try:
        for prefix in prefixes:
            folder = storage.folder(prefix)
            compaction.merge(folder)
            storage.push(prefix)
            files = storage.listing(prefix)
            times = {Path(each.key).name: each.modified.replace(tzinfo=UTC) for each in files}
            gone = compaction.superseded(folder, times)
            retention.delete_files(storage, [f"{prefix}/{path.name}" for path in gone])
    except (OSError, StorageError) as error:
        log.warning("small shards stay as they are for now", error=str(error))
