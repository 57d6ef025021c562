"""`recommend` and `run`: the commands that write a recipe and do what one says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from datapruner.commands import display
from datapruner.commands import options as given
from datapruner.commands.display import Output
from datapruner.commands.prune import finish
from datapruner.errors import UsageError


def recommend(
    source: given.Source,
    target: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Rows of what the model is to become good at: file or Hub name."),
    ] = None,
    keep_tokens: Annotated[
        int | None, typer.Option(metavar="COUNT", help="A budget of trained tokens.")
    ] = None,
    map_: given.Mapped = None,
    out: Annotated[
        Path | None, typer.Option(metavar="RECIPE.yaml", help="Write the recipe; without, it is shown.")
    ] = None,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Look at a corpus and write a recipe for it, with a comment that says why beside each choice.

    Reads no model. The recipe is run by `datapruner run`, as it is or changed.
    """
    from datapruner import beforehand

    mapping = given.assignments(map_, "--map")
    output = Output(as_json=as_json, quiet=quiet)
    with output.progress() as progress:
        made = beforehand.recommend(
            source, target=target, keep_tokens=keep_tokens, mapping=mapping, out=out, progress=progress
        )
    output.document({"recipe": made.recipe, "facts": made.facts.document(), "written": out and str(out)})
    output.show(Text(made.recipe, end=""))
    if out is not None:
        output.show("", Text(f"{display.clean(str(out))}: the recipe; do it with: datapruner run {out}"))


def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="What to do; see examples/.")],
    source: Annotated[
        str | None, typer.Argument(metavar="[DATA]", help="Rows to use instead of those that it names.")
    ] = None,
    device: given.Device = "auto",
    engine: given.Engine = None,
    ray_address: given.RayAddress = None,
    out: given.SubsetFile = None,
    plain: given.PlainFile = None,
    log_to: given.LogTo = None,
    url: given.Url = None,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Do what a recipe says: dedup, filter, methods, combine, coverage, rewrite, export, evaluate, log_to.

    All of it is checked, with line numbers, before any data is read. --out, --plain and --log-to go before
    what it names. With --url, DATA is a file to send to the service or one of its datasets, as are the sets
    to compare with.
    """
    given.check_targets(out=out, plain=plain)
    from datapruner import library
    from datapruner.runs import recipes
    from datapruner.tracking.following import following, log_evaluations

    output = Output(as_json=as_json, quiet=quiet)
    wanted = recipes.read(recipe, source)
    files = wanted.export.files() | {
        what: path for what, path in (("subset", out), ("plain", plain)) if path is not None
    }
    if wanted.data is None:
        raise UsageError("the recipe names no data", remedy="add data: FILE, or name it in the command")
    if url is not None:
        from datapruner.commands import remote

        remote.only_here(
            device=device != "auto",
            ray_address=ray_address is not None,
            log_to=bool(log_to or wanted.log_to),
        )
        config = wanted.config.model_copy(update={"engine": engine or wanted.config.engine})
        asked = recipes.as_request(config, wanted.evaluate)
        mapping = wanted.config.mapping
        remote.prune(
            url, wanted.data, mapping, {"recipe": asked}, files.get("subset"), files.get("plain"), output
        )
        return
    trackers = log_to or wanted.log_to
    evaluation = None
    with output.progress() as progress:
        with following(trackers, wanted.config, progress, output.note) as followed:
            result = library.run(
                wanted.config,
                wanted.data,
                wanted.config.target,
                device=device,
                engine=engine,
                ray_address=ray_address,
                progress=followed.progress,
            )
            rows = result.write(files)
            written = {
                {"plain": "plain rows"}.get(what, what): (files[what], count) for what, count in rows.items()
            }
            followed.done(result.run, result.corpus_file, written.values())
        if wanted.evaluate is not None:
            asked = wanted.evaluate.model_dump()
            [evaluation] = library.evaluate(result, **asked, device=device, progress=progress)
            result.write_cards(files, rows)
            log_evaluations(trackers, [evaluation], output.note)
    finish(output, result, written, evaluation)
