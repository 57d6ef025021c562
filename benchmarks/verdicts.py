"""Whether what methods keep is worth more than random rows: a model trained on each, read on held-out rows.

python -m benchmarks.verdicts --data FOLDER [--seconds 600] [--small] [--rows 13000] [--home HOME]

FOLDER has the corpora by name: alpaca/alpaca_52k.parquet, math/gsm8k_test.parquet and others, see `FILES`.
Nothing is fetched: the model has to be in the home already (`datapruner models pull smollm2-135m`).

The most important setting comes first, and each gets its share of the time. What is done is kept in the home,
so that the same command goes on where it was cut off; the table of what there is so far is in `--out`, and
with `--readme` in the benchmarks' page too. `--small` is for a CPU: few rows, few methods, labelled so.

The reference model, for methods that compare with one, is the model trained on clean rows of the same kind
that are in no other set; the target set, for methods that select towards one, is of these rows too.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import datapruner
from benchmarks.processes import ROOT
from benchmarks.verdicts_in_training import fine_tuned, in_training
from datapruner.corpora.store import ingest_to
from datapruner.evaluation.evaluate import evaluations_of
from datapruner.evaluation.trainings import train
from datapruner.home import made_home
from datapruner.measuring.devices import find_devices
from datapruner.measuring.measure import Machine
from datapruner.progress import Silent
from datapruner.request.evaluating import EvaluationSettings
from datapruner.result import Result
from datapruner.runs import published
from datapruner.schemas.evaluations import Against, Evaluation
from datapruner.training import StepPruning

Rows = list[dict[str, Any]]

README = ROOT / "benchmarks" / "README.md"
MARKS = ("<!-- verdicts -->\n", "<!-- end of verdicts -->\n")
MODEL = "smollm2-135m"
FILES = {
    "alpaca": "alpaca/alpaca_52k.parquet",
    "pairs": "alpaca/alpaca_gpt4_pairs_1k.parquet",
    "dolly": "chat/dolly_3k.parquet",
    "evol": "chat/evol_instruct_1k.parquet",
    "user": "chat/self_instruct_user_252.parquet",
    "solutions": "math/gsm8k_model_solutions_labelled.parquet",
    "gsm8k": "math/gsm8k_test.parquet",
    "gsm8k-train": "math/gsm8k_train.parquet",
}
METHODS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "rho": ("rho", {"token_keep": 1.0}),
    "target-cosine": ("target-cosine", {}),
    "ifd": ("ifd", {}),
    "ppl": ("ppl", {}),
    "qtuning": ("qtuning", {"token_keep": 0.5}),
    "rho, tokens": ("rho", {"token_keep": 0.6}),
    "dealrec": ("dealrec", {}),
    "donod": ("donod", {}),
    "el2n": ("el2n", {}),
    "ppl, middle": ("ppl", {"prefer": "middle"}),
    "ccs": ("ccs", {}),
    "divprune": ("divprune", {}),
    "semdedup": ("semdedup", {}),
    "sfprompt": ("sfprompt", {}),
    "cot-influx": ("cot-influx", {}),
    "length": ("length", {}),
}
IN_TRAINING = "qtuning in training"
SWAPPED, CLEAN = "Alpaca, 20 % swapped", "Alpaca"
SOLUTIONS, MIXED = "GSM8K solutions, some wrong", "Alpaca and GSM8K, towards GSM8K"


@dataclass(frozen=True)
class Size:
    """rows: of a corpus. held: of each held-out set. clean: of the target set and for the reference model.
    longest: characters of a row. methods: which. held_out: which sets of several. seeds: how many."""

    rows: int
    held: int
    clean: int
    longest: int
    methods: Sequence[str]
    held_out: Sequence[str]
    seeds: int


WHOLE = Size(13_000, 200, 400, 4000, tuple(METHODS), ("alpaca", "gpt-4", "dolly", "evol", "user", "gsm8k"), 3)
SMALL = Size(320, 32, 80, 400, tuple(METHODS), ("alpaca", "gpt-4"), 3)


@dataclass(frozen=True)
class Setting:
    """A corpus, the share of its trained tokens that is kept, held-out sets, the share of the time, and the
    methods, by their labels."""

    name: str
    corpus: Callable[[Data], tuple[Rows, Rows]]
    share: float
    held_out: Sequence[str]
    time: float
    methods: Sequence[str]


class Data:
    """The corpora of a folder, cut to a size. Raises SystemExit naming what is not there."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder, self.size = folder, size
        missing = [name for name in FILES.values() if not (folder / name).is_file()]
        if missing:
            raise SystemExit(
                f"{folder} lacks {', '.join(missing)}: give the folder of the corpora with --data"
            )

    def read(self, name: str, prompt: str, more: str | None, response: str) -> pl.DataFrame:
        """All rows of a file that are not too long, as instruction, input and output, shuffled."""
        frame = pl.read_parquet(self.folder / FILES[name])
        text = pl.col(response).str.strip_chars()
        frame = frame.select(
            pl.col(prompt).alias("instruction"),
            (pl.lit("") if more is None else pl.col(more).fill_null("")).alias("input"),
            text.alias("output"),
        )
        size = pl.sum_horizontal(pl.col(part).str.len_chars() for part in ("instruction", "input", "output"))
        fits = (size <= self.size.longest) & (pl.col("output").str.len_chars() >= 20)
        return frame.filter(fits).unique(maintain_order=True).sample(fraction=1, shuffle=True, seed=0)

    def alpaca(self) -> tuple[Rows, Rows, Rows]:
        """Rows to train on, clean ones beside them, and held-out ones."""
        found = self.read("alpaca", "instruction", "input", "output").to_dicts()
        held, clean = self.size.held, self.size.clean
        return found[held + clean :][: self.size.rows], found[held : held + clean], found[:held]

    def held_out(self, name: str) -> Rows:
        """The rows of a held-out set."""
        made: Mapping[str, Callable[[], Rows]] = {
            "alpaca": lambda: self.alpaca()[2],
            "gpt-4": lambda: self.read("pairs", "instruction", "input", "output_gpt4").to_dicts(),
            "dolly": lambda: self.read("dolly", "instruction", "input", "output").to_dicts(),
            "evol": lambda: self.read("evol", "instruction", None, "output").to_dicts(),
            "user": lambda: self.read("user", "instruction", "input", "output").to_dicts(),
            "gsm8k": lambda: self.read("gsm8k", "question", None, "answer").to_dicts(),
        }
        return made[name]()[: self.size.held]


