"""What a pruning method is: signals in, scores and masks out. Each method is one file beside this one.

Notable choices:
- the range of an option is written once, beside its default, and both the check and the help text read it;
- the signals that a method needs may depend on its options, so `needs` is asked with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol, TypeVar, get_args, get_origin, get_type_hints, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from scorers.column import Column
from scorers.signals.columns import VIEWS, Bools, Floats, Ints, Signals

Columns = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Option:
    """What is known of one option beside its type and default; found under `field.metadata["option"]`."""

    help: str
    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    below: float | None = None
    longest: int = 200
    """Most characters of a text."""

    def allowed(self, kind: object) -> str:
        """The values that an option of type `kind` may take, in words."""
        if get_origin(kind) is Literal:
            return "one of " + ", ".join(repr(choice) for choice in get_args(kind))
        if kind is bool:
            return "true or false"
        if kind is str:
            return f"a text of at most {self.longest} printable characters"
        bounds = [
            f"{words} {bound:g}"
            for words, bound in (
                ("over", self.above),
                ("at least", self.at_least),
                ("at most", self.at_most),
                ("under", self.below),
            )
            if bound is not None
        ]
        return " ".join(["a whole number" if kind is int else "a number", " and ".join(bounds)]).rstrip()

    def admits(self, value: object, kind: object) -> bool:
        """Whether `value` is of type `kind` and inside the range."""
        if get_origin(kind) is Literal:
            return any(value == choice and type(value) is type(choice) for choice in get_args(kind))
        if kind is bool:
            return isinstance(value, bool)
        if kind is str:
            return isinstance(value, str) and len(value) <= self.longest and value.isprintable()
        numbers = (int,) if kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, numbers) or not math.isfinite(value):
            return False
        return (
            (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )


def option(
    default: Any,
    text: str,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    longest: int = 200,
) -> Any:
    """A dataclass field with its help text and range: `rate: float = option(0.5, "...", above=0)`.

    The field is a bool, int, float, Literal, or a str of at most `longest` printable characters.
    """
    about = Option(text, above, at_least, at_most, below, longest)
    return field(default=default, metadata={"option": about})


@dataclass(frozen=True, slots=True)
class Options:
    """Base of every method's options; on its own, the options of a method that has none.

    Raises ValueError on creation, naming the option, its value and what is allowed.
    """

    def __post_init__(self) -> None:
        kinds = get_type_hints(type(self))
        for each in fields(self):
            value, about = getattr(self, each.name), each.metadata["option"]
            if not about.admits(value, kinds[each.name]):
                raise ValueError(
                    f"option {each.name} is {value!r}: allowed is {about.allowed(kinds[each.name])}"
                )


@dataclass(frozen=True, slots=True)
class Selection:
    """Which samples, and which of their tokens, are kept.

    keep: (N,). reason: (N,) indices into `reasons`, one for every sample, kept or not.
    token_keep: (M,) flat like the token signals; a pruned token stays in the input and only loses its
    loss. True wherever the method does not prune tokens; meaningful for kept samples only.
    token_weight: gives of tokens that follow each other, a slice of the M, the factors of their loss, over 0;
    meaningful for kept tokens only, and None where the method weights nothing. A step's loss is the weighted
    sum over its kept tokens by their number.
    thresholds: the cuts that decided, by name, for the report. columns: per-sample columns (N,) that only
    exist once a keep share is known (Q-Tuning's quadrant). warnings: in words, where the method's own rule
    does not give what was asked for. share_of: what the share asked for is a share of.
    turn: (N,) where samples are taken one after another, so that a smaller share's are the first of a larger
    one's: at which turn each was, from 1 on, 0 where it was not. A reason may hold it, as `{turn}`.
    """

    keep: Bools
    reason: Ints
    reasons: tuple[str, ...]
    token_keep: Bools
    token_weight: Callable[[slice], NDArray[np.float32]] | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    columns: Columns = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    share_of: Literal["samples", "tokens"] = "samples"
    turn: Ints | None = None


OptionsT = TypeVar("OptionsT")


@runtime_checkable
class Method(Protocol[OptionsT]):
    """One way to read the signals. Stateless; the same inputs and seed give the same arrays."""

    name: str
    title: str
    paper: str
    options: type[OptionsT]
    """A frozen dataclass: `Options`, or a subclass whose fields are made with `option`."""
    presets: Mapping[str, Mapping[str, Any]]
    """Published settings: name -> {"keep": share, option: value, ...}."""
    columns: tuple[Column, ...]
    """Everything that `scores`, `token_scores` and `select` write with any options: columns, and thresholds.

    A column that several methods write is described alike by all, but for the end that is kept.
    """

    def needs(self, options: OptionsT) -> frozenset[str]:
        """Signals read, as "nll" for a sample or vector signal and "token:nll" for a token signal; with
        the name of a view before it ("free:nll", "target:mean_hidden"), that signal of the view.

        Raises ValueError, naming the option, when an option names something that there is not.
        """
        ...

    def scores(self, signals: Signals, options: OptionsT, seed: int) -> Columns:
        """Per-sample score columns (N,), independent of any keep ratio.

        Raises ValueError when a needed signal is missing, or NaN or infinite for some sample.
        """
        ...

    def token_scores(self, signals: Signals, options: OptionsT) -> Columns:
        """Per-token score columns (M,), {} for methods without token scores.

        Each token's are of its sample's signals alone: a run asks for those of some samples at a time, of
        which `signals` has no vectors.
        """
        ...

    def select(
        self, signals: Signals, scores: Columns, share: float, options: OptionsT, seed: int
    ) -> Selection:
        """Choose about `share` (0 < share <= 1) of the N samples, at least one.

        `scores` is what `scores()` gave for the same signals, options and seed. Raises ValueError when
        `share` is out of range.
        """
        ...


def sample_column(signals: Signals, name: str, *, infinite: bool = False) -> Floats:
    """Sample signal `name` as float64 (N,), checked: no NaN, and nothing infinite unless allowed.

    Raises ValueError naming the signal and the first sample at fault.
    """
    if name not in signals.samples:
        raise ValueError(f"signal {name} was not measured; measured are {', '.join(sorted(signals.samples))}")
    column = np.asarray(signals.samples[name], dtype=np.float64)
    bad = np.isnan(column) if infinite else ~np.isfinite(column)
    if bad.any():
        at = int(np.argmax(bad))
        raise ValueError(
            f"signal {name} of sample {signals.ids[at]} is {column[at]}; "
            "leave out samples that could not be measured before scoring"
        )
    return column


def token_column(signals: Signals, name: str) -> NDArray[np.generic]:
    """Token signal `name`, (M,), as measured. Raises ValueError when it is missing."""
    if name not in signals.tokens:
        measured = ", ".join(sorted(signals.tokens))
        raise ValueError(f"token signal {name} was not measured; measured are {measured or 'none'}")
    return signals.tokens[name]


def view(signals: Signals, name: str) -> Signals:
    """The view `name` (`signals.VIEWS`). Raises ValueError, with a remedy, when it was not measured."""
    if name not in signals.others:
        raise ValueError(f"the view {name!r} ({VIEWS[name]}) was not measured; {_VIEW_REMEDIES[name]}")
    return signals.others[name]


_VIEW_REMEDIES = {
    "free": 'ask for it in needs, as "free:nll"',
    "bare": 'ask for it in needs, as "bare:nll"',
    "reference": "name a reference model (reference, --reference)",
    "target": "name a target set (target, --target)",
}
