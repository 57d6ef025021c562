"""`export`: the subset of a run as a file again, or as a trainer takes it."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer
from rich.console import RenderableType
from rich.text import Text

from datapruner.commands import display
from datapruner.commands import options as given
from datapruner.commands.display import Output
from datapruner.errors import UsageError
from datapruner.rows.formats import TrainerFormat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datapruner.outputs.carrying import CarriedCounts
    from datapruner.result import Result, TrainerExport
    from datapruner.schemas.exports import ExportAnswer

_REASONS = 5


def export(
    target: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A run id, latest, a subset .parquet, or a .run.json."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="PATH", help="The file or, where it is one, the folder.")
    ],
    trainer: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="TRAINER",
            help=f"{', '.join(get_args(TrainerFormat))}. Default: all columns.",
        ),
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="The kept rows unchanged.")] = False,
    max_length: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Tokens that a row may have. Default: any number.")
    ] = None,
    too_long: Annotated[
        Literal["cut", "drop"], typer.Option(help="What becomes of longer rows: their end goes, or all.")
    ] = "cut",
    shard_rows: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Write a folder of Parquet files, or of the trainer's, with N rows each."
        ),
    ] = None,
    require_verdict: Annotated[
        Literal["better"] | None,
        typer.Option(help="Refuse unless the last verdict on the run is this: better than random rows."),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Write it for this model. Default: the one that measured it."),
    ] = None,
    characters: Annotated[
        Literal["all", "any"],
        typer.Option(help="With --tokenizer: train on tokens of which all, or any, characters are kept."),
    ] = "all",
    push: Annotated[
        str | None,
        typer.Option(metavar="REPO", help="Put it into this dataset on the Hugging Face Hub too."),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="With --push: everybody may read it. Default: private.")
    ] = False,
    license: Annotated[  # noqa: A002 (the option is called so)
        str | None,
        typer.Option(metavar="ID", help="What the card says. Default: that of the source, if it is known."),
    ] = None,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Write the subset of a run, with --for as a trainer takes it: it trains on the kept tokens alone.

    It prints the longest row and the configuration to train with. A row that is cut is trained on as far as
    it goes; a row in which no token to train on is left is not written, and counted. With --tokenizer the
    rows are rendered with that model's chat template, and the masks carried over to its tokens. The
    dataset card, README.md with plots and the verdict, and croissant.json, goes into the folder or, of a
    file, into a folder beside it. --push takes the token of HF_TOKEN or of `hf auth login`.
    """
    from datapruner.home import home_folder
    from datapruner.outputs import hub
    from datapruner.outputs.trainers import registry
    from datapruner.outputs.trainers.trainer import AsFolder
    from datapruner.reporting import card as cards
    from datapruner.result import Result
    from datapruner.runs import evaluations, named

    if trainer is not None and plain:
        raise UsageError("--plain rows have no token masks, which --for is about", remedy="give one of them")
    if trainer is None and (max_length is not None or too_long != "cut"):
        raise UsageError("a limit of length is of rows for trainers", remedy="give --for as well")
    if trainer is None and tokenizer is not None:
        raise UsageError("--tokenizer is for trainers' rows", remedy="give --for as well")
    if tokenizer is None and characters != "all":
        raise UsageError("--characters is of another tokenizer", remedy="give --tokenizer as well")
    if public and push is None:
        raise UsageError("--public is of what is pushed", remedy="give --push as well")
    if push is not None:
        hub.check(push)
    if license is not None:
        cards.check_license(license)
    home = home_folder()
    result = Result(named.find(target, home), home)
    if require_verdict is not None:
        evaluations.require(result.run.folder, require_verdict)
    output = Output(as_json=as_json, quiet=quiet)
    if trainer is None:
        from datapruner.commands import ending

        rows = result.export(out, plain=plain, shard_rows=shard_rows, license=license)
        if plain:
            output.show(*ending.lost_masks(result))
        form = cards.form(None, plain=plain, rewritten=result.run.config.rewrite is not None)
        pushed = _pushed(result, out, rows, form, hub.DATA, push, public=public, license=license)
        output.document({"run": result.run.run_id, "path": str(out), "rows": rows} | pushed)
        about = f"{display.clean(str(out))}: {display.plural(rows, 'row')}; its card: "
        output.show(about + display.clean(pushed.pop("card")), *pushed.values())
        return
    with output.progress() as progress:
        written = result.export_for(
            trainer,
            out,
            max_length=max_length,
            too_long=too_long,
            shard_rows=shard_rows,
            tokenizer=tokenizer,
            characters=characters,
            progress=progress,
            license=license,
        )
    folder = trainer if isinstance(registry.find(trainer), AsFolder) else hub.DATA
    count, form = written.counts.written, cards.form(trainer, plain=False, rewritten=False)
    pushed = _pushed(result, out, count, form, folder, push, public=public, license=license)
    output.document(
        {
            "run": result.run.run_id,
            "trainer": trainer,
            "path": str(out),
            "counts": asdict(written.counts),
            "carried": None if written.carried is None else asdict(written.carried),
            "warnings": written.warnings,
            "configuration": written.configuration,
        }
        | pushed
    )
    pushed.pop("card")
    output.show(*_sections(trainer, out, written), *pushed.values())


