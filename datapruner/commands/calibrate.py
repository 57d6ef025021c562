"""`calibrate`: which rows to calibrate a model's compression with."""

from __future__ import annotations

import typer

from datapruner.commands import display, settings
from datapruner.commands import options as given
from datapruner.commands.curate import Kept, Table, finish
from datapruner.commands.display import Output


def calibrate(
    context: typer.Context,
    source: given.Source,
    map_: given.Mapped = None,
    device: given.Device = "auto",
    engine: given.Engine = None,
    ray_address: given.RayAddress = None,
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
            mapping=mapping,
            device=device,
            engine=engine,
            ray_address=ray_address,
            progress=progress,
            **settings.given(context),
        )
    made = display.table("batch", "KL, nats a token", "", right=("batch", "KL, nats a token"))
    for number, divergence in enumerate(result.settings["divergence"]):
        made.add_row(str(number), f"{divergence:.5f}", "kept" if number == result.settings["best"] else "")
    output.show(made, "")
    finish(output, result, out, verdicts)
