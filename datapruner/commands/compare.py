"""`compare`: two runs side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from datapruner.commands import display
from datapruner.commands import options as given
from datapruner.commands.display import Output

if TYPE_CHECKING:
    from datapruner.request.config import RunConfig
    from datapruner.schemas.runs import Comparison

First = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or the start of it, or latest.")]
Second = Annotated[str, typer.Argument(metavar="RUN", help="Likewise.")]


def compare(first: First, second: Second, url: given.Url = None, as_json: given.Json = False) -> None:
    """Compare two runs: which samples both keep, how alike their scores rank, and how they were evaluated.

    Samples are the same when their conversations are, so the runs may be of different files. Each run's own
    score, the one that it ranks by, is compared with the other's as well as scores of one name. With --url,
    the runs are those of the service.
    """
    if url is not None:
        from datapruner.commands import remote

        found, configs = remote.compare(url, first, second)
    else:
        from datapruner.home import home_folder
        from datapruner.runs import comparison, evaluations, published

        home = home_folder()
        both = [
            published.latest(home) if each == "latest" else published.load(each, home)
            for each in (first, second)
        ]
        one, other = (comparison.Compared(run.run_id, run.database, run.report.scores) for run in both)
        found, configs = comparison.compare(one, other), [run.config for run in both]
        told = [last for run in both if (last := evaluations.latest(run.folder)) is not None]
        found = found.model_copy(update={"evaluations": told})
    output = Output(as_json=as_json)
    output.document(found.model_dump(mode="json"))
    for section in _sections(found, configs):
        output.show(section, "")


def _sections(found: Comparison, configs: list[RunConfig]) -> Iterator[RenderableType]:
    yield display.pairs(
        {"First": _named(found.first, configs[0]), "Second": _named(found.second, configs[1])}
    )
    for each in found.evaluations:
        which = "first" if each.run == found.first else "second"
        yield Text(f"The {which}, as it was evaluated: {each.said}")
    counts = display.table("samples", "", "share", right=("", "share"))
    counts.add_row("known to both", f"{found.common_samples:,}", "100.0 %", style="bold")
    for name, count in {
        "kept by both": found.kept_by_both,
        "by the first alone": found.kept_by_first_only,
        "by the second alone": found.kept_by_second_only,
        "by neither": found.kept_by_neither,
    }.items():
        counts.add_row(f"  {name}", f"{count:,}", display.share(count, found.common_samples))
    yield counts
    if found.jaccard is not None:
        yield Text(f"Of the samples that either keeps, both keep {100 * found.jaccard:.1f} % (Jaccard)")
    yield Text(f"If one kept as many random rows, both would keep {found.kept_by_both_at_random:,.1f}")
    lengths = (("first", found.first_tokens), ("second", found.second_tokens))
    told = [(which, means) for which, means in lengths if means is not None]
    if told:
        made = display.table("response tokens a sample", "kept", "random rows", right=("kept", "random rows"))
        for which, means in told:
            made.add_row(f"by the {which}", f"{means.kept:,.1f}", f"{means.all:,.1f}")
        yield made
    rows = [(f"{each.first} and {each.second}", each.samples, each.spearman) for each in found.own_scores]
    if rows:
        yield _correlations("Own scores", rows)
    shared = [(each.column, each.samples, each.spearman) for each in found.correlations]
    if shared:
        yield _correlations("Scores that both have", shared)


def _named(run: str, config: RunConfig) -> str:
    from datapruner.commands import ending

    return f"{run}: {'; '.join(ending.asked(config).values())}"


def _correlations(title: str, rows: list[tuple[str, int, float | None]]) -> RenderableType:
    made = display.table(
        "score", "samples", "rank correlation", title=title, right=("samples", "rank correlation")
    )
    for name, samples, spearman in rows:
        shown = "none: all alike" if spearman is None else f"{spearman:+.3f}"
        made.add_row(display.clean(name), f"{samples:,}", shown)
    return made
