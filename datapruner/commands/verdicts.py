"""What evaluations found, as commands show it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from datapruner.commands import display
from datapruner.commands.display import Output

if TYPE_CHECKING:
    from datapruner.schemas.evaluations import Estimate, Evaluation


def show(output: Output, found: Sequence[Evaluation]) -> None:
    """All of what evaluations found."""
    output.document(document(found))
    for each in found:
        for section in sections(each):
            output.show(section, "")


def document(found: Sequence[Evaluation]) -> dict[str, Any]:
    """What evaluations found, for scripts."""
    return {"evaluations": [each.model_dump(mode="json") for each in found]}


def sections(found: Evaluation) -> Iterator[RenderableType]:
    """What an evaluation found, for people."""
    yield Text(f"Run {found.run}: {found.said}", style="bold")
    yield _arms(found)
    if found.overall:
        yield _differences(found)
    if any(each.exact_match or each.tasks for each in found.held_out):
        yield _scores(found)
    if found.carried is not None:
        yield Text(display.clean(found.carried.said))
    if found.cost is not None:
        yield Text(found.cost.said)
    if found.diverged:
        yield display.warnings([f"diverged: {each}" for each in found.diverged])
    if found.not_reached:
        yield display.warnings([f"not reached: {each}" for each in found.not_reached])
    about = f"{found.model}, {found.settings.tuning}, learning rate {found.learning_rate:g}"
    yield Text(f"{about}, {display.duration(found.seconds)}", style="dim")


def _arms(found: Evaluation) -> RenderableType:
    sets = [each.name for each in found.held_out if each.losses]
    columns = ("trained on", "rows", "trained tokens", "steps", "seeds", *sets)
    made = display.table(*columns, title="Loss of held-out rows, nats a token", right=columns[1:])
    for arm in found.arms:
        losses = [display.number(each.losses.get(arm.name)) for each in found.held_out if each.losses]
        numbers = (f"{arm.rows:,.0f}", f"{arm.trained_tokens:,.0f}", f"{arm.steps:,.0f}")
        made.add_row(display.clean(arm.name), *numbers, str(len(arm.seeds)), *losses)
    return made


def _differences(found: Evaluation) -> RenderableType:
    columns = ("held out", "against", "difference", "interval", "verdict")
    made = display.table(*columns, title="Subset less control: below zero is better", right=columns[2:4])
    sets = [(each.name, each.against) for each in found.held_out if each.losses]
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


def _scores(found: Evaluation) -> RenderableType:
    """Right answers, and metrics of lm-eval."""
    columns = ("trained on", "of", "what", "value")
    made = display.table(*columns, title="Answers and tasks", right=columns[3:])
    for each in found.held_out:
        for arm, share in each.exact_match.items():
            made.add_row(display.clean(arm), display.clean(each.name), "right answers", f"{share:.3f}")
        for arm, metrics in each.tasks.items():
            for name, value in metrics.items():
                made.add_row(*map(display.clean, (arm, each.name, name)), f"{value:.3f}")
    return made


def _interval(estimate: Estimate) -> str:
    return f"{estimate.low:+.4f} to {estimate.high:+.4f}"
