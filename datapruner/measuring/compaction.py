"""Small shards become one: a corpus that grows by a few rows a night would have thousands of files to open.

Notable choices:
- a merged shard appears before the others go, and those go a day after it did, when nobody that listed them
  before is still reading: no lock is needed, and a crash in between loses nothing;
- whether a file is small is decided by its size, so that no file has to be opened for it;
- a merged shard is not merged again: what is left are files some megabytes long;
- the same small shards give the same bytes under the same name, so two processes that merge at once agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from datapruner.measuring import merged
from datapruner.measuring.signal_cache import shard_name
from datapruner.measuring.workers import shards

MANY = 32
"""Small shards that are left as they are; one more, and they are merged."""
SMALL_BYTES = 256 << 10
GRACE = timedelta(days=1)
_ROWS = 4096


def merge(folder: Path) -> None:
    """Publish merged shards for the small ones in a folder of the signal cache, if they are many.

    Raises OSError.
    """
    small = [
        path
        for path in merged.shards(folder)
        if not merged.is_merged(path) and path.stat().st_size < SMALL_BYTES
    ]
    if len(small) > MANY:
        for part in _parts(small):
            table = pa.concat_tables([pq.read_table(path) for path in part])
            name = merged.name(shard_name(table["sample_id"].to_pylist()))
            shards.publish(folder / name, table.replace_schema_metadata(merged.told(part)))


def superseded(folder: Path, published: Mapping[str, datetime] | None = None) -> list[Path]:
    """Files of small shards that nobody reads any more. `published` says, in UTC and by name, when merged
    shards were; by default the file system does."""
    limit = datetime.now(UTC) - GRACE
    found: list[Path] = []
    for path in filter(merged.is_merged, merged.shards(folder)):
        if published is None:
            moment = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        else:
            moment = published.get(path.name, datetime.now(UTC))
        found += merged.replaced(path) if moment < limit else ()
    return found


def _parts(small: list[Path]) -> Iterator[list[Path]]:
    """Some of the shards at a time, with no more rows than are held at once."""
    part: list[Path] = []
    rows = 0
    for path in small:
        height = pq.read_metadata(path).num_rows
        if part and rows + height > _ROWS:
            yield part
            part, rows = [], 0
        part.append(path)
        rows += height
    yield part
