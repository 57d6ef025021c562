"""`prune`, `score` and `replay`: the commands that measure a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datapruner.commands import options as given
from datapruner.commands.display import Output
from datapruner.errors import UsageError

if TYPE_CHECKING:
    from datapruner.client import RunOptions
    from datapruner.library import Result

DEFAULT_MODEL = "smollm2-135m"  # the same as in config, which takes half a second to import; a test compares


def prune(
    source: given.Source,
    method: Annotated[str, typer.Option("--method", "-m", help="See: datapruner methods.")] = "qtuning",
    keep: given.Keep = None,
    keep_tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Or: as many samples as fit N trained tokens.")
    ] = None,
    token_keep: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Response tokens to keep in samples whose tokens are pruned."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Published settings of the method.")] = None,
    option: given.Option = None,
    seed: given.Seed = 0,
    map_: given.Mapped = None,
    model: given.Model = DEFAULT_MODEL,
    dtype: given.Dtype = "auto",
    max_length: given.MaxLength = None,
    overflow: given.Overflow = "truncate",
    train_on: given.TrainOn = "all",
    reference: given.Reference = None,
    embedder: given.Embedder = None,
    target: given.Target = None,
    device: given.Device = "auto",
    out: given.SubsetFile = None,
    plain: given.PlainFile = None,
    url: given.Url = None,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Keep the part of a corpus worth training on.

    A row once measured is not measured again: other methods and shares take seconds. With --url, SOURCE is a
    file to send to the service, or the name of one of its datasets. There, each project uses signals of its
    own only, not those of commands on that machine: run times tell nobody what others have measured.
    """
    given.check_keep(method, keep, keep_tokens, preset)
    options = given.method_options(method, given.assignments(option, "--option"))
    mapping = given.assignments(map_, "--map")
    given.check_targets(out=out, plain=plain)
    output = Output(as_json=as_json, quiet=quiet)
    if url is not None:
        from datapruner.commands import remote

        remote.only_here(device=device != "auto")
        measuring = _measuring(model, dtype, max_length, overflow, train_on, reference, embedder)
        wanted: RunOptions = {"method": method, "options": options, "seed": seed, "measuring": measuring}
        wanted |= {"keep": keep, "keep_tokens": keep_tokens, "token_keep": token_keep, "preset": preset}
        wanted |= {} if target is None else {"target": target}
        remote.prune(url, source, mapping, wanted, out, plain, output)
        return
    from datapruner import library

    with output.progress() as progress:
        result = library.prune(
            source,
            method,
            keep,
            keep_tokens=keep_tokens,
            token_keep=token_keep,
            preset=preset,
            options=options,
            seed=seed,
            mapping=mapping,
            model=model,
            dtype=dtype,
            max_length=max_length,
            overflow=overflow,
            train_on=train_on,
            reference=reference,
            embedder=embedder,
            target=target,
            device=device,
            progress=progress,
        )
    finish(output, result, _export(result, out, plain))


def score(
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
    seed: given.Seed = 0,
    map_: given.Mapped = None,
    model: given.Model = DEFAULT_MODEL,
    dtype: given.Dtype = "auto",
    max_length: given.MaxLength = None,
    overflow: given.Overflow = "truncate",
    train_on: given.TrainOn = "all",
    reference: given.Reference = None,
    embedder: given.Embedder = None,
    target: given.Target = None,
    device: given.Device = "auto",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the scores: .parquet, .csv or .jsonl.")
    ] = None,
    url: given.Url = None,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Score every sample by one or more methods, pruning nothing.

    With --url, SOURCE is the name of a dataset of the service.
    """
    methods = method or ["qtuning"]
    options = _options_by_method(methods, given.assignments(option, "--option"))
    mapping = given.assignments(map_, "--map")
    output = Output(as_json=as_json, quiet=quiet)
    if url is not None:
        from datapruner.commands import remote

        remote.only_here(device=device != "auto", out=out is not None, map=bool(mapping))
        measuring = _measuring(model, dtype, max_length, overflow, train_on, reference, embedder)
        wanted: RunOptions = {"methods": methods, "options": options, "seed": seed, "measuring": measuring}
        wanted |= {} if target is None else {"target": target}
        remote.score(url, source, wanted, output)
        return
    from datapruner import library

    given.check_targets(out=out)
    with output.progress() as progress:
        result = library.score(
            source,
            methods,
            options=options,
            seed=seed,
            mapping=mapping,
            model=model,
            dtype=dtype,
            max_length=max_length,
            overflow=overflow,
            train_on=train_on,
            reference=reference,
            embedder=embedder,
            target=target,
            device=device,
            progress=progress,
        )
    written = {"scores": (out, result.export_scores(out))} if out is not None else {}
    finish(output, result, written)


def replay(
    run: Annotated[Path, typer.Argument(metavar="RUN.json", help="The file written beside a result.")],
    source: Annotated[
        str | None, typer.Argument(metavar="[SOURCE]", help="Rows to use instead of those it names.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="DATA", help="Rows to select towards instead of those it names.")
    ] = None,
    device: given.Device = "auto",
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
        result = library.replay(run, source, target=target, device=device, progress=progress)
    finish(output, result, _export(result, out, plain))


def _measuring(
    model: str,
    dtype: str,
    max_length: int | None,
    overflow: str,
    train_on: str,
    reference: str | None,
    embedder: str | None,
) -> dict[str, object]:
    """How to measure, as a service is asked."""
    about: dict[str, object] = {"model": model, "dtype": dtype, "max_length": max_length}
    about |= {} if reference is None else {"reference": reference}
    about |= {} if embedder is None else {"embedder": embedder}
    return about | {"overflow": overflow, "train_on": train_on}


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


def _export(result: Result, out: Path | None, plain: Path | None) -> dict[str, tuple[Path, int]]:
    """Write what was asked for: what it is -> (file, rows)."""
    written: dict[str, tuple[Path, int]] = {}
    if out is not None:
        written["subset"] = (out, result.export(out))
    if plain is not None:
        written["plain rows"] = (plain, result.export(plain, plain=True))
    return written


def finish(output: Output, result: Result, written: dict[str, tuple[Path, int]]) -> None:
    """Show what came of a run."""
    from datapruner.commands import report

    output.document(report.document(result, written))
    if not (output.as_json or output.quiet):
        for section in report.sections(result, written, output.width):
            output.show(section, "")
