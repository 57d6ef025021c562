"""What a project's SQL can name: which published files each schema has, and what its catalog tables say.

    <dataset>        the corpus of its latest version, and its latest published run
    <dataset id>     the same; the only way to a dataset whose name DuckDB has taken, such as `main`
    <dataset>_v<n>   the corpus of version n
    <run id>         a run

Where a dataset is called like another's version or like a run, the dataset wins.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import Row, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from datapruner.catalog.models import Dataset, Job, Run, Version
from datapruner.query.sandbox import RESERVED

Keys = dict[str, list[str]]
"""Schema names and the storage keys of their files."""
CatalogRow = dict[str, str | int | float | datetime | None]

_AT_ONCE = 1_000
_VERSION = re.compile(r"(?P<dataset>\w+)_v(?P<number>[1-9]\d{0,8})", re.ASCII)


def schema_name(dataset_id: str, name: str) -> str:
    """The schema of a dataset."""
    return dataset_id if name in RESERVED else name


def named(session: Session, project_id: str, words: Collection[str]) -> Keys:
    """Those of these words that are schemas of the project."""
    found: Keys = {}
    for part in _parts(words):
        found |= _runs(session, project_id, [word for word in part if word.startswith("run_")])
    for part in _parts(words):
        found |= _versions(session, project_id, part)
    for part in _parts(words):
        wanted = or_(Dataset.id.in_(part), Dataset.name.in_(part))
        for row in session.execute(_datasets(project_id).where(wanted)):
            for name in {row.id, schema_name(row.id, row.name)} & set(part):
                found |= _dataset(name, row)
    return found


def first(session: Session, project_id: str, most: int) -> Keys:
    """The schemas of the project's first datasets, by name, without those whose names were made up."""
    found: Keys = {}
    for row in session.execute(_datasets(project_id).where(Dataset.named).order_by(Dataset.name).limit(most)):
        found |= _dataset(schema_name(row.id, row.name), row)
    return found


def datasets(session: Session, project_id: str) -> list[CatalogRow]:
    """The table `datasets`: every dataset with its latest version, by name."""
    return [
        {
            "dataset": row.name,
            "dataset_id": row.id,
            "schema": schema_name(row.id, row.name),
            "version": row.number,
            "rows": row.rows,
            "accepted": row.accepted,
            "rejected": row.rejected,
            "duplicates": row.duplicates,
            "new_rows": row.new_rows,
            "bytes": row.bytes,
            "latest_run_id": row.run_id,
            "created_at": row.created_at,
            "version_created_at": row.version_created_at,
        }
        for row in session.execute(_datasets(project_id).order_by(Dataset.name))
    ]


def runs(session: Session, project_id: str) -> list[CatalogRow]:
    """The table `runs`: every run, the newest first."""
    counts = ("ingested", "kept", "pruned", "rejected", "errored", "response_tokens", "kept_tokens")
    query = (
        select(
            Run.id,
            Run.dataset_id,
            Run.config,
            Run.content_id,
            Run.measured,
            Run.seconds,
            Run.created_at,
            Run.published_at,
            Dataset.name,
            Version.number,
            Job.state,
            *(Run.report[name].as_integer().label(name) for name in counts),
        )
        .join(Dataset, Dataset.id == Run.dataset_id)
        .join(Job, Job.id == Run.job_id)
        .outerjoin(Version, Version.id == Run.version_id)
        .where(Run.project_id == project_id)
        .order_by(Run.id.desc())
    )
    return [
        {
            "run_id": row.id,
            "dataset": row.name,
            "dataset_id": row.dataset_id,
            "version": row.number,
            # As in the API: what follows a run in its job, such as an export, does not undo it.
            "state": row.state if row.published_at is None else "succeeded",
            "method": "+".join(choice["name"] for choice in row.config["methods"]),
            **_keep(row.config.get("keep") or {}),
            **{name: getattr(row, name) for name in counts},
            "measured": row.measured,
            "seconds": row.seconds,
            "content_id": row.content_id,
            "created_at": row.created_at,
            "published_at": row.published_at,
        }
        for row in session.execute(query)
    ]


def _keep(keep: dict[str, Any]) -> CatalogRow:
    return {f"keep_{name}": keep.get(name) for name in ("share", "count", "tokens")}


def _parts(words: Collection[str]) -> Iterator[list[str]]:
    """The words, few enough at a time for one statement."""
    rest = iter(words)
    while part := list(islice(rest, _AT_ONCE)):
        yield part


def _runs(session: Session, project_id: str, ids: Sequence[str]) -> Keys:
    query = select(Run.id, Run.key).where(
        Run.project_id == project_id, Run.published_at.is_not(None), Run.id.in_(ids)
    )
    return {row.id: _run_files(row.key) for row in session.execute(query)}


def _versions(session: Session, project_id: str, words: Sequence[str]) -> Keys:
    split = {word: match for word in words if (match := _VERSION.fullmatch(word))}
    query = (
        select(Dataset.name, Version.number, Version.key)
        .join(Version, Version.dataset_id == Dataset.id)
        .where(
            Dataset.project_id == project_id,
            Dataset.name.in_({match["dataset"] for match in split.values()}),
            Version.number.in_({int(match["number"]) for match in split.values()}),
        )
    )
    found = {f"{row.name}_v{row.number}": [row.key] for row in session.execute(query)}
    return {name: keys for name, keys in found.items() if name in split}


def _datasets(project_id: str) -> Select[*tuple[Any, ...]]:
    """The project's datasets, each with its latest version and its latest published run, if any."""
    newest = (
        select(Version.dataset_id, func.max(Version.number).label("number"))
        .group_by(Version.dataset_id)
        .subquery()
    )
    place = func.row_number().over(
        partition_by=Run.dataset_id, order_by=(Run.published_at.desc(), Run.id.desc())
    )
    published = (
        select(Run.id, Run.dataset_id, Run.key, place.label("place"))
        .where(Run.project_id == project_id, Run.published_at.is_not(None))
        .subquery()
    )
    return (
        select(
            Dataset.id,
            Dataset.name,
            Dataset.created_at,
            Version.number,
            Version.key,
            Version.rows,
            Version.accepted,
            Version.rejected,
            Version.duplicates,
            Version.new_rows,
            Version.bytes,
            Version.created_at.label("version_created_at"),
            published.c.id.label("run_id"),
            published.c.key.label("run_key"),
        )
        .outerjoin(newest, newest.c.dataset_id == Dataset.id)
        .outerjoin(Version, and_(Version.dataset_id == Dataset.id, Version.number == newest.c.number))
        .outerjoin(published, and_(published.c.dataset_id == Dataset.id, published.c.place == 1))
        .where(Dataset.project_id == project_id)
    )


def _dataset(name: str, row: Row[*tuple[Any, ...]]) -> Keys:
    """The schema of a dataset under this name; none before its first version."""
    keys = [] if row.key is None else [row.key]
    if row.run_key is not None:
        keys += _run_files(row.run_key)
    return {name: keys} if keys else {}


def _run_files(key: str) -> list[str]:
    return [f"{key}/run.duckdb", f"{key}/token_scores.parquet"]