def _pushed(
    result: Result,
    out: Path,
    rows: int,
    form: str,
    folder: str,
    repo: str | None,
    *,
    public: bool,
    license: str | None,  # noqa: A002
) -> dict[str, str]:
    """Put everything on the Hub, if it is to go there: where that is, as `pushed`, beside the `card`."""
    from datapruner import library
    from datapruner.outputs import hub
    from datapruner.reporting import card as cards
    from datapruner.reporting.croissant import Described
    from datapruner.runs import folders

    done = {"card": str(cards.place(out) / cards.README)}
    if repo is not None:
        files = cards.contents(out, folder) if out.is_dir() else {hub.name_of(out): out}
        described = {name: Described(path) for name, path in files.items()}
        document, url = folders.read_document(folders.beside(out)), hub.address(repo)
        exported = cards.Exported(
            library.report(result), document, described, rows, form, license=license, url=url
        )
        message = f"The subset of run {result.run.run_id}"
        done["pushed"] = hub.push(
            out, repo, folder, files, cards.made(exported), public=public, message=message
        )
    return done


def fetched(export: ExportAnswer, model: str, out: Path) -> Iterator[RenderableType]:
    """What is said of rows for a trainer that a service wrote; of an archive, how what is in it is used."""
    from datapruner.outputs.trainers import registry
    from datapruner.outputs.trainers.trainer import AsFolder
    from datapruner.outputs.training_rows import Counts, TrainingRows
    from datapruner.result import TrainerExport

    assert export.counts is not None, export.id
    trainer, counts = registry.find(export.format), Counts(**export.counts.model_dump())
    rows = TrainingRows(lambda: iter(()), model, {}, export.max_length, counts=counts)
    if isinstance(trainer, AsFolder):
        place, unpacking = Path(registry.FOLDER), f"tar -xf {shlex.quote(str(out))}\n"
    else:
        place, unpacking = out, ""
    yield from _sections(
        export.format, out, TrainerExport(rows.counts, unpacking + trainer.note(place, rows))
    )


def _sections(trainer: str, out: Path, written: TrainerExport) -> Iterator[RenderableType]:
    from datapruner.outputs.trainers import registry
    from datapruner.reporting import card

    counts = written.counts
    said: dict[str, Any] = {
        "Written": f"{display.clean(str(out))}: {display.plural(counts.written, 'row')}, "
        f"{counts.trained_tokens:,} of {display.plural(counts.tokens, 'token')} trained on",
        "Card": display.clean(str(card.place(out) / card.README)),
        "Longest": display.plural(counts.longest, "token"),
    }
    if counts.cut:
        said["Cut"] = f"{display.plural(counts.cut, 'row')} at the limit"
    if counts.too_long:
        said["Too long"] = f"{display.plural(counts.too_long, 'row')} left out"
    if counts.untrained:
        said["Untrained"] = f"{display.plural(counts.untrained, 'row')} without a token to train on, left out"
    if counts.lost_tokens:
        said["Lost"] = f"{display.plural(counts.lost_tokens, 'token')} to train on"
    if counts.weighted:
        said["Weights"] = f"{registry.find(trainer).weights}"
    if written.carried is not None:
        said |= _carried(written.carried)
    yield display.pairs(said)
    if written.warnings:
        yield display.warnings(written.warnings)
    yield Text(f"\n{written.configuration}", end="")


def _carried(counts: CarriedCounts) -> dict[str, str]:
    """What is said of rows that went to another tokenizer."""
    part = display.share(counts.on_border, counts.response_tokens)
    said = {
        "Carried": f"{counts.carried:,} of {display.plural(counts.rows, 'row')} to the other tokenizer",
        "On a border": f"{counts.on_border:,} of {display.plural(counts.response_tokens, 'response token')} "
        f"({part}) have characters of both kinds",
    }
    if counts.cut:
        said["Model's limit"] = f"{display.plural(counts.cut, 'row')} end there"
    if counts.refused:
        commonest = sorted(counts.refused.items(), key=lambda each: -each[1])[:_REASONS]
        said["Refused"] = "\n".join(f"{display.plural(count, 'row')}: {why}" for why, count in commonest)
    return said
