"""Methods as a person chooses among them on a page: what each is, its options, and what it needs besides."""

from __future__ import annotations

from dataclasses import dataclass

from datapruner.request.config import Measuring
from datapruner.schemas.methods import MethodAnswer
from datapruner.service import methods
from scorers.methods import registry
from scorers.signals.columns import corpus_settings, needs_by_view

MODEL = Measuring().model
"""The proxy model of a run that names none."""
_MOST = 1000


@dataclass(frozen=True, slots=True)
class Choice:
    """A method that can be started from a page. `target`: whether it selects towards another dataset."""

    about: MethodAnswer
    target: bool


@dataclass(frozen=True, slots=True)
class Choices:
    """What can be started from a page, and the names of the methods that need more than it can give."""

    offered: list[Choice]
    others: list[str]


def choices() -> Choices:
    """All methods, by name; those with their default options that read rows and a target set are offered."""
    offered, others = [], []
    for about in methods.listing(limit=_MOST):
        method = registry.get(about.name)
        wanted = method.needs(method.options())
        views = set(needs_by_view(wanted))
        fitted = any(corpus_settings(need) is not None for need in wanted)
        if fitted or "reference" in views:
            others.append(about.name)
        else:
            offered.append(Choice(about, "target" in views))
    return Choices(offered, others)
