"""Methods as a person chooses among them on a page: what each is, its options, and what it takes besides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from datapruner.request.config import Measuring
from datapruner.schemas.methods import MethodAnswer
from datapruner.service import methods
from scorers.method import Method
from scorers.methods import registry
from scorers.signals.columns import RATING, REWARD, corpus_settings, needs_by_view

MODEL = Measuring().model
"""The proxy model of a run that names none."""
_MOST = 1000

Taken = Literal["target", "reference", "reward_model", "teacher"]
"""Rows to select towards, and models besides the proxy model."""
_VIEWS: dict[str, Taken] = {"target": "target", "reference": "reference"}
_OF_CORPORA: dict[str, Taken] = {REWARD: "reward_model", RATING: "teacher"}


@dataclass(frozen=True, slots=True)
class Choice:
    """A method. `takes`: what it needs, by default; `besides`: by option and value, what that needs more."""

    about: MethodAnswer
    takes: frozenset[Taken]
    besides: dict[str, dict[str, frozenset[Taken]]]


def choices() -> list[Choice]:
    """All methods, by name."""
    return [_choice(about, registry.get(about.name)) for about in methods.listing(limit=_MOST)]


def _choice(about: MethodAnswer, method: Method[Any]) -> Choice:
    takes = _taken(method, method.options())
    besides: dict[str, dict[str, frozenset[Taken]]] = {}
    for option, value in _named_values(method):
        if more := _taken(method, method.options(**{option: value})) - takes:
            besides.setdefault(option, {})[value] = more
    return Choice(about, takes, besides)


def _named_values(method: Method[Any]) -> Iterator[tuple[str, str]]:
    """The options of a method that are chosen among names, with each of these."""
    kinds = get_type_hints(method.options)
    for option in fields(method.options):
        kind = kinds[option.name]
        for value in get_args(kind) if get_origin(kind) is Literal else ():
            if isinstance(value, str):
                yield option.name, value


def _taken(method: Method[Any], options: Any) -> frozenset[Taken]:
    needs = method.needs(options)
    named = {about[0] for about in map(corpus_settings, needs) if about is not None}
    views = needs_by_view(needs).keys()
    return frozenset(
        [_VIEWS[view] for view in _VIEWS.keys() & views]
        + [_OF_CORPORA[name] for name in _OF_CORPORA.keys() & named]
    )
