"""`rewrite`: the commands that shorten reasoning. One command a method, so that each has its own options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from datapruner.commands import options as given
from datapruner.commands import settings
from datapruner.commands.display import Output
from datapruner.commands.prune import export, finish
from datapruner.rows.formats import FILES, listed

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
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help=f"Write the rows to train on with what became of each: {listed(FILES)}.",
    ),
]
PlainFile = Annotated[
    Path | None,
    typer.Option("--plain", metavar="FILE", help=f"Write the rows to train on alone: {listed(FILES)}."),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Tokens that reasoning may have. Default: 4096."),
]
MaxTokenRatio = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="Or the share of its tokens that may stay, as in 0.5."),
]
Coherent = Annotated[
    bool,
    typer.Option("--coherent", help="Keep what a step that stays announces by a colon, or refers back to."),
]
Tries = Annotated[
    int, typer.Option(min=1, max=20, help="Times that the teacher is asked to shorten a trace.")
]


@rewrite_app.command("asap", cls=settings.of_reading())
def asap(
    context: typer.Context,
    source: given.Source,
    max_tokens: MaxTokens = None,
    max_token_ratio: MaxTokenRatio = None,
    coherent: Coherent = False,
    score: Annotated[
        Literal["first-token", "later-tokens"],
        typer.Option(help="What of a step is scored: ASAP's first token, or the others as in ASLEC-DROP."),
    ] = "first-token",
    pattern: Pattern = None,
    map_: given.Mapped = None,
    device: given.Device = "auto",
    engine: given.Engine = None,
    ray_address: given.RayAddress = None,
    out: OutFile = None,
    plain: PlainFile = None,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Remove the steps of reasoning that surprise the proxy model least, until what is left fits a budget.

    A step's surprisal is that of its first token. Rows that were measured before are not measured again. This
    is ASAP's fine stage; `rewrite anchor` is the coarse one, on whose result this goes on.
    """
    asked: dict[str, Any] = {
        **settings.given(context),
        "device": device,
        "engine": engine,
        "ray_address": ray_address,
        "options": {"score": score, "coherent": coherent},
    }
    asked |= {"max_tokens": max_tokens, "max_token_ratio": max_token_ratio}
    asked |= {"pattern": pattern, "mapping": given.assignments(map_, "--map")}
    _run("asap", source, out, plain, asked, Output(as_json=as_json, quiet=quiet))


@rewrite_app.command("random-steps", cls=settings.of_reading("model"))
def random_steps(
    context: typer.Context,
    source: given.Source,
    max_tokens: MaxTokens = None,
    max_token_ratio: MaxTokenRatio = None,
    coherent: Coherent = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw.")] = 0,
    pattern: Pattern = None,
    map_: given.Mapped = None,
    out: OutFile = None,
    plain: PlainFile = None,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Remove steps of reasoning at random, until what is left fits a budget: a control for `rewrite asap`.

    It needs the proxy model's tokens only, and measures nothing.
    """
    asked: dict[str, Any] = {**settings.given(context), "options": {"seed": seed, "coherent": coherent}}
    asked |= {"max_tokens": max_tokens, "max_token_ratio": max_token_ratio}
    asked |= {"pattern": pattern, "mapping": given.assignments(map_, "--map")}
    _run("random-steps", source, out, plain, asked, Output(as_json=as_json, quiet=quiet))


@rewrite_app.command("longest-steps", cls=settings.of_reading("model"))
def longest_steps(
    context: typer.Context,
    source: given.Source,
    max_tokens: MaxTokens = None,
    max_token_ratio: MaxTokenRatio = None,
    coherent: Coherent = False,
    pattern: Pattern = None,
    map_: given.Mapped = None,
    out: OutFile = None,
    plain: PlainFile = None,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Remove the longest steps of reasoning, until what is left fits a budget: a control for `rewrite asap`.

    It needs the proxy model's tokens only, and measures nothing.
    """
    asked: dict[str, Any] = {**settings.given(context), "options": {"coherent": coherent}}
    asked |= {"max_tokens": max_tokens, "max_token_ratio": max_token_ratio}
    asked |= {"pattern": pattern, "mapping": given.assignments(map_, "--map")}
    _run("longest-steps", source, out, plain, asked, Output(as_json=as_json, quiet=quiet))


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
    plain: PlainFile = None,
    dry_run: given.DryRun = False,
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
    asked |= settings.given(context)
    _run("anchor", source, out, plain, asked, Output(as_json=as_json, quiet=quiet))


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
    plain: PlainFile = None,
    dry_run: given.DryRun = False,
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
    asked |= settings.given(context)
    _run("dap", source, out, plain, asked, Output(as_json=as_json, quiet=quiet))


def _rehearse(method: str, source: str, asked: Mapping[str, Any], output: Output) -> None:
    from datapruner import beforehand
    from datapruner.teacher.settings import load

    with output.progress() as progress:
        found = beforehand.estimate_rewrite(source, method, teacher=load(), progress=progress, **asked)
    output.estimate(found)


def _run(
    method: str,
    source: str,
    out: Path | None,
    plain: Path | None,
    asked: Mapping[str, Any],
    output: Output,
) -> None:
    from datapruner import library

    given.check_targets(out=out, plain=plain)
    with output.progress() as progress:
        result = library.rewrite(source, method, progress=progress, **asked)
    finish(output, result, export(result, out, plain))