def clean(data: Data) -> tuple[Rows, Rows]:
    """Alpaca as it is, and clean rows beside it."""
    rows, beside, _ = data.alpaca()
    return rows, beside


def swapped(data: Data) -> tuple[Rows, Rows]:
    """Alpaca with the responses of a fifth of its rows given to one another."""
    rows, beside, _ = data.alpaca()
    chosen = np.random.default_rng(0).choice(len(rows), len(rows) // 5, replace=False)
    outputs = [row["output"] for row in rows]
    for row, other in zip(chosen.tolist(), np.roll(chosen, 1).tolist(), strict=True):
        rows[row] = rows[row] | {"output": outputs[other]}
    return rows, beside


def solutions(data: Data) -> tuple[Rows, Rows]:
    """Solutions of GSM8K by models, right and wrong ones; the rows beside are right and by people."""
    found = data.read("solutions", "question", None, "solution").to_dicts()
    beside = data.read("gsm8k-train", "question", None, "answer").to_dicts()
    return found[: data.size.rows], beside[: data.size.clean]


def mixed(data: Data) -> tuple[Rows, Rows]:
    """Alpaca with a fifth of problems of GSM8K: what is wanted is in the corpus, among other things."""
    rows, _, _ = data.alpaca()
    problems = data.read("gsm8k-train", "question", None, "answer").to_dicts()
    part, clean = data.size.rows // 5, data.size.clean
    return rows[: len(rows) - part] + problems[clean : clean + part], problems[:clean]


def settings(size: Size) -> list[Setting]:
    """What is tried, the most important first."""
    several, methods = size.held_out, size.methods
    if size is SMALL:  # where a training is of minutes, methods that have a chance in the setting
        return [
            Setting(MIXED, mixed, 0.25, ["gsm8k"], 0.25, ("target-cosine", "rho")),
            Setting(SWAPPED, swapped, 0.25, several, 0.4, ("rho", "target-cosine", "ifd", "ppl")),
            Setting(SOLUTIONS, solutions, 0.25, ["gsm8k"], 0.2, ("rho", "ppl")),
            Setting(CLEAN, clean, 0.25, several, 0.15, ("qtuning", "ifd")),
        ]
    return [
        Setting(SWAPPED, swapped, 0.25, several, 0.3, methods),
        Setting(CLEAN, clean, 0.25, several, 0.2, methods),
        Setting(SOLUTIONS, solutions, 0.25, ["gsm8k"], 0.15, methods),
        Setting(MIXED, mixed, 0.25, ["gsm8k"], 0.15, methods),
        Setting(SWAPPED, swapped, 0.1, several, 0.2, methods),
    ]


@dataclass(frozen=True)
class Place:
    """Where and how it is run."""

    home: Path
    device: str
    started: float
    seconds: float | None

    @property
    def over(self) -> bool:
        return self.seconds is not None and time.monotonic() - self.started > self.seconds


def runs_of(setting: Setting, data: Data, place: Place, model: str) -> dict[str, Result]:
    """What each method keeps, by its label; those that cannot are left out, and told."""
    rows, beside = setting.corpus(data)
    how: dict[str, Any] = {"device": place.device, "home": place.home, "model": model}
    tokens = datapruner.score(rows, "length", **how).report.response_tokens
    reference = fine_tuned(beside, place.home, place.device, model)
    found: dict[str, Result] = {}
    for label in setting.methods:
        if place.over:
            break
        method, options = METHODS[label]
        more: dict[str, Any] = {}
        if method in ("target-cosine", "dealrec"):
            more["target"] = beside
        if method == "rho":
            more["reference"] = str(reference)
        try:
            found[label] = datapruner.prune(
                rows, method, keep_tokens=round(setting.share * tokens), options=options, **how, **more
            )
        except datapruner.DataprunerError as error:
            print(f"  {label}: {error}", flush=True)
    return found


def evaluated(
    setting: Setting, data: Data, place: Place, model: str
) -> tuple[dict[str, Evaluation], dict[str, Any]]:
    """The evaluation of each method by its label, and what pruning in training came to."""
    found = runs_of(setting, data, place, model)
    if not found:
        return {}, {}
    held_out = {
        name: (name, ingest_to(data.held_out(name), {}, place.home, Silent())) for name in setting.held_out
    }
    wanted = EvaluationSettings(
        held_out={name: name for name in setting.held_out},
        seeds=data.size.seeds,
        seconds=None if place.seconds is None else 0.75 * setting.time * place.seconds,
    )
    machine = Machine((place.device,))
    runs = [each.run for each in found.values()]
    corpus = published.corpus_path(runs[0], place.home)
    trainings = train(runs, corpus, held_out, wanted, place.home, machine, Silent())
    told = evaluations_of(runs, trainings, wanted, place.home, machine)
    by_label = dict(zip(found, told, strict=True))
    extra: dict[str, Any] = {}
    if not place.over:
        extra = in_training(trainings, wanted, StepPruning(keep=setting.share), lambda: place.over)
    return by_label, extra


def lines(found: Mapping[str, Evaluation], extra: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What is kept of an evaluation: one a method."""
    for label, each in found.items():
        subset = next((arm for arm in each.arms if arm.name == "subset"), None)
        if subset is None:
            continue
        against = {held.name: _random(held.against) for held in each.held_out}
        if len(against) > 1:
            against["all sets"] = _random(each.overall)
        yield {
            "method": label,
            "trained_tokens": subset.trained_tokens,
            "seeds": len(subset.seeds),
            "against_random": {n: a.model_dump(mode="json") for n, a in against.items() if a is not None},
        }
    if extra:
        yield {"method": IN_TRAINING, **extra}


def _random(against: Sequence[Against]) -> Against | None:
    return next((each for each in against if each.control == "random"), None)


def document(setting: Setting, found: Mapping[str, Evaluation], extra: Mapping[str, Any]) -> dict[str, Any]:
    """One setting's results."""
    first = next(iter(found.values()))
    return {
        "setting": setting.name,
        "share": setting.share,
        "model": first.model,
        "device": first.device,
        "learning_rate": first.learning_rate,
        "learning_rates": first.learning_rates,
        "arms": [arm.model_dump(mode="json") for arm in first.arms if arm.name != "subset"],
        "held_out": [
            each.model_dump(mode="json", include={"name", "rows", "read", "tokens", "contaminated", "losses"})
            for each in first.held_out
        ],
        "not_reached": first.not_reached,
        "methods": list(lines(found, extra)),
        "seconds": first.seconds,
        "packages": first.packages,
    }


def table(documents: Sequence[Mapping[str, Any]]) -> str:
    """The results in Markdown: nats per token that each subset's model loses less (below zero) or more than
    that of random rows, and the interval."""
    made = []
    for each in documents:
        names = list(dict.fromkeys(name for line in each["methods"] for name in line["against_random"]))
        random = next(arm for arm in each["arms"] if arm["name"] == "random")
        made.append(
            f"**{each['setting']}**, {each['share']:.0%} of the trained tokens "
            f"({random['trained_tokens']:,.0f} in each training, {random['steps']:.0f} steps, learning rate "
            f"{each['learning_rate']:g}, {len(random['seeds'])} seeds, on {each['device']})"
        )
        rows = [["method", *names], ["---", *("--:" for _ in names)]]
        for line in each["methods"]:
            cells = [_cell(line["against_random"].get(name)) for name in names]
            rows.append([f"`{line['method']}`", *cells])
        made.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return "\n\n".join(made) + "\n"


def _cell(against: Mapping[str, Any] | None) -> str:
    if against is None:
        return ""
    found = against["nats_per_token"]
    text = f"{found['difference']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"
    return f"**{against['verdict']}** {text}" if against["verdict"] != "no difference" else text


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("DATAPRUNER_CORPORA"))
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--small", action="store_true", help="few rows and methods, for a CPU")
    parser.add_argument("--rows", type=int, default=None, help="of a corpus")
    parser.add_argument("--seeds", type=int, default=None)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--home", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "verdicts.json")
    parser.add_argument("--readme", action="store_true", help="put the table into the benchmarks' page")
    given = parser.parse_args(argv)
    if given.data is None:
        raise SystemExit("no corpora: give their folder with --data (or in DATAPRUNER_CORPORA)")
    size = SMALL if given.small else WHOLE
    changed = {"rows": given.rows, "seeds": given.seeds}
    changed = {name: value for name, value in changed.items() if value is not None}
    data = Data(Path(given.data), replace(size, **changed))
    place = Place(made_home(given.home), find_devices(given.device)[0], time.monotonic(), given.seconds)
    done: list[dict[str, Any]] = []
    for setting in settings(size):
        if place.over:
            print(f"no time for: {setting.name}, {setting.share:.0%}")
            continue
        print(f"{setting.name}, {setting.share:.0%}", flush=True)
        try:
            found, extra = evaluated(setting, data, place, given.model)
        except datapruner.DataprunerError as error:
            print(f"  {error}", flush=True)
            continue
        if found:
            done.append(document(setting, found, extra) | {"small": given.small})
            given.out.write_text(json.dumps(done, indent=2) + "\n", encoding="utf-8")
            print(table(done[-1:]), flush=True)
    if given.readme and done:
        before, _, rest = README.read_text(encoding="utf-8").partition(MARKS[0])
        _, _, after = rest.partition(MARKS[1])
        README.write_text(f"{before}{MARKS[0]}\n{table(done)}\n{MARKS[1]}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
