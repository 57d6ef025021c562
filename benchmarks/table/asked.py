"""The methods of the table, each with what it compares with, and what is kept of work that is done."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import datapruner
from benchmarks.table.data import Rows
from benchmarks.table.reference import fine_tuned
from datapruner.errors import DataprunerError
from datapruner.request.config import find
from datapruner.result import Result
from datapruner.system.files import write_json
from scorers.column import Column
from scorers.methods import registry
from scorers.signals.columns import corpus_settings, needs_by_view

VARIANTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "qtuning": {"fill=boundary": {"fill": "boundary"}, "no fill": {"fill": "none"}},
    "donod": {"high DON": {"don_sign": 1}},
    "target-cosine": {"round-robin": {"pick": "round-robin"}},
    "ppl": {"middle": {"prefer": "middle"}},
}
"""Method -> what its line says -> options, beside the line of the defaults."""


@dataclass(frozen=True)
class Asked:
    """A method with options."""

    method: str
    words: str
    options: Mapping[str, Any]

    @property
    def label(self) -> str:
        return f"{self.method}, {self.words}" if self.words else self.method

    @cached_property
    def views(self) -> frozenset[str]:
        """What it compares with."""
        known = find(self.method)
        return frozenset(needs_by_view(known.needs(known.options(**self.options))))

    @property
    def is_plain(self) -> bool:
        """Whether it reads what one pass of the proxy says of the rows, and nothing else."""
        known = find(self.method)
        needs = known.needs(known.options(**self.options))
        return not self.views & {"target", "reference"} and not any(map(corpus_settings, needs))

    @property
    def score(self) -> Column | None:
        """The column of its score: that of its name, or the first of which an end is kept."""
        columns = [each for each in find(self.method).columns if each.of == "sample"]
        own = [each for each in columns if each.name == self.method.replace("-", "_")]
        return next(iter(own + [each for each in columns if each.direction]), None)

    @property
    def identity(self) -> str:
        """A hash of all that it is: its options with the defaults, and the text of its file."""
        method = find(self.method)
        text = inspect.getsource(inspect.getmodule(type(method)) or type(method))
        options = asdict(method.options(**self.options))
        return hashed(self.method, options, text)


def asked() -> Iterator[Asked]:
    """All methods with their defaults, and the variants."""
    for method in registry.OWN:
        for words, options in {"": {}, **VARIANTS.get(method.name, {})}.items():
            yield Asked(method.name, words, options)


@dataclass(frozen=True)
class Place:
    """Where the models, the signals and what is done are kept, and by which model on which device it is."""

    home: Path
    device: str
    model: str

    def prune(self, each: Asked, rows: Rows, beside: Rows, **keep: Any) -> Result:
        """What a method keeps of the rows; `beside` are clean ones of the same kind, which are its target set
        and what its reference model is tuned on. Raises DataprunerError where it cannot."""
        more: dict[str, Any] = {}
        if "target" in each.views:
            more["target"] = beside
        if "reference" in each.views:
            more["reference"] = str(fine_tuned(beside, self.home, self.device, self.model))
        how: dict[str, Any] = {"device": self.device, "home": self.home, "model": self.model}
        return datapruner.prune(rows, each.method, options=each.options, **how, **keep, **more)

    def measure(self, some: Sequence[Asked], rows: Rows) -> None:
        """Measure in one pass what these methods read of the rows alone, rather than in one each."""
        names = list(dict.fromkeys(each.method for each in some if each.is_plain))
        if len(names) > 1:
            how: dict[str, Any] = {"device": self.device, "home": self.home, "model": self.model}
            with suppress(DataprunerError):  # which the method at fault tells when it is asked by itself
                datapruner.score(rows, names, **how)


class Notes:
    """What is done, in the home: a JSON document for each thing, by a hash of all that decides it, in a
    folder of the kind of device."""

    def __init__(self, place: Place) -> None:
        self._folder = place.home / "table" / place.device.partition(":")[0]
        self._folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> dict[str, Any] | None:
        path = self._folder / f"{key}.json"
        if not path.is_file():
            return None
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def put(self, key: str, found: Mapping[str, Any]) -> None:
        write_json(self._folder / f"{key}.json", dict(found))


def hashed(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
