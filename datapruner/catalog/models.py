"""The metadata tables: what is published, who may see it, what is to be done and when.

Notable choices:
- a file without a row here does not exist for users, and a row says "published" only after its file is there;
- everything belongs to a project; a token is bound to one;
- times are UTC, kept without a zone so that SQLite and PostgreSQL return the same values;
- ids are text, sort by their time of creation, and serve as the cursor of every listing: an index of what a
  listing is of, and the id, makes a page cost the same however much there is.
"""

from __future__ import annotations

import re
import secrets
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, MetaData, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from datapruner.catalog import clock
from datapruner.schemas.datasets import MADE_UP

JobState = str
STATES = ("queued", "running", "succeeded", "failed", "cancelled")
FINISHED = ("succeeded", "failed", "cancelled")
OPEN = ("queued", "running")
DEFAULT_PROJECT = "default"
_EPOCH = datetime.fromtimestamp(0, UTC).replace(tzinfo=None)

_NAMES = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def utcnow() -> datetime:
    """Now, in UTC, without a zone, by the clock that all hosts share: what every time column holds."""
    return _EPOCH + timedelta(microseconds=clock.microseconds())


_drawing = threading.Lock()
_drawn = 0


def new_id(prefix: str) -> str:
    """An id such as `run_019a3f5c2b7e4d1f0a92`: milliseconds, then chance; later ones sort after.

    So do those that a process draws within one millisecond, or while its clock goes back.
    """
    global _drawn
    number = clock.microseconds() // 1_000 << 40 | secrets.randbits(40)
    with _drawing:
        _drawn = max(number, _drawn + 1 + secrets.randbits(20))
        return f"{prefix}_{_drawn:022x}"


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map = {  # noqa: RUF012
        dict[str, Any]: JSON(none_as_null=True),
        list[str]: JSON(none_as_null=True),
        int: BigInteger(),
        str: String(),
    }


class Project(Base):
    """Owns everything else. Quotas are null where there is no limit."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    quota_rows: Mapped[int | None]
    """Rows of all dataset versions together."""
    quota_bytes: Mapped[int | None]
    """Bytes of all published files together: uploads, corpora, runs, exports."""
    quota_jobs: Mapped[int | None]
    """Jobs that may run at the same time; further ones wait."""
    created_at: Mapped[datetime] = mapped_column(default=utcnow)


class Token(Base):
    """A bearer token; only the HMAC of the secret is kept. `scopes` among read, write, sql, admin."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    name: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]]
    max_jobs: Mapped[int | None]
    """Jobs of this token that may run at the same time; further ones wait."""
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class InCommon(Base):
    """What all hosts of a service have in common, by name: the first one says it, later ones compare."""

    __tablename__ = "in_common"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class SignIn(Base):
    """A browser that signed in with a token; only the HMAC of what its cookie holds is kept."""

    __tablename__ = "sign_ins"

    id: Mapped[str] = mapped_column(primary_key=True)
    token_id: Mapped[str] = mapped_column(ForeignKey("tokens.id"), index=True)
    digest: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class SavedQuery(Base):
    """An SQL statement that a project keeps by name."""

    __tablename__ = "saved_queries"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    sql: Mapped[str] = mapped_column(Text)
    changed_at: Mapped[datetime] = mapped_column(default=utcnow)

    __table_args__ = (
        UniqueConstraint("project_id", "name"),
        Index("ix_saved_queries_project_id_id", "project_id", "id"),
    )


