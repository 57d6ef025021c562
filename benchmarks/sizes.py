"""How large each benchmark is run: a line for every script in this folder.

To add a script: give it `main(argv: Sequence[str] | None = None)`, call `figures.figure` for each ratio that
it prints, make its default sizes those of `make bench`, and add its line here, with the arguments of a run
of a second or two; the tests run that. In `tiny`, `{model}` is the folder of a tiny model, `{url}` and
`{token}` are of a service that runs, with that model, and `{folder}` has made-up `traces.parquet`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    tiny: str
    """Arguments of the run in the tests."""
    bench: str | None = ""
    """Those in `make bench`; None where it is no part of it."""


SCRIPTS: Mapping[str, Sizes] = {
    "asap": Sizes(
        "{folder}/traces.parquet --rows 3 --steps 2 --model {model}", None
    ),  # quality, not speed; wants real traces
    "cluster": Sizes("--rows 4 --repeats 1 --processes 1 --model {model}"),
    "device": Sizes(
        "--rows 8 --budgets 512 --repeats 1 --dtype float32 --device cpu --model {model} --large 2 --small",
        None,
    ),  # wants a GPU
    "disk": Sizes("--rows 12 --repeats 1 --model {model}"),
    "duplicates": Sizes("--rows 300 --repeats 1", "--rows 50000"),
    "end_to_end": Sizes("--rows 8 --device cpu --model {model} --methods length", None),  # wants a GPU
    "feeding": Sizes("--rows 24 --task-rows 8 --model {model}"),
    "find_swapped": Sizes("--rows 20 --model {model}", None),  # quality, not speed
    "forward": Sizes(
        "--rows 12 --repeats 1 --budgets 512 --model {model} --device cpu", "--rows 32 --budgets 1024"
    ),
    "influence": Sizes(
        "exact lissa retraining --model {model} --rows 20 --tiny-rows 40 --targets 4 --samples 12 "
        "--fine-tuned 3 --left-out 3 --steps 2 --lissa-samples 2 --lissa-steps 20 "
        "--lissa-seeds 1 --training-steps 5 --head-steps 20 4",
        None,  # quality, not speed: a quarter of an hour
    ),
    "ingest": Sizes("--rows 300 --memory-rows 300 --repeats 1", "--memory-rows 300000"),
    "latency": Sizes(
        "--rows 2 --times 1 --clients 1 --listed 200 --only pages --model {model}",
        "--times 3 --clients 4 --listed 100000",
    ),
    "load": Sizes(
        "--clients 1 --seconds 0.2 --url {url} --token {token} --model {model}", "--clients 20 --seconds 20"
    ),
    "methods": Sizes("--rows 300 --only ppl semdedup", "--rows 30000"),
    "million": Sizes(  # all of a million: a quarter of an hour, 6 GiB of disk
        "--rows 200 --only select-dealrec", "--rows 100000 --only select-dealrec run export.parquet sql-join"
    ),
    "nightly": Sizes("--rows 300 --new 10"),
    "pages": Sizes(
        "--rows 30 --few 20 --tokens 4 --times 1 --url {url} --token {token} --model {model}",
        "--rows 50000 --times 1",
    ),
    "parity": Sizes("--families llama-tied --dtype float32 --device cpu"),
    "past_memory": Sizes(  # ten million rows: an hour or two, 12 GB of disk
        "--rows 300 --only qtuning:budget=plane near-duplicates --loss-rows 200 --width 16",
        "--rows 200000 --only qtuning rho semdedup near-duplicates --loss-rows 20000 --width 128",
    ),
    "peers": Sizes("--rows 8 --model {model} --only loop --method length", "--rows 32"),
    "report": Sizes("--rows 300", "--rows 100000"),
    "reprune": Sizes("--rows 300 --repeats 1 --methods donod"),
    "selection": Sizes("--rows 300 --memory-rows 300"),
    "start": Sizes("--rows 4 --repeats 1 --kinds tokenising --model {model}"),
    "sql_latency": Sizes("--rows 100 --statements 2 --url {url} --token {token}", "--statements 40"),
    "training": Sizes("--rows 8 --repeats 1 --model {model}"),
}
