"""`plan`: what a run will take, told before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from datapruner.commands import display, settings
from datapruner.commands import options as given
from datapruner.commands.display import Output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from datapruner.schemas.plans import Expected, Plan, Settled


def plan(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(metavar="[SOURCE]", help="File, folder, Hub name, or - for standard input."),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="RECIPE.yaml", help="All of the run in a file, as for `datapruner run`."),
    ] = None,
    method: given.Method = None,
    option: given.Option = None,
    map_: given.Mapped = None,
    gpus: Annotated[
        str | None,
        typer.Option(metavar="NxKIND|N", help="GPUs to tell hours for too: 8xH100, or 4 as here."),
    ] = None,
    utilisation: Annotated[
        float, typer.Option(metavar="SHARE", help="What part of its published peak such a GPU reaches.")
    ] = 0.3,
    price_per_gpu_hour: Annotated[
        float | None, typer.Option(metavar="MONEY", help="In any currency; without, hours only.")
    ] = None,
    train_model_size: Annotated[
        str | None,
        typer.Option(metavar="PARAMETERS", help="Model to be trained on what is kept, such as 7B."),
    ] = None,
    epochs: Annotated[float, typer.Option(help="How often it will see each row.")] = 1.0,
    train_tokens_per_second: Annotated[
        float | None, typer.Option(metavar="RATE", help="Its training, as measured; compares seconds then.")
    ] = None,
    device: given.Device = "auto",
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Say before a run what it will read, how long that takes and where it pays.

    Rows and tokens are counted, and a few hundred rows are measured; nothing of that is kept but the corpus.
    The options are those of `prune`; without --keep it is a forecast of `score`, and with --recipe of `run`,
    whose rows SOURCE replaces. The run of the same request then says how far the forecast was off.
    """
    from datapruner import beforehand

    asked: dict[str, Any]
    if recipe is None:
        asked = given.pruning(context, method, option)
    else:  # which refuses whatever is given besides
        asked = settings.given(context) | {"method": method, "options": given.assignments(option, "--option")}
    mapping = given.assignments(map_, "--map") or None
    output = Output(as_json=as_json, quiet=quiet)
    with output.progress() as progress:
        made = beforehand.plan(
            source,
            recipe=recipe,
            **asked,
            mapping=mapping,
            gpus=gpus,
            utilisation=utilisation,
            price_per_gpu_hour=price_per_gpu_hour,
            train_model_size=train_model_size,
            epochs=epochs,
            train_tokens_per_second=train_tokens_per_second,
            device=device,
            progress=progress,
        )
    output.document(made.model_dump(mode="json"))
    if not (output.as_json or output.quiet):
        for section in sections(made):
            output.show(section, "")


def sections(made: Plan) -> Iterator[RenderableType]:
    """A forecast for people, part by part."""
    yield display.pairs(_heading(made))
    if made.passes:
        yield _passes(made)
    if made.devices:
        yield _devices(made)
    if made.break_even is not None:
        yield Text(made.break_even.said)
    yield Text("\n".join(made.notes), style="dim")


def settled(found: Settled) -> Group:
    """How far a forecast was off, figure by figure."""
    made = display.table(
        "", "forecast", "between", "measured", "off by", title="The forecast", right=_NUMBERS
    )
    for each in found.outcomes:
        unit, exact = each.unit, each.forecast.exact
        between = "" if exact else f"{_amount(each.forecast.low, unit)} – {_amount(each.forecast.high, unit)}"
        off = "–" if each.error is None else f"{100 * each.error:+.1f} %"
        made.add_row(
            each.what,
            _amount(each.forecast.value, unit),
            between,
            _amount(each.measured, unit),
            Text(off, style="" if each.held else "yellow"),
        )
    return Group(made, *(Text(note, style="dim") for note in found.notes))


_AGES = 1e9
"""Seconds beyond which days and minutes say nothing."""
_NUMBERS: Sequence[str] = ("forecast", "between", "measured", "off by")


