"""`calibrate`: which rows to calibrate a model's compression with."""

from __future__ import annotations

from typing import Annotated

import typer

from datapruner.commands import display
from datapruner.commands import options as given
from datapruner.commands.curate import Kept, Table, finish
from datapruner.commands.display import Output
from datapruner.commands.prune import DEFAULT_MODEL


def calibrate(
    source: given.Source,
    batches: Annotated[int, typer.Option(min=1, help="Candidate batches, drawn at random.")] = 8,
    size: Annotated[int, typer.Option(min=1, help="Samples of a batch.")] = 16,
    held_out: Annotated[int, typer.Option(min=1, help="Samples to measure on, in no batch.")] = 32,
    sparsity: Annotated[
        float, typer.Option(help="Share of each layer's weights that compression zeroes.")
    ] = 0.5,
    seed: given.Seed = 0,
    map_: given.Mapped = None,
    model: given.Model = DEFAULT_MODEL,
    dtype: given.Dtype = "auto",
    max_length: given.MaxLength = None,
    overflow: given.Overflow = "truncate",
    train_on: given.TrainOn = "all",
    device: given.Device = "auto",
    out: Kept = None,
    verdicts: Table = None,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Choose the rows to calibrate a model's quantisation or pruning with.

    Of the candidate batches the one is kept after which compression leaves the model least changed: the
    smallest KL(original || compressed) on held-out samples (calibration-kl, arXiv 2509.14230).
    """
    mapping = given.assignments(map_, "--map")
    given.check_targets(out=out, verdicts=verdicts)
    from datapruner.curation import calibration

    output = Output(as_json=as_json, quiet=quiet)
    with output.progress() as progress:
        result = calibration.calibrate(
            source,
            batches=batches,
            size=size,
            held_out=held_out,
            sparsity=sparsity,
            seed=seed,
            mapping=mapping,
            model=model,
            dtype=dtype,
            max_length=max_length,
            overflow=overflow,
            train_on=train_on,
            device=device,
            progress=progress,
        )
    made = display.table("batch", "KL, nats a token", "", right=("batch", "KL, nats a token"))
    for number, divergence in enumerate(result.settings["divergence"]):
        made.add_row(str(number), f"{divergence:.5f}", "kept" if number == result.settings["best"] else "")
    output.show(made, "")
    finish(output, result, out, verdicts)
