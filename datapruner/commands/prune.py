"""`prune`, `score` and `replay`: the commands that measure a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from datapruner.commands import options as given
from datapruner.commands import settings
from datapruner.commands.display import Output
from datapruner.commands.named import targets
from datapruner.errors import UsageError
from datapruner.rows.formats import FILES, listed

if TYPE_CHECKING:
    from datapruner.client import RunOptions
    from datapruner.request.config import RunConfig
    from datapruner.result import Result
    from datapruner.schemas.evaluations import Evaluation


def prune(
    context: typer.Context,
    source: given.Source,
    method: given.Method = None,
    option: given.Option = None,
    map_: given.Mapped = None,
    device: given.Device = "auto",
    ray_address: given.RayAddress = None,
    out: given.SubsetFile = None,
    plain: given.PlainFile = None,
    dry_run: given.DryRun = False,
    log_to: given.LogTo = None,
    url: given.Url = None,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Keep the part of a corpus worth training on.

    A row once measured is not measured again: other methods and shares take seconds. With --url, SOURCE is a
    file to send to the service, or the name of one of its datasets. There, each project uses signals of its
    own only, not those of commands on that machine: run times tell nobody what others have measured.
    """
    from datapruner.request.settings import beside, check_prunes, config_for

    asked = given.pruning(context, method, option)
    mapping = given.assignments(map_, "--map")
    config = config_for(source, asked, mapping=mapping, target=asked.get("target"))
    check_prunes(config)
    given.check_targets(out=out, plain=plain)
    output = Output(as_json=as_json, quiet=quiet)
    if url is not None:
        from datapruner.commands import remote

        remote.only_here(
            device=device != "auto", ray_address=ray_address is not None, dry_run=dry_run, log_to=bool(log_to)
        )
        remote.prune(url, source, mapping, cast("RunOptions", beside(asked)), out, plain, output)
        return
    if dry_run:
        _rehearse(config, source, output)
        return
    from datapruner import library
    from datapruner.tracking.following import following

    with (
        output.progress() as progress,
        following(log_to or (), config, progress, output.note) as followed,
    ):
        result = library.run(
            config, source, config.target, device=device, ray_address=ray_address, progress=followed.progress
        )
        written = export(result, out, plain)
        followed.done(result.run, result.corpus_file, written.values())
    finish(output, result, written)


def score(
    context: typer.Context,
    source: given.Source,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", "-m", show_default="qtuning", help="See: datapruner methods. Repeatable."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o", metavar="[METHOD.]NAME=VALUE", help="An option of a method; repeatable."
        ),
    ] = None,
    map_: given.Mapped = None,
    device: given.Device = "auto",
    ray_address: given.RayAddress = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help=f"Write the scores: {listed(FILES)}.")
    ] = None,
    dry_run: given.DryRun = False,
    log_to: given.LogTo = None,
    url: given.Url = None,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Score every sample by one or more methods, pruning nothing.

    With --url, SOURCE is the name of a dataset of the service.
    """
    from datapruner.request.config import DEFAULT_METHOD
    from datapruner.request.settings import beside, config_for

    methods = method or [DEFAULT_METHOD]
    options = _options_by_method(methods, given.assignments(option, "--option"))
    asked: dict[str, Any] = {**settings.given(context), "methods": methods, "options": options}
    mapping = given.assignments(map_, "--map")
    config = config_for(source, asked, mapping=mapping, target=asked.get("target"))
    output = Output(as_json=as_json, quiet=quiet)
    if url is not None:
        from datapruner.commands import remote

        remote.only_here(
            device=device != "auto",
            ray_address=ray_address is not None,
            out=out is not None,
            map=bool(mapping),
            dry_run=dry_run,
            log_to=bool(log_to),
        )
        remote.score(url, source, cast("RunOptions", beside(asked)), output)
        return
    if dry_run:
        _rehearse(config, source, output)
        return
    given.check_targets(out=out)
    from datapruner import library
    from datapruner.tracking.following import following

    with (
        output.progress() as progress,
        following(log_to or (), config, progress, output.note) as followed,
    ):
        result = library.run(
            config, source, config.target, device=device, ray_address=ray_address, progress=followed.progress
        )
        written = {"scores": (out, result.export_scores(out))} if out is not None else {}
        followed.done(result.run, result.corpus_file, written.values())
    finish(output, result, written)


def replay(
    run: Annotated[Path, typer.Argument(metavar="RUN.json", help="The file written beside a result.")],
    source: Annotated[
        str | None, typer.Argument(metavar="[SOURCE]", help="Rows to use instead of those it names.")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[TASK=]DATA", help="Rows to select towards instead of those it names; repeatable."
        ),
    ] = None,
    device: given.Device = "auto",
    engine: given.Engine = None,
    ray_address: given.RayAddress = None,
    out: given.SubsetFile = None,
    plain: given.PlainFile = None,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Do again what a run file says, with all its settings."""
    given.check_targets(out=out, plain=plain)
    from datapruner import library

    output = Output(as_json=as_json, quiet=quiet)
    with output.progress() as progress:
        result = library.replay(
            run,
            source,
            target=targets(target),
            device=device,
            engine=engine,
            ray_address=ray_address,
            progress=progress,
        )
    finish(output, result, export(result, out, plain))


def _rehearse(config: RunConfig, source: str, output: Output) -> None:
    from datapruner import beforehand
    from datapruner.teacher.settings import load

    with output.progress() as progress:
        found = beforehand.estimate_ratings(config, source, teacher=load(), progress=progress)
    output.estimate(found)


def _options_by_method(methods: list[str], options: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Options grouped by the method that their names start with; with one method it may be left out."""
    grouped: dict[str, dict[str, str]] = {}
    for name, value in options.items():
        method, dot, rest = name.partition(".")
        if not dot:
            if len(methods) > 1:
                raise UsageError(
                    f"--option {name}={value} does not say of which method",
                    remedy=f"write {methods[0]}.{name}={value}",
                )
            method, rest = methods[0], name
        if method not in methods:
            raise UsageError(f"--option {name}: method {method} is not among {', '.join(methods)}")
        grouped.setdefault(method, {})[rest] = value
    return {method: given.method_options(method, values) for method, values in grouped.items()}


def export(result: Result, out: Path | None, plain: Path | None) -> dict[str, tuple[Path, int]]:
    """Write what was asked for: what it is -> (file, rows)."""
    written: dict[str, tuple[Path, int]] = {}
    if out is not None:
        written["subset"] = (out, result.export(out))
    if plain is not None:
        written["plain rows"] = (plain, result.export(plain, plain=True))
    return written


def finish(
    output: Output,
    result: Result,
    written: dict[str, tuple[Path, int]],
    evaluation: Evaluation | None = None,
) -> None:
    """Show what came of a run, and of its evaluation if there was one."""
    from datapruner.commands import ending, verdicts

    found = ending.document(result, written)
    output.document(found if evaluation is None else found | verdicts.document([evaluation]))
    if not (output.as_json or output.quiet):
        for section in ending.sections(result, written, output.width):
            output.show(section, "")
        for section in () if evaluation is None else verdicts.sections(evaluation):
            output.show(section, "")
