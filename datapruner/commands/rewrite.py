"""`rewrite`: the commands that shorten reasoning. One command a method, so that each has its own options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from datapruner.commands import display, settings
from datapruner.commands import options as given
from datapruner.commands.display import Output

if TYPE_CHECKING:
    from datapruner.rewriting.library import Rewrites

rewrite_app = typer.Typer(no_args_is_help=True)

Pattern = Annotated[
    str | None,
    typer.Option(
        metavar="RE2",
        help="Where reasoning is in a response: its group (?P<reasoning>...). Default: <think> blocks.",
    ),
]
OutFile = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE", help="Write the rows to train on: .parquet, .csv or .jsonl."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Ask nothing: print how many questions, tokens and money it takes.")
]
Tries = Annotated[
    int, typer.Option(min=1, max=20, help="Times that the teacher is asked to shorten a trace.")
]


@rewrite_app.command("asap", cls=settings.of_reading())
def asap(
    context: typer.Context,
    source: given.Source,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Tokens that reasoning may have. Default: 4096."),
    ] = None,
    max_token_ratio: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Or the share of its tokens that may stay, as in 0.5."),
    ] = None,
    pattern: Pattern = None,
    map_: given.Mapped = None,
    device: given.Device = "auto",
    out: OutFile = None,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Remove the steps of reasoning that surprise the proxy model least, until what is left fits a budget.

    A step's surprisal is that of its first token. Rows that were measured before are not measured again. This
    is ASAP's fine stage; `rewrite anchor` is the coarse one, on whose result this goes on.
    """
    budget = {"max_tokens": max_tokens, "max_token_ratio": max_token_ratio}
    asked: dict[str, Any] = {**settings.given(context), **budget, "device": device}
    asked |= {"pattern": pattern, "mapping": given.assignments(map_, "--map")}
    _run("asap", source, out, asked, Output(as_json=as_json, quiet=quiet))


