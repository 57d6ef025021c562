"""Every pruning method by name: our own, and those that other packages offer.

An outside package adds a method with an entry point in the group `datapruner.scorers`, the value of which is
a class that fulfils `scorers.method.Method` and takes no arguments. It describes the columns that it writes,
none of them otherwise than a signal, or another method's column, of that name.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any

from scorers.column import Column
from scorers.method import Method
from scorers.methods.ccs import Ccs
from scorers.methods.cot_influx import CotInflux
from scorers.methods.dealrec import DealRec
from scorers.methods.divprune import DivPrune
from scorers.methods.donod import Donod
from scorers.methods.el2n import El2n
from scorers.methods.grape import Grape
from scorers.methods.hes import Hes
from scorers.methods.ifd import Ifd
from scorers.methods.judge import Judge
from scorers.methods.length import Length
from scorers.methods.loss_drop import LossDrop
from scorers.methods.ppl import Ppl
from scorers.methods.qtuning import QTuning
from scorers.methods.random_control import Random
from scorers.methods.random_tokens import RandomTokens
from scorers.methods.rds import Rds
from scorers.methods.reward import Reward
from scorers.methods.rho import Rho
from scorers.methods.semdedup import SemDeDup
from scorers.methods.sfprompt import SfPrompt
from scorers.methods.token_prob import TokenProb
from scorers.methods.topsis_columns import Topsis
from scorers.methods.towards import TargetCosine
from scorers.methods.upd import Upd
from scorers.signals.columns import SAMPLE_SIGNALS, TOKEN_SIGNALS

GROUP = "datapruner.scorers"


def methods() -> dict[str, Method[Any]]:
    """All usable methods by name, ours first.

    A method from outside that does not load, is no Method or takes a name in use is left out with a
    RuntimeWarning that says which and why: it must not stop the others from working.
    """
    found: dict[str, Method[Any]] = {method.name: method for method in OWN}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        try:
            method = entry.load()()
            if not isinstance(method, Method):
                raise TypeError(f"{type(method).__name__} lacks members of scorers.method.Method")
            if method.name in found:
                raise ValueError(
                    f"the name {method.name!r} is taken by {type(found[method.name]).__qualname__}"
                )
            check_columns(method, found.values())
        except Exception as error:  # whatever foreign code raises on import
            problem = f"pruning method {entry.name!r} ({entry.value}) is left out: {error!r}"
            warnings.warn(problem, RuntimeWarning, stacklevel=2)
            continue
        found[method.name] = method
    return found


def check_columns(method: Method[Any], others: Iterable[Method[Any]]) -> None:
    """Raise TypeError or ValueError when columns are not described, or not as signals and `others` do."""
    if not all(isinstance(column, Column) for column in method.columns):
        raise TypeError("its columns are not all described by scorers.column.Column")
    known = [("the signal", (*SAMPLE_SIGNALS.values(), *TOKEN_SIGNALS.values()))]
    known += [(f"that of {other.name}", other.columns) for other in others]
    for whose, columns in known:
        for column in method.columns:
            for other in columns:
                if column.place == other.place and not column.agrees(other):
                    raise ValueError(f"its column {column.name!r} is another than {whose}")


def get(name: str) -> Method[Any]:
    """The method called `name`. Raises ValueError with the known names when there is none."""
    for method in OWN:  # without a look at every installed package
        if method.name == name:
            return method
    known = methods()
    if name not in known:
        raise ValueError(f"unknown method {name!r}; known are {', '.join(known)}")
    return known[name]


OWN: tuple[Method[Any], ...] = (
    QTuning(),
    Donod(),
    DealRec(),
    Rds(),
    TargetCosine(),
    LossDrop(),
    Ifd(),
    Rho(),
    TokenProb(),
    Ppl(),
    El2n(),
    Hes(),
    Upd(),
    Grape(),
    SfPrompt(),
    CotInflux(),
    Ccs(),
    DivPrune(),
    SemDeDup(),
    Judge(),
    Reward(),
    Topsis(methods),
    Length(),
    Random(),
    RandomTokens(),
)
