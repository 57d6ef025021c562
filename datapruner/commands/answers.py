"""How the answers of a service are said: lists as tables, single things as pairs, all of it with --json."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from rich.text import Text

from datapruner.commands import display
from datapruner.commands.display import Output

if TYPE_CHECKING:
    from pydantic import BaseModel

    from datapruner.schemas.datasets import Deleted

T = TypeVar("T", bound="BaseModel")


def listing(
    output: Output, name: str, found: Iterable[T], limit: int, columns: Mapping[str, Callable[[T], object]]
) -> None:
    """The first `limit` of what is found; `columns` say what of each is shown."""
    some = list(islice(found, limit))
    output.document({name: [each.model_dump(mode="json") for each in some]})
    if not some:
        output.show(Text(f"no {name}"))
        return
    rows = [[_cell(of(each)) for of in columns.values()] for each in some]
    numeric = [column for at, column in enumerate(columns) if isinstance(rows[0][at], int)]
    made = display.table(*columns, right=numeric)
    made.columns[0].no_wrap = True  # what other commands want to be given, in one piece
    for row in rows:
        made.add_row(*map(display.number, row))
    output.show(made)


def details(output: Output, about: BaseModel, shown: Mapping[str, object]) -> None:
    """One thing."""
    output.document(about.model_dump(mode="json"))
    output.show(display.pairs({name: _cell(value) for name, value in shown.items() if value is not None}))


def deleted(output: Output, what: str, about: Deleted) -> None:
    """What is gone, or would be."""
    output.document(about.model_dump(mode="json"))
    with_it = ", ".join(f"{each.count:,} {each.kind}" for each in about.dependents if each.count)
    verb = "is deleted" if about.deleted else "would be deleted"
    output.show(Text(f"{what} {verb}{f', with {with_it}' if with_it else ''}"))


def when(moment: datetime, zone: str | None = None) -> str:
    """A time on the wall clock of a zone of the tz database, which is named; by default on the clock here.

    The offset from UTC is there in both cases. A zone that is not known here is shown in UTC.
    """
    try:
        local = moment.astimezone(None if zone is None else ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a service may know more of them
        local, zone = moment.astimezone(UTC), None
    shown = local.isoformat(" ", "minutes")
    return shown if zone is None else f"{shown} {zone}"


def _cell(value: object) -> object:
    if isinstance(value, datetime):
        return when(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return value