class Job(Base):
    """One unit of work in the lease queue; `attempt` is the fencing token of whoever holds the lease.

    `payload` says what to do, `progress` how far it is, `result` the ids of what came of it, `error` a
    problem document. `sequence` rises with every change that a listener should see.
    """

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    token_id: Mapped[str | None] = mapped_column(ForeignKey("tokens.id"))
    schedule_id: Mapped[str | None] = mapped_column(ForeignKey("schedules.id"))
    kind: Mapped[str]
    payload: Mapped[dict[str, Any]]
    state: Mapped[JobState] = mapped_column(default="queued")
    priority: Mapped[int] = mapped_column(default=0)
    """Higher runs first."""
    attempt: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    """Attempts that ended badly; a released lease is none."""
    max_attempts: Mapped[int] = mapped_column(default=3)
    run_after: Mapped[datetime] = mapped_column(default=utcnow)
    lease_until: Mapped[datetime | None]
    worker: Mapped[str | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    request_id: Mapped[str | None]
    """Of the HTTP request that asked for it, for the logs."""
    progress: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    sequence: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_jobs_claim", "state", "run_after", "priority"),
        Index("ix_jobs_project_id_id", "project_id", "id"),
        Index("ix_jobs_project_id_state_id", "project_id", "state", "id"),
        Index("ix_jobs_project_id_kind_id", "project_id", "kind", "id"),
        Index("ix_jobs_schedule_id_state", "schedule_id", "state"),
    )


def _is_named(context: Any) -> bool:
    name: str = context.get_current_parameters()["name"]
    return re.fullmatch(MADE_UP, name) is None


class Dataset(Base):
    """A named series of immutable versions. `source` is where new rows come from, if it can be read again."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    """A plain lower-case identifier: it is the schema's name in SQL."""
    named: Mapped[bool] = mapped_column(default=_is_named)
    """Whether somebody gave it that name."""
    source: Mapped[dict[str, Any] | None]
    mapping: Mapped[dict[str, Any] | None]
    keep_versions: Mapped[int | None]
    """Retention: how many versions to keep; null keeps all."""
    keep_runs: Mapped[int | None]
    next_version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)

    __table_args__ = (
        UniqueConstraint("project_id", "name"),
        Index("ix_datasets_project_id_id", "project_id", "id"),
        Index("ix_datasets_project_id_named_id", "project_id", "named", "id"),
    )


class Version(Base):
    """A published corpus file. The row exists only once the file does."""

    __tablename__ = "versions"

    id: Mapped[str] = mapped_column(primary_key=True)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), index=True)
    number: Mapped[int]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), unique=True)
    key: Mapped[str]
    """Of the corpus file in storage."""
    corpus_hash: Mapped[str]
    rows: Mapped[int]
    accepted: Mapped[int]
    rejected: Mapped[int]
    duplicates: Mapped[int]
    new_rows: Mapped[int]
    """Rows that the version before it did not have."""
    bytes: Mapped[int]
    report: Mapped[dict[str, Any]]
    """Shapes, columns, reject counts by code, sources."""
    created_at: Mapped[datetime] = mapped_column(default=utcnow)

    __table_args__ = (UniqueConstraint("dataset_id", "number"),)


class Run(Base):
    """One run of one or more methods over a version; `published_at` is set once its file is there."""

    __tablename__ = "runs"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    version_id: Mapped[str | None] = mapped_column(ForeignKey("versions.id"), index=True)
    """Null until the version that the run is to read has been ingested."""
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    config: Mapped[dict[str, Any]]
    """A `datapruner.request.config.RunConfig`."""
    key: Mapped[str | None]
    """Folder in storage that holds run.duckdb and run.json."""
    content_id: Mapped[str | None]
    """Hash of configuration and lineage: equal for equal results."""
    lineage: Mapped[dict[str, Any] | None]
    report: Mapped[dict[str, Any] | None]
    measured: Mapped[int | None]
    """Samples that went through the proxy model for this run."""
    seconds: Mapped[float | None]
    bytes: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    published_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_runs_project_id_id", "project_id", "id"),
        Index("ix_runs_dataset_id_id", "dataset_id", "id"),
    )


class Export(Base):
    """A subset as a file. `format` is one of `rows.formats.AnyExportFormat`; `max_length`, `too_long` and
    `counts` (`schemas.exports.TrainerCounts`) are of those for trainers."""

    __tablename__ = "exports"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    format: Mapped[str]
    max_length: Mapped[int | None]
    too_long: Mapped[str | None]
    key: Mapped[str | None]
    rows: Mapped[int | None]
    counts: Mapped[dict[str, Any] | None]
    bytes: Mapped[int | None]
    sha256: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    published_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_exports_project_id_id", "project_id", "id"),
        Index("ix_exports_run_id_id", "run_id", "id"),
    )