def _amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return display.size(value)
    return _time(value) if unit == "s" else f"{value:,.0f}"


def _said(expected: Expected, unit: str = "") -> str:
    """A number with its interval, if it has one."""
    value = _amount(expected.value, unit)
    if expected.exact:
        return value
    return f"about {value} ({_amount(expected.low, unit)} to {_amount(expected.high, unit)})"


def _heading(made: Plan) -> dict[str, str]:
    rows = f"{made.ingested:,}: {made.samples:,} different samples, {made.duplicates:,} copies, "
    found = {
        "Forecast of": f"{made.title}, {made.id}",
        "Rows": f"{rows}{made.rejected:,} rejected",
        "Tokens": f"{_said(made.tokens)}, of them {_said(made.response_tokens)} of responses",
    }
    if made.kept_rows is not None and made.kept_tokens is not None:
        found["Kept"] = f"{_said(made.kept_rows)} rows; tokens: {_said(made.kept_tokens)}"
    if made.seconds is not None:
        nothing = not any(each.missing for each in made.passes)
        found["Measuring"] = "nothing, all is measured" if nothing else _said(made.seconds, "s")
    if made.probe is not None:
        took = display.duration(made.probe.seconds)
        found["Tried"] = f"{made.probe.rows:,} rows on {made.probe.device} in {took}"
    there = display.size(made.cached_bytes)
    all_there = made.cached_bytes == made.signals_bytes.value
    held = ", all of it there" if all_there else f", {there} of it there" if made.cached_bytes else ""
    found["Disk for signals"] = _said(made.signals_bytes, "bytes") + held
    if made.memory_bytes is not None:
        found["Memory"] = f"about {display.size(made.memory_bytes)}, model included"
    if made.asks is not None:
        asks = made.asks
        cost = "no prices given" if asks.cost is None else f"at most about {asks.cost:,.2f}"
        found["Teacher"] = (
            f"{asks.requests:,} requests, about {asks.prompt_tokens:,} prompt and at most "
            f"{asks.completion_tokens:,} answer tokens; {cost}"
        )
    return found


def _passes(made: Plan) -> Table:
    table = display.table(
        "pass", "model", "reads", "samples", "cached", "tokens to read", "time",
        title="Passes", right=("samples", "cached", "tokens to read", "time"),
    )  # fmt: skip
    for each in made.passes:
        table.add_row(
            each.what,
            display.clean(each.model),
            each.reads,
            f"{each.samples:,}",
            f"{each.cached:,}",
            "–" if each.tokens is None else f"{each.tokens.value:,.0f}",
            "–" if each.seconds is None else _time(each.seconds.value),
        )
    return table


def _devices(made: Plan) -> Group:
    """Hours of the passes, and below them what those that were not measured are made of."""
    priced = any(each.money is not None for each in made.devices)
    names = ["model", "on", "time", "device hours", *(["money"] if priced else []), "known"]
    table = display.table(*names, title="Hours of the passes", right=("time", "device hours", "money"))
    made_of = list(dict.fromkeys(each.said for each in made.devices if not each.measured))
    for each in made.devices:
        money = [] if not priced else ["–" if each.money is None else _hundredths(each.money.value)]
        table.add_row(
            display.clean(each.model),
            f"{each.count} × {each.device}",
            _time(3600 * each.hours.value),
            _hundredths(each.device_hours.value),
            *money,
            "measured" if each.measured else f"({1 + made_of.index(each.said)})",
        )
    return Group(table, *(Text(f"({at}) {said}", style="dim") for at, said in enumerate(made_of, 1)))


def _time(seconds: float) -> str:
    if seconds > _AGES:
        return f"{seconds / 3600:.3g} hours"
    return "under 0.1 s" if 0 < seconds < 0.1 else display.duration(seconds)


def _hundredths(value: float) -> str:
    return "under 0.01" if 0 < value < 0.01 else f"{value:,.2f}"
