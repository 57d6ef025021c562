"""What published runs say: masks by page, one sample explained, two runs compared.

Everything is asked of the run's DuckDB files where they lie; memory is bounded by a page, a sample, or two
columns of numbers, never by the corpus. Comparisons and whole reports take turns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import duckdb

from datapruner.catalog.models import Run
from datapruner.errors import BusyError, ConflictError
from datapruner.explaining.explain import explain_run
from datapruner.request.config import RunConfig
from datapruner.runs import published
from datapruner.runs.comparison import Compared, compare
from datapruner.schemas.against import Against
from datapruner.schemas.evaluations import Evaluation
from datapruner.schemas.reports import RunReport
from datapruner.schemas.runs import Comparison, MaskAnswer, ReportAnswer, SampleAnswer
from datapruner.service.storage import Storage

T = TypeVar("T")
_PATIENCE_SECONDS = 10.0
_places = threading.BoundedSemaphore(2)
_queue = threading.BoundedSemaphore(8)  # at work or waiting: each holds a thread of the service
_LONGEST_ROW = 18  # digits
_LAST_ROW = 2**62  # beyond any; a cursor may say anything


def report(run: Run) -> ReportAnswer:
    """The report of a published run, with configuration and lineage."""
    return ReportAnswer.model_validate(
        {
            "run": run.id,
            "content_id": run.content_id,
            "config": run.config,
            "lineage": run.lineage,
            "report": run.report,
        }
    )


def masks(storage: Storage, run: Run, *, limit: int, after: int | None = None) -> list[MaskAnswer]:
    """Masks of at most `limit` kept samples, in row order, from beyond the row `after`.

    Raises ConflictError when the run selected nothing, StorageError when its file is gone.
    """
    if run.config["keep"] is None:
        raise ConflictError(f"run {run.id} selected nothing, so it has no masks", remedy="prune", field="run")
    with duckdb.connect(str(_database(storage, run)), read_only=True) as connection:
        # The rows first: their column is small, and lists are then read of these rows alone.
        first, last = connection.execute(
            "SELECT min(row), max(row) FROM (SELECT row FROM masks WHERE row > ? ORDER BY row LIMIT ?)",
            [-1 if after is None else max(-1, min(after, _LAST_ROW)), limit],
        ).fetchall()[0]
        found = connection.sql(
            "SELECT row, sample_id, kept_tokens, kept_spans, token_weight FROM masks "
            "WHERE row BETWEEN $first AND $last ORDER BY row",
            params={"first": first, "last": last},
        ).to_arrow_table()
    return [MaskAnswer.model_validate(each) for each in found.to_pylist()]


def explanation(storage: Storage, run: Run, corpus_key: str, sample: str, home: Path) -> SampleAnswer:
    """Everything known of one sample of a published run over the corpus at `corpus_key`.

    `sample` is a row number, or a sample id or enough of its start; `home` has the models. Raises
    NotFoundError, UsageError when several ids start so, StorageError.
    """
    is_row = sample.isascii() and sample.isdecimal() and len(sample) <= _LONGEST_ROW
    of_run = of_files(storage, run)
    storage.local(f"{run.key}/token_scores.parquet")
    wanted = f"row:{sample}" if is_row else sample
    signals = storage.folder(f"projects/{run.project_id}")
    found = explain_run(of_run, storage.local(corpus_key), wanted, signals, home)
    return SampleAnswer.model_validate(found)


def full_report(storage: Storage, run: Run, corpus_key: str, evaluated: list[Evaluation]) -> RunReport:
    """Everything that came of a published run over the corpus at `corpus_key`, with these evaluations.

    Raises BusyError when too much of this kind is at work, StorageError.
    """
    from datapruner.reporting.document import report_of  # with libraries that few requests need

    assert run.published_at is not None, run.id
    of_run, corpus = of_files(storage, run), storage.local(corpus_key)
    with turn():
        return report_of(of_run, corpus, run.published_at, evaluated)


def looked_into(storage: Storage, run: Run, corpus_key: str, look: Callable[[published.Run, Path], T]) -> T:
    """What `look` finds in a published run and the file of its corpus.

    Raises BusyError when too much of this kind is at work, StorageError, and as `look` does.
    """
    of_run, corpus = of_files(storage, run), storage.local(corpus_key)
    with turn():
        return look(of_run, corpus)


def comparison(storage: Storage, first: Run, second: Run) -> Comparison:
    """What two published runs make of the samples that both know (`datapruner.runs.comparison`).

    Raises BusyError when too many comparisons are at work, StorageError.
    """
    one, other = (_compared(storage, run) for run in (first, second))
    with turn():
        return compare(one, other)


def against(storage: Storage, first: Run, second: Run, x: str, y: str) -> Against:
    """A score of one run against a score of another (`datapruner.reporting.against`), which raises as this
    does; besides, BusyError, StorageError."""
    from datapruner.reporting.against import against  # with libraries that few requests need

    one, other = (_compared(storage, run) for run in (first, second))
    with turn():
        return against(one, other, x, y)


def _compared(storage: Storage, run: Run) -> Compared:
    return Compared(run.id, _database(storage, run), (run.report or {}).get("scores", ()))


@contextmanager
def turn() -> Iterator[None]:
    """One of the few places for work that takes memory. Raises BusyError when none becomes free, at once when
    many wait already."""
    if not _queue.acquire(blocking=False):
        raise _busy()
    try:
        if not _places.acquire(timeout=_PATIENCE_SECONDS):
            raise _busy()
        try:
            yield
        finally:
            _places.release()
    finally:
        _queue.release()


def _busy() -> BusyError:
    return BusyError("too many runs are being compared or reported on", remedy="try again in a while")


def of_files(storage: Storage, run: Run) -> published.Run:
    """A published run as the library knows it, its database at hand."""
    assert run.lineage is not None, run.id
    assert run.report is not None, run.id
    return published.Run(
        run_id=run.id,
        folder=_database(storage, run).parent,
        config=RunConfig(**run.config),
        lineage=run.lineage,
        report=published.Report(**run.report),
        measured=run.measured or 0,
        seconds=run.seconds or 0.0,
    )


def _database(storage: Storage, run: Run) -> Path:
    assert run.key is not None, run.id
    return storage.local(f"{run.key}/run.duckdb")
