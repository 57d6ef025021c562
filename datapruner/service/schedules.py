"""Schedules: when they fire, and the job that comes of it.

Notable choices:
- cron times are times on the wall clock of the schedule's zone. One that the clock skips (daylight saving
  begins) fires at the first moment after the gap; one that it shows twice fires the first time. Only crons
  of every hour, however they spell it (`*`, `*/1`, `0-23`), follow elapsed time instead, for an hour without
  a fire would be a surprise;
- a fire is a row under UNIQUE(schedule, fire time), inserted in the transaction that submits the job and
  moves the schedule on: any number of tickers on one database fire once;
- after a time without tickers only the latest missed fire happens: it reads all the rows that the others
  would have read;
- with `overlap` queue one fire waits behind the one that works. More would find nothing to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, takewhile
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import structlog
from cronsim import CronSim, CronSimError
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from datapruner.catalog import schedules as catalog
from datapruner.catalog.database import Database
from datapruner.catalog.models import Dataset, Fire, Job, Schedule, new_id, utcnow
from datapruner.errors import ConflictError, DataprunerError, UsageError
from datapruner.request.config import RunConfig
from datapruner.schemas.schedules import ChangedSchedule, NewSchedule
from datapruner.service import comparison_sets, queue, webhooks
from datapruner.settings import Settings

KIND = "schedule"
_PRIORITY = -1  # nobody waits for the answer
_MOST_OPEN = {"skip": 0, "queue": 1}
_MAX_NAME = 63
_EVERY_HOUR = set(range(24))
#: Names of the tz database that mean no place: what a machine is set to, or that it has not been set.
_NOWHERE = frozenset({"Factory", "localtime"})
log = structlog.stdlib.get_logger(__name__)


def fire_times(cron: str, timezone: str, after: datetime) -> Iterator[datetime]:
    """Fire times later than `after`, in order; all in UTC without a zone, as in the catalog.

    Raises UsageError for a cron expression or time zone that is not one, and for one that never fires.
    """
    try:
        zone = ZoneInfo(timezone)
    except (KeyError, ValueError, OSError) as error:
        raise _bad_zone(timezone) from error
    fields = cron.split()
    if len(fields) != 5:
        raise _bad_cron(cron, "not five fields")
    start = after.replace(tzinfo=UTC).astimezone(zone)
    try:
        times = CronSim(cron, start.replace(tzinfo=None))
        if times.hours == _EVERY_HOUR:
            times = CronSim(" ".join([fields[0], "*", *fields[2:]]), start)
    except CronSimError as error:
        raise _bad_cron(cron, str(error).lower()) from error
    return _later(after, (_moment(time, zone) for time in times), cron)


def _later(after: datetime, moments: Iterator[datetime], cron: str) -> Iterator[datetime]:
    last = after
    for moment in moments:
        if moment > last:  # else the clock showed it before, or skipped several at once
            last = moment
            yield moment
    if last == after:
        raise _bad_cron(cron, "never fires")


def _moment(time: datetime, zone: ZoneInfo) -> datetime:
    """A fire time in UTC; of a time on the wall clock that is skipped, the first moment after the gap."""
    if time.tzinfo is None:
        time = time.replace(tzinfo=zone)
        while time.astimezone(UTC).astimezone(zone) != time:
            time += timedelta(minutes=1)
    return time.astimezone(UTC).replace(tzinfo=None)


def next_fire(cron: str, timezone: str, after: datetime) -> datetime:
    """The first fire time later than `after`. Raises UsageError."""
    return next(fire_times(cron, timezone, after))


@cache
def _zones() -> frozenset[str]:
    """Names of zones that one may ask for. `right/…` and `posix/…`, copies with and without leap seconds, and
    `posixrules` are not among those that are available."""
    return frozenset(available_timezones()) - _NOWHERE


def _checked(timezone: str) -> str:
    """A zone that one may ask for. Raises UsageError."""
    if timezone not in _zones():
        raise _bad_zone(timezone)
    return timezone


def _bad_zone(timezone: str) -> UsageError:
    return UsageError(
        f"{timezone}: no such time zone",
        remedy="give a name of the tz database, such as Europe/Berlin",
        field="timezone",
    )


def _bad_cron(cron: str, what: str) -> UsageError:
    return UsageError(
        f"cron {cron!r}: {what}",
        remedy="give minute, hour, day of month, month, weekday, such as '0 2 * * MON-FRI'",
        field="cron",
    )


def _latest(schedule: Schedule, due: datetime, now: datetime) -> datetime:
    """The last fire time in [due, now]. Looks back further and further: years of minutes may lie between."""
    lookback = timedelta(hours=1)
    while (start := now - lookback) > due:
        missed = list(takewhile(lambda t: t <= now, fire_times(schedule.cron, schedule.timezone, start)))
        if missed:
            return missed[-1]
        lookback *= 8
    missed = list(takewhile(lambda t: t <= now, fire_times(schedule.cron, schedule.timezone, due)))
    return missed[-1] if missed else due


def tick(db: Database, settings: Settings, now: datetime | None = None) -> list[str]:
    """Fire what is due; the ids of the jobs submitted. `now` in UTC without a zone."""
    now = now or utcnow()
    with db.read() as session:
        due = catalog.due(session, now)
    submitted = []
    for schedule_id in due:
        try:
            with db.write() as session:
                job = _fire_due(session, settings, schedule_id, now)
        except (DataprunerError, IntegrityError) as error:  # the other schedules are still to fire
            log.warning("a schedule did not fire", schedule_id=schedule_id, error=str(error))
        else:
            if job is not None:
                submitted.append(job.id)
    return submitted


def _fire_due(session: Session, settings: Settings, schedule_id: str, now: datetime) -> Job | None:
    schedule = catalog.locked(session, schedule_id)
    if schedule is None or schedule.paused or schedule.next_fire_at is None or schedule.next_fire_at > now:
        return None  # another ticker was first, or it was changed or deleted meanwhile
    fire_at = _latest(schedule, schedule.next_fire_at, now)
    schedule.next_fire_at = next_fire(schedule.cron, schedule.timezone, now)
    overlaps = catalog.open_jobs(session, schedule.id) > _MOST_OPEN[schedule.overlap]
    try:
        with session.begin_nested():
            fire = Fire(id=new_id("fir"), schedule_id=schedule.id, fire_at=fire_at, outcome="skipped")
            session.add(fire)
    except IntegrityError:  # fired already, by a clock ahead of this one
        return None
    return None if overlaps else _start(session, settings, schedule, fire, schedule.token_id, None)


def fire_now(
    session: Session, settings: Settings, schedule: Schedule, token_id: str | None, request_id: str | None
) -> Job:
    """A job at once, whether or not the schedule is paused or still works, for the token that asks."""
    fire = Fire(id=new_id("fir"), schedule_id=schedule.id, fire_at=utcnow(), outcome="skipped")
    session.add(fire)
    return _start(session, settings, schedule, fire, token_id, request_id)


def _start(
    session: Session,
    settings: Settings,
    schedule: Schedule,
    fire: Fire,
    token_id: str | None,
    request_id: str | None,
) -> Job:
    dataset = session.get_one(Dataset, schedule.dataset_id)
    job = queue.submit(
        session,
        project_id=schedule.project_id,
        kind=KIND,
        payload=_payload(schedule, dataset),
        token_id=token_id,
        schedule_id=schedule.id,
        request_id=request_id,
        max_attempts=settings.max_attempts,
        priority=_PRIORITY,
    )
    fire.job_id, fire.outcome = job.id, "started"
    return job


def _payload(schedule: Schedule, dataset: Dataset) -> dict[str, Any]:
    """Fetch new rows if there is a place to fetch them from, run on the latest version, export."""
    payload: dict[str, Any] = {}
    source = schedule.source or dataset.source
    if source is not None and source["kind"] != "upload":
        payload["ingest"] = {"dataset_id": dataset.id, "source": source, "mode": "append_new"}
    payload["run"] = {"dataset_id": dataset.id, "version_id": None, "config": schedule.run}
    if schedule.export_format is not None:
        payload["export"] = {"format": schedule.export_format}
    return payload


def _export(wanted: NewSchedule, config: RunConfig) -> str | None:
    """What to export after a run; by default nothing of one that scores only. Raises UsageError."""
    if config.keep is not None:
        return wanted.export
    if "export" in wanted.model_fields_set and wanted.export is not None:
        raise UsageError(
            "a run that only scores has no subset to export",
            remedy="say how much to keep, or leave the export out",
            field="export",
        )
    return None


def create(
    session: Session, dataset: Dataset, wanted: NewSchedule, config: RunConfig, token_id: str | None
) -> Schedule:
    """A schedule on `dataset`. Raises UsageError naming the field at fault, ConflictError for a taken name.

    `config` is of `wanted.run`, without the mapping. That, source and webhook are to be checked before,
    outside of the transaction: it may take long.
    """
    now = utcnow()
    config = config.model_copy(update={"mapping": dict(dataset.mapping or {})})
    comparison_sets.pinned(session, dataset.project_id, config)  # for the errors; each fire pins anew
    schedule = Schedule(
        id=new_id("sch"),
        project_id=dataset.project_id,
        dataset_id=dataset.id,
        token_id=token_id,
        name=wanted.name or _free_name(session, dataset),
        cron=wanted.cron,
        timezone=wanted.timezone,
        run=config.model_dump(mode="json"),
        export_format=_export(wanted, config),
        source=None if wanted.source is None else wanted.source.model_dump(mode="json"),
        overlap=wanted.overlap,
        webhook_url=None if wanted.webhook is None else str(wanted.webhook),
        webhook_secret=None if wanted.webhook is None else webhooks.new_secret(),
        next_fire_at=next_fire(wanted.cron, _checked(wanted.timezone), now),
    )
    try:
        with session.begin_nested():
            session.add(schedule)
    except IntegrityError as error:
        raise ConflictError(
            f"{schedule.name}: a schedule of this name exists", remedy="give another name", field="name"
        ) from error
    if wanted.keep_versions is not None:
        dataset.keep_versions = wanted.keep_versions
    if wanted.keep_runs is not None:
        dataset.keep_runs = wanted.keep_runs
    return schedule


def _free_name(session: Session, dataset: Dataset) -> str:
    stem = dataset.name[: _MAX_NAME - 6]
    taken = catalog.names_like(session, dataset.project_id, stem)
    if dataset.name not in taken:
        return dataset.name
    return next(name for n in range(2, len(taken) + 3) if (name := f"{stem}_{n}") not in taken)


def change(schedule: Schedule, wanted: ChangedSchedule) -> None:
    """Change what is given; raises UsageError.

    When the times change or a pause ends, the next fire time is computed anew from now.
    """
    moved = wanted.cron is not None or wanted.timezone is not None
    resumed = schedule.paused and wanted.paused is False
    schedule.cron = schedule.cron if wanted.cron is None else wanted.cron
    schedule.timezone = schedule.timezone if wanted.timezone is None else _checked(wanted.timezone)
    schedule.overlap = wanted.overlap or schedule.overlap
    schedule.paused = schedule.paused if wanted.paused is None else wanted.paused
    if moved or resumed:
        schedule.next_fire_at = next_fire(schedule.cron, schedule.timezone, utcnow())
    if schedule.paused:
        schedule.next_fire_at = None


def next_fires(schedule: Schedule, count: int = 5) -> list[datetime]:
    """The next fire times, in UTC without a zone; none while it is paused."""
    if schedule.paused:
        return []
    return list(islice(fire_times(schedule.cron, schedule.timezone, utcnow()), count))
