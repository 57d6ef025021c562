"""When a cron expression fires in a time zone.

Notable choice: cron times are times on the wall clock of the zone. One that the clock skips (daylight saving
begins) fires at the first moment after the gap; one that it shows twice fires the first time. Only crons of
every hour, however they spell it (`*`, `*/1`, `0-23`), follow elapsed time instead, for an hour without a
fire would be a surprise.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from datapruner.errors import UsageError

_EVERY_HOUR = set(range(24))
_PUT_BACK = timedelta(hours=3)  # the most by which clocks are put back, and a little
#: Names of the tz database that mean no place: what a machine is set to, or that it has not been set.
_NOWHERE = frozenset({"Factory", "localtime"})


def fire_times(cron: str, timezone: str, after: datetime) -> Iterator[datetime]:
    """Fire times later than `after`, in order; all in UTC without a zone, as in the catalog.

    Raises UsageError for a cron expression or time zone that is not one, and for one that never fires.
    """
    last = after
    for moment in _moments(cron, timezone, after):
        if moment > last:  # else the clock showed it before, or skipped several at once
            last = moment
            yield moment
    if last == after:
        raise _bad_cron(cron, "never fires")


def _moments(cron: str, timezone: str, start: datetime, *, reverse: bool = False) -> Iterator[datetime]:
    """Fire times from about `start` on, or back from there; some perhaps twice. Raises UsageError."""
    try:
        zone = ZoneInfo(timezone)
    except (KeyError, ValueError, OSError) as error:
        raise _bad_zone(timezone) from error
    fields = cron.split()
    if len(fields) != 5:
        raise _bad_cron(cron, "not five fields")
    local = start.replace(tzinfo=UTC).astimezone(zone)
    try:
        times = CronSim(cron, local.replace(tzinfo=None), reverse)
        if times.hours == _EVERY_HOUR:
            times = CronSim(" ".join([fields[0], "*", *fields[2:]]), local, reverse)
    except CronSimError as error:
        raise _bad_cron(cron, str(error).lower()) from error
    return (_moment(time, zone) for time in times)


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


def known_zone(timezone: str) -> str:
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


def latest_fire(cron: str, timezone: str, due: datetime, now: datetime) -> datetime:
    """The last fire time in [due, now], of which `due` is one."""
    later = now + _PUT_BACK  # the clock may have shown times after this one already
    back = _moments(cron, timezone, later, reverse=True)
    return next((max(due, moment) for moment in back if moment <= now), due)
