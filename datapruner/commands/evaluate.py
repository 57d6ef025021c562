"""`evaluate`: whether what runs kept is worth training on."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from datapruner.commands import options as given
from datapruner.commands import verdicts
from datapruner.commands.display import Output
from datapruner.commands.named import named_sets

Runs = Annotated[
    list[str],
    typer.Argument(metavar="RUN", help="A run id, latest, a subset .parquet, or a .run.json."),
]
HeldOut = Annotated[
    list[str],
    typer.Option(
        "--held-out", "-x", metavar="[NAME=]DATA", help="Rows to read: file or Hub name; repeatable."
    ),
]


def evaluate(
    runs: Runs,
    held_out: HeldOut,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="What to train. Default: the runs' proxy model.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Train all weights, not an adapter (LoRA) alone.")
    ] = False,
    seeds: Annotated[
        int, typer.Option(min=1, max=100, help="Trainings of each arm; one alone shows no difference.")
    ] = 3,
    seconds: Annotated[
        float | None, typer.Option(metavar="S", help="Time to spend; what is not reached is said.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The first of the seeds.")] = 0,
    lm_eval: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK", help="A task of lm-eval to do besides: its name or YAML; repeatable."),
    ] = None,
    device: given.Device = "auto",
    log_to: given.LogTo = None,
    url: given.Url = None,
    as_json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Train a model on what runs kept and on other rows, and say which teaches more of held-out rows.

    The others: random rows and the longest rows, as many trained tokens of each, and all rows in as many
    steps. Held-out rows are taken out of all that is trained on. What is done is kept: the same command again
    goes on where time was over. --lm-eval takes the extra `eval` of the package. With --url, the runs are
    those of the service, DATA a file to send or one of its datasets.
    """
    output = Output(as_json=as_json, quiet=quiet)
    if url is not None:
        from datapruner.commands import remote

        remote.only_here(device=device != "auto", lm_eval=bool(lm_eval), log_to=bool(log_to))
        tuning: Literal["lora", "full"] = "full" if full else "lora"
        remote.evaluate(
            url,
            runs,
            named_sets(held_out, "--held-out"),
            output,
            model=model,
            tuning=tuning,
            seeds=seeds,
            seconds=seconds,
            seed=seed,
        )
        return
    from datapruner import library
    from datapruner.tracking import following

    following.check(log_to or ())
    with output.progress() as progress:
        found = library.evaluate(
            runs,
            named_sets(held_out, "--held-out"),
            model=model,
            tuning="full" if full else "lora",
            seeds=seeds,
            seconds=seconds,
            seed=seed,
            lm_eval=lm_eval or (),
            device=device,
            progress=progress,
        )
    following.log_evaluations(log_to or (), found, output.note)
    verdicts.show(output, found)