class Evaluation(Base):
    """An evaluation of a run.

    `settings`: a `datapruner.request.evaluating.EvaluationSettings`, each held-out set at a version.
    `document`: a `datapruner.schemas.evaluations.Evaluation`, null until it is there.
    """

    __tablename__ = "evaluations"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    settings: Mapped[dict[str, Any]]
    verdict: Mapped[str | None]
    document: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    published_at: Mapped[datetime | None]

    __table_args__ = (Index("ix_evaluations_run_id_id", "run_id", "id"),)


class Upload(Base):
    """A file or inline rows as they came, kept until the version made of them is published or given up."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    key: Mapped[str]
    name: Mapped[str]
    """For messages only; never part of a path."""
    bytes: Mapped[int]
    sha256: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=utcnow)


class Schedule(Base):
    """A curation job that comes back: cron and time zone, what to run, and where new rows come from."""

    __tablename__ = "schedules"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), index=True)
    token_id: Mapped[str | None] = mapped_column(ForeignKey("tokens.id"))
    name: Mapped[str]
    cron: Mapped[str]
    timezone: Mapped[str]
    run: Mapped[dict[str, Any]]
    """A `datapruner.request.config.RunConfig`."""
    export_format: Mapped[str | None]
    evaluation: Mapped[dict[str, Any] | None]
    """A `datapruner.request.evaluating.EvaluationSettings`, of what is done after the run; null: nothing."""
    source: Mapped[dict[str, Any] | None]
    overlap: Mapped[str] = mapped_column(default="skip")
    """skip or queue: what becomes of a fire while the one before it still works."""
    webhook_url: Mapped[str | None]
    webhook_secret: Mapped[str | None] = mapped_column(Text)
    paused: Mapped[bool] = mapped_column(default=False)
    next_fire_at: Mapped[datetime | None] = mapped_column(index=True)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)

    __table_args__ = (
        UniqueConstraint("project_id", "name"),
        Index("ix_schedules_project_id_id", "project_id", "id"),
    )


class Fire(Base):
    """That a schedule fired, once per fire time however many tickers there are."""

    __tablename__ = "fires"

    id: Mapped[str] = mapped_column(primary_key=True)
    schedule_id: Mapped[str] = mapped_column(ForeignKey("schedules.id"))
    fire_at: Mapped[datetime]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    outcome: Mapped[str]
    """started, or skipped because the fire before it still worked."""
    created_at: Mapped[datetime] = mapped_column(default=utcnow)

    __table_args__ = (
        UniqueConstraint("schedule_id", "fire_at"),
        Index("ix_fires_schedule_id_id", "schedule_id", "id"),
    )


class Delivery(Base):
    """One attempt to deliver a webhook."""

    __tablename__ = "deliveries"

    id: Mapped[str] = mapped_column(primary_key=True)
    schedule_id: Mapped[str] = mapped_column(ForeignKey("schedules.id"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    """The job whose end is told."""
    attempt: Mapped[int]
    status: Mapped[int | None]
    """HTTP status of the answer; null when there was none."""
    error: Mapped[str | None]
    seconds: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(default=utcnow)

    __table_args__ = (Index("ix_deliveries_schedule_id_id", "schedule_id", "id"),)


class Reply(Base):
    """The first answer to a request with an Idempotency-Key, given again to its repetitions."""

    __tablename__ = "replies"

    id: Mapped[str] = mapped_column(primary_key=True)
    token_id: Mapped[str] = mapped_column(ForeignKey("tokens.id"))
    key: Mapped[str]
    fingerprint: Mapped[str]
    """Hash of method, path and body: the same key with another request is an error."""
    status: Mapped[int | None]
    """Null while the first request is still being answered."""
    headers: Mapped[dict[str, Any] | None]
    body: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)

    __table_args__ = (UniqueConstraint("token_id", "key"),)
