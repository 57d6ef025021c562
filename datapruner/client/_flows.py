"""What takes more than one request: start a job, wait for it, and fetch what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from datapruner.client import _operations as operations
from datapruner.client import _streams
from datapruner.client._operations import Data
from datapruner.client._options import AnySource, DatasetOptions, EvaluationOptions, RunOptions
from datapruner.client._session import Session
from datapruner.client._streams import Watcher
from datapruner.errors import ServiceError
from datapruner.rows.formats import AnyExportFormat, TooLong
from datapruner.schemas.datasets import DatasetAnswer, VersionAnswer
from datapruner.schemas.evaluations import EvaluationAnswer
from datapruner.schemas.exports import ExportAnswer, SubsetFormat
from datapruner.schemas.jobs import JobAnswer
from datapruner.schemas.runs import RunAnswer

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa


@dataclass(frozen=True, slots=True, repr=False)
class Subset:
    """What `prune` gives. `path` is the file that was written, or else `content` has its bytes."""

    run: RunAnswer
    export: ExportAnswer
    path: Path | None
    content: bytes | None

    def __repr__(self) -> str:
        where = f"in {str(self.path)!r}" if self.content is None else f"as {len(self.content):,} bytes"
        return f"Subset({self.export.rows or 0:,} rows of {self.run.id}, {where})"


@dataclass(frozen=True, slots=True, repr=False)
class SqlResult:
    """Rows of a statement; `truncated` when there were more than the service sends. `types` are the columns'
    types as DuckDB names them."""

    table: pa.Table
    truncated: bool
    seconds: float
    types: Sequence[str]

    def __repr__(self) -> str:
        more = ", and there are more" if self.truncated else ""
        return f"SqlResult({self.table.num_rows:,} rows of {self.table.num_columns:,} columns{more})"

    @property
    def frame(self) -> pl.DataFrame:
        """The rows as a Polars frame."""
        import polars as pl

        return pl.DataFrame(self.table)


async def prune(
    session: Session,
    data: Data,
    *,
    out: str | Path | None = None,
    name: str | None = None,
    mapping: Mapping[str, str] | None = None,
    export: SubsetFormat = "parquet",
    progress: Watcher | None = None,
    **run: Unpack[RunOptions],
) -> Subset:
    """Prune a file or rows, and fetch the subset: to `out`, or as bytes.

    The rows become a dataset of the service, called `name` or something made up. `run` is what to run:
    `method`, `keep` and the other fields of `datapruner.schemas.runs.RunRequest`.
    `progress` is called with the job at every change. Raises DataprunerError.
    """
    started = await session.ask(operations.prune(data, name=name, mapping=mapping, export=export, **run))
    job = await _streams.wait(session, started.id, progress=progress)
    made = await session.ask(operations.get_run(_came(job, "run_id")))
    file = await session.ask(operations.get_export(_came(job, "export_id")))
    if out is not None:
        return Subset(made, file, await _streams.download(session, file.id, out), None)
    return Subset(made, file, None, await _streams.read(session, file.id))


async def create_dataset(
    session: Session,
    name: str,
    data: Data | None = None,
    *,
    source: AnySource | None = None,
    progress: Watcher | None = None,
    **options: Unpack[DatasetOptions],
) -> DatasetAnswer:
    """Make a dataset from a file, from rows, or from a source that the service reads itself; wait for it."""
    started = await session.ask(operations.create_dataset(name, data, source=source, **options))
    job = await _streams.wait(session, started.id, progress=progress)
    return await session.ask(operations.get_dataset(_came(job, "dataset_id")))


async def append(
    session: Session,
    dataset: str,
    data: Data | None = None,
    *,
    source: AnySource | None = None,
    only_new: bool = False,
    progress: Watcher | None = None,
) -> VersionAnswer:
    """Append rows as a new version and wait for it; without any, the dataset's own source is read again.

    With `only_new`, rows that the dataset has are left out; when all are, its latest version is given.
    """
    started = await session.ask(operations.add_version(dataset, data, source=source, only_new=only_new))
    job = await _streams.wait(session, started.id, progress=progress)
    number = int(_came(job, "version"))
    return await session.ask(operations.get_version(_came(job, "dataset_id"), number))


async def create_run(
    session: Session,
    dataset: str,
    *,
    version: int | None = None,
    progress: Watcher | None = None,
    **run: Unpack[RunOptions],
) -> RunAnswer:
    """Run over a version of a dataset, by default the latest, and wait for it."""
    started = await session.ask(operations.create_run(dataset, version=version, **run))
    job = await _streams.wait(session, started.id, progress=progress)
    return await session.ask(operations.get_run(_came(job, "run_id")))


async def create_evaluation(
    session: Session, run: str, *, progress: Watcher | None = None, **settings: Unpack[EvaluationOptions]
) -> EvaluationAnswer:
    """Find out whether what a run kept is better to train on than random rows, and wait for the verdict."""
    started = await session.ask(operations.create_evaluation(run, **settings))
    job = await _streams.wait(session, started.id, progress=progress)
    return await session.ask(operations.get_evaluation(run, _came(job, "evaluation_id")))


async def create_export(
    session: Session,
    run: str,
    format: AnyExportFormat = "parquet",  # noqa: A002 (its name in the service)
    *,
    max_length: int | None = None,
    too_long: TooLong = "cut",
    progress: Watcher | None = None,
) -> ExportAnswer:
    """Write the subset of a run as a file at the service, and wait for it. The limit is of trainers' rows."""
    started = await session.ask(
        operations.create_export(run, format, max_length=max_length, too_long=too_long)
    )
    job = await _streams.wait(session, started.id, progress=progress)
    return await session.ask(operations.get_export(_came(job, "export_id")))


async def sql(
    session: Session,
    query: str,
    parameters: Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    max_rows: int | None = None,
) -> SqlResult:
    """One SELECT over the project's datasets; `parameters` fill `?` and `$1`, or `$name`.

    Needs a token with the scope sql. Raises UsageError for a statement that the service refuses.
    """
    from datapruner.query import results

    async with session.opened(operations.run_sql(query, parameters, max_rows=max_rows)) as response:
        await session.wire.read(response)
        seconds = float(response.headers.get("Datapruner-Seconds", "nan"))
        truncated = response.headers.get("Datapruner-Truncated") == "true"
        try:
            found = results.read(response.content, truncated=truncated, seconds=seconds)
        except ValueError as error:
            raise ServiceError("the answer of the service is no Arrow stream of a statement") from error
    return SqlResult(found.table, found.truncated, found.seconds, found.types)


def _came(job: JobAnswer, name: str) -> str:
    """One of the things that came of a job, which has to be there."""
    found = getattr(job.result, name, None)
    if found is None:
        raise ServiceError(f"job {job.id} succeeded without a {name}")
    return str(found)
