"""`evaluate`: whether what runs kept is worth training on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from datapruner.commands import display
from datapruner.commands import options as given
from datapruner.commands.display import Output
from datapruner.errors import UsageError

if TYPE_CHECKING:
    from datapruner.schemas.evaluations import Estimate, Evaluation

Runs = Annotated[
    list[str],
    typer.Argument(metavar="RUN", help="A run id, latest, a subset .parquet, or a .run.json."),
]
HeldOut = Annotated[
    list[str],
    typer.Option(
        "--held-out", "-x", metavar="[NAME=]DATA", help="Rows to read: file or Hub name; repeatable."
    ),
]


def evaluate(
    runs: Runs,
    held_out: HeldOut,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="What to train. Default: the runs' proxy model.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Train all weights, not an adapter (LoRA) alone.")
    ] = False,
    seeds: Annotated[
        int, typer.Option(min=1, max=100, help="Trainings of each arm; one alone shows no difference.")
    ] = 3,
    seconds: Annotated[
        float | None, typer.Option(metavar="S", help="Time to spend; what is not reached is said.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The first of the seeds.")] = 0,
    device: given.Device = "auto",
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Train a model on what runs kept and on other rows, and say which teaches more of held-out rows.

    The others: random rows and the longest rows, as many trained tokens of each, and all rows in as many
    steps. Held-out rows are taken out of all that is trained on. What is done is kept: the same command again
    goes on where time was over. LoRA takes the extra `eval` of the package.
    """
    from datapruner import library

    output = Output(as_json=as_json, quiet=quiet)
    with output.progress() as progress:
        found = library.evaluate(
            runs,
            named(held_out),
            model=model,
            tuning="full" if full else "lora",
            seeds=seeds,
            seconds=seconds,
            seed=seed,
            device=device,
            progress=progress,
        )
    output.document({"evaluations": [each.model_dump(mode="json") for each in found]})
    for each in found:
        for section in sections(each):
            output.show(section, "")


def named(given: Sequence[str]) -> dict[str, str]:
    """`["a.jsonl", "b=c.jsonl"]` by name: a set without one is called as its file. Raises UsageError."""
    found: dict[str, str] = {}
    for item in given:
        name, equals, source = item.partition("=")
        if not equals or Path(item).exists():
            name, source = Path(item).stem, item
        if not (name and source):
            raise UsageError(f"--held-out {item!r} is not NAME=DATA")
        if name in found:
            raise UsageError(f"two held-out sets are called {name}", remedy="write --held-out NAME=DATA")
        found[name] = source
    return found


def sections(found: Evaluation) -> Iterator[RenderableType]:
    """What an evaluation found, for people."""
    yield Text(f"Run {found.run}: {found.said}", style="bold")
    yield _arms(found)
    yield _differences(found)
    if found.cost is not None:
        yield Text(found.cost.said)
    if found.not_reached:
        yield display.warnings([f"not reached: {each}" for each in found.not_reached])
    about = f"{found.model}, {found.settings.tuning}, learning rate {found.learning_rate:g}"
    yield Text(f"{about}, {display.duration(found.seconds)}", style="dim")


def _arms(found: Evaluation) -> RenderableType:
    sets = [each.name for each in found.held_out]
    columns = ("trained on", "rows", "trained tokens", "steps", "seeds", *sets)
    made = display.table(*columns, title="Loss of held-out rows, nats a token", right=columns[1:])
    for arm in found.arms:
        losses = [display.number(each.losses.get(arm.name)) for each in found.held_out]
        numbers = (f"{arm.rows:,.0f}", f"{arm.trained_tokens:,.0f}", f"{arm.steps:,.0f}")
        made.add_row(display.clean(arm.name), *numbers, str(len(arm.seeds)), *losses)
    return made


def _differences(found: Evaluation) -> RenderableType:
    columns = ("held out", "against", "difference", "interval", "verdict")
    made = display.table(*columns, title="Subset less control: below zero is better", right=columns[2:4])
    sets = [(each.name, each.against) for each in found.held_out]
    for name, each in [*sets, ("all of them", found.overall)] if len(sets) > 1 else sets:
        for against in each:
            made.add_row(
                display.clean(name),
                display.clean(against.control),
                f"{against.nats_per_token.difference:+.4f}",
                _interval(against.nats_per_token),
                against.verdict,
            )
    return made


def _interval(estimate: Estimate) -> str:
    return f"{estimate.low:+.4f} to {estimate.high:+.4f}"
