"""Every method in one table: what it keeps of planted defects and of what others labelled, whether its score
is length, and what a model trained on what it keeps makes of held-out rows, against random rows.

python -m benchmarks.table --data FOLDER [--home HOME] [--only NAME ...] [--seconds 600] [--whole]

FOLDER has the corpora by name: alpaca/alpaca_52k.parquet, math/gsm8k_test.parquet and others, see `data.py`.
Nothing is fetched: the model has to be in the home already (`datapruner models pull smollm2-135m`).

What is done is kept in the home: the same command goes on where it was cut off, and measures methods that are
new or were changed. What is known at any moment is in `scorers/methods/findings.json`, which the product
shows, and in the benchmarks' page. `--whole` is for a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT
from benchmarks.table import page
from benchmarks.table.asked import Notes, Place, asked
from benchmarks.table.corpora import CORPORA, Labelled
from benchmarks.table.data import Amounts, Data
from benchmarks.table.joined import Line, document
from benchmarks.table.keeping import kept, known
from benchmarks.table.training import Setting, Trained, changes, clean, mixed, planted
from datapruner.home import made_home
from datapruner.measuring.devices import find_devices
from datapruner.tuning.training import RATES
from scorers.methods.findings import parsed

MODEL = "smollm2-135m"
README = ROOT / "benchmarks" / "README.md"
FINDINGS = ROOT / "scorers" / "methods" / "findings.json"

SMALL = Amounts(rows=600, each=40, labelled=60, held=32, clean=80, longest=400)
WHOLE = Amounts(rows=13_000, each=400, labelled=400, held=200, clean=400, longest=4000)
_RATES = RATES["lora"]
# In a few steps which rate is best on one draw of random rows is chance: the middle one is taken.
TRAINED = {
    SMALL: Trained(tokens=512, seeds=3, read=16, rates=_RATES[1:2]),
    WHOLE: Trained(tokens=50_000, seeds=3, read=200, rates=_RATES),
}
SEVERAL = ("alpaca", "gpt-4", "dolly", "evol", "user")


def settings(amounts: Amounts) -> list[Setting]:
    """What models are trained on and read on, the most important first."""
    if amounts is WHOLE:
        return [
            Setting("Alpaca with planted defects", planted, 0.25, SEVERAL),
            Setting("towards GSM8K", mixed, 0.25, ("gsm8k",)),
            Setting("Alpaca", clean, 0.25, SEVERAL),
        ]
    return [
        Setting("towards GSM8K", mixed, 0.25, ("gsm8k",)),
        Setting("Alpaca with planted defects", planted, 0.25, ("alpaca",)),
    ]


class Table:
    """The table while it is made: written anew whenever something was added."""

    def __init__(self, lines: list[Line], place: Place, out: Path, readme: Path | None) -> None:
        self.lines, self._place, self._out, self._readme = lines, place, out, readme
        self.corpora: dict[str, Labelled] = {}
        self.settings: dict[str, dict[str, Any]] = {}

    def write(self) -> None:
        place = self._place
        made = document(place.model, place.device, self.corpora, list(self.settings.values()), self.lines)
        text = json.dumps(made, indent=1, ensure_ascii=False)
        self._out.write_text(text + "\n", encoding="utf-8")
        if self._readme is not None:
            before = self._readme.read_text(encoding="utf-8")
            self._readme.write_text(page.put(before, parsed(made)), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("DATAPRUNER_CORPORA"))
    parser.add_argument("--seconds", type=float, default=None, help="nothing is begun after as many")
    parser.add_argument("--whole", action="store_true", help="as much as a GPU does in minutes")
    parser.add_argument("--only", nargs="*", default=None, help="labels of the lines to go on with")
    parser.add_argument("--untrained", action="store_true", help="train nothing: what is kept alone")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--home", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=FINDINGS)
    parser.add_argument("--page", type=Path, default=README)
    given = parser.parse_args(argv)
    if given.data is None:
        raise SystemExit("no corpora: give their folder with --data (or in DATAPRUNER_CORPORA)")
    amounts = WHOLE if given.whole else SMALL
    data = Data(Path(given.data), amounts)
    home = made_home(given.home)
    place = Place(home, find_devices(given.device)[0], given.model)
    make(data, place, TRAINED[amounts], given)
    return 0


def make(data: Data, place: Place, trained: Trained, given: argparse.Namespace) -> None:
    """Measure what is asked for and not yet known, in the order of what tells most."""
    started = time.monotonic()

    def over() -> bool:
        return given.seconds is not None and time.monotonic() - started >= given.seconds

    notes = Notes(place)
    table = Table([Line(each) for each in asked()], place, given.out, given.page)
    wanted = [each for each in table.lines if given.only is None or each.asked.label in given.only]
    for name, corpus_of in CORPORA.items():
        table.corpora[name] = corpus = corpus_of(data)
        for line in table.lines:
            if (found := known(line.asked, corpus, place, notes)) is not None:
                line.kept[name] = found
        unknown = [line for line in wanted if name not in line.kept]
        if not over():
            place.measure([line.asked for line in unknown], corpus.rows)
        for line in unknown:
            if not over():
                line.kept[name] = kept(line.asked, corpus, place, notes)
                print(f"{name}: {line.asked.label}: {line.kept[name]}", flush=True)
        table.write()
    by_label = {line.asked.label: line for line in table.lines}
    to_train = [] if given.untrained else [line.asked for line in wanted]
    for setting in settings(data.amounts):
        methods = [line.asked for line in table.lines]
        for each, change, measured in changes(setting, methods, to_train, data, place, notes, trained, over):
            if each.label not in by_label:  # it keeps no rows, and is trained alone
                by_label[each.label] = Line(each)
                table.lines.append(by_label[each.label])
            by_label[each.label].changes[setting.name] = change
            if measured:
                table.settings[setting.name] = measured
            print(f"{setting.name}: {each.label}: {change}", flush=True)
            table.write()


if __name__ == "__main__":
    raise SystemExit(main())