@rewrite_app.command("anchor", cls=settings.of_reading("model"))
def anchor(
    context: typer.Context,
    source: given.Source,
    tries: Tries = 5,
    similarity: Annotated[
        float, typer.Option(help="Least similarity of a shortened step and its original.")
    ] = 0.6,
    autojunk: Annotated[
        bool, typer.Option("--autojunk", help="Compare as the published code does, which rejects more.")
    ] = False,
    verbatim: Annotated[
        bool, typer.Option("--verbatim", help="Keep the original steps, not the teacher's words.")
    ] = False,
    pattern: Pattern = None,
    map_: given.Mapped = None,
    out: OutFile = None,
    dry_run: DryRun = False,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Let a teacher leave out of reasoning what the way to the answer does not need: ASAP's coarse stage.

    The teacher is set by DATAPRUNER_TEACHER_BASE_URL, _MODEL and _API_KEY. Run `rewrite asap` on the result.
    """
    options = {"tries": tries, "similarity": similarity, "autojunk": autojunk, "verbatim": verbatim}
    asked = {"options": options, "pattern": pattern, "mapping": given.assignments(map_, "--map")}
    if dry_run:
        _rehearse("anchor", source, asked, Output(as_json=as_json, quiet=quiet))
        return
    asked |= {**settings.given(context), "teacher": _teacher()}
    _run("anchor", source, out, asked, Output(as_json=as_json, quiet=quiet))


@rewrite_app.command("dap", cls=settings.of_reading("model"))
def dap(
    context: typer.Context,
    source: given.Source,
    mode: Annotated[
        Literal["single_call", "two_call"], typer.Option(help="Judge and rewrite in one answer, or in two.")
    ] = "single_call",
    retries: Annotated[
        int, typer.Option(min=0, max=20, help="Further attempts after one that was not accepted.")
    ] = 2,
    otherwise: Annotated[
        Literal["keep_original", "drop"], typer.Option(help="A row without an acceptable rewrite.")
    ] = "keep_original",
    answers: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Original column with the right answers. Default: the response's."
        ),
    ] = None,
    pattern: Pattern = None,
    map_: given.Mapped = None,
    out: OutFile = None,
    dry_run: DryRun = False,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Let a teacher rewrite reasoning to the length that each problem's difficulty calls for.

    A rewrite is used only when its form, its final answer and its length stand the checks. The teacher is set
    by DATAPRUNER_TEACHER_BASE_URL, _MODEL and _API_KEY.
    """
    options = {"mode": mode, "retries": retries, "otherwise": otherwise}
    asked = {"options": options, "pattern": pattern, "mapping": given.assignments(map_, "--map")}
    asked |= {"answers": answers}
    if dry_run:
        _rehearse("dap", source, asked, Output(as_json=as_json, quiet=quiet))
        return
    asked |= {**settings.given(context), "teacher": _teacher()}
    _run("dap", source, out, asked, Output(as_json=as_json, quiet=quiet))


def _rehearse(method: str, source: str, asked: Mapping[str, Any], output: Output) -> None:
    from datapruner.rewriting import library
    from datapruner.teacher.settings import load

    with output.progress() as progress:
        found = library.estimate_rewrite(source, method, teacher=load(), progress=progress, **asked)
    output.document(asdict(found))
    output.show(str(found))


def _teacher() -> Any:
    from datapruner.teacher.client import Teacher
    from datapruner.teacher.settings import load

    return Teacher(load())


def _run(
    method: str,
    source: str,
    out: Path | None,
    asked: Mapping[str, Any],
    output: Output,
) -> None:
    from datapruner.rewriting import library

    given.check_targets(out=out)
    with output.progress() as progress:
        result = library.rewrite(source, method, progress=progress, **asked)
    written = None if out is None else (out, result.export(out))
    _finish(output, result, written)


def _finish(output: Output, result: Rewrites, written: tuple[Path, int] | None) -> None:
    run, report = result.run, result.report
    document = run.document() | {"database": str(run.database), "measured": run.measured}
    document["written"] = None if written is None else {"path": str(written[0]), "rows": written[1]}
    output.document(document)
    proxy = run.lineage["proxy"]
    output.show(
        display.pairs(
            {
                "Method": f"{run.config.method}: {report.stage}",
                "Tokens": f"of {proxy['model']}; {display.plural(run.measured, 'sample')} measured now",
                "Run": run.run_id,
            }
        ),
        "",
        _balance(result),
        "",
    )
    if report.tokens_before:
        share = display.share(report.tokens_after, report.tokens_before)
        output.show(
            f"Reasoning: {report.tokens_before:,} tokens before, {report.tokens_after:,} after ({share})",
            f"Steps: {report.steps_before:,} before, {report.steps_after:,} after",
            "",
        )
    for title, counts in (("Reasons", report.reasons), ("Difficulty", report.levels)):
        if counts:
            made = display.table(title.lower(), "rows", title=title, right=("rows",))
            for name, count in counts.items():
                made.add_row(display.clean(name), f"{count:,}")
            output.show(made, "")
    if report.warnings:
        output.show(display.warnings(report.warnings), "")
    if written is not None:
        output.show(f"Written: {display.clean(str(written[0]))}, {display.plural(written[1], 'row')}")
    if report.rewritten:
        shown = result.table.filter(status="rewritten")["row"][0]
        output.show(f"Next: datapruner explain {run.run_id[:12]} row:{shown}")


def _balance(result: Rewrites) -> Table:
    counts = asdict(result.report)
    made = display.table("rows", "", "share", right=("", "share"))
    made.add_row("ingested", f"{counts['ingested']:,}", "100.0 %", style="bold")
    for name in ("rewritten", "original", "dropped", "rejected", "errored"):
        made.add_row(f"  {name}", f"{counts[name]:,}", display.share(counts[name], counts["ingested"]))
    return made
