"""The methods of rewriting there are: one line each in `METHODS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from datapruner.errors import UsageError
from datapruner.rewriting.anchor import AnchorOptions
from datapruner.rewriting.asap import AsapOptions
from datapruner.rewriting.dap import DapOptions
from datapruner.rewriting.proxies import unfit
from datapruner.rewriting.rewriters import Counter, Rewriter, Settings
from datapruner.rewriting.step_controls import LongestStepsOptions, RandomStepsOptions
from datapruner.validation import first_problem
from scorers.models.sources import ProxyFolder


@dataclass(frozen=True, slots=True)
class RewritingMethod:
    """A method of rewriting. `stage` is what a run's report says was done; `make` builds its rewriter from an
    instance of `options`, given a counter of the proxy model's tokens. `asks`: whom it asks, the proxy
    model, a teacher, or nobody."""

    name: str
    title: str
    paper: str
    stage: str
    options: type[Settings]
    make: Callable[[Any, Counter], Rewriter]
    asks: Literal["proxy", "teacher", "nobody"] = "teacher"

    def warnings(self, options: Settings, proxy: ProxyFolder) -> Iterator[str]:
        """What there is to say of these options with this proxy model."""
        if isinstance(options, AsapOptions) and options.score == "first-token":
            yield from unfit(self.name, proxy)

    def settings(self, given: Mapping[str, Any]) -> Settings:
        """The options object. Raises UsageError naming the option at fault."""
        try:
            return self.options.model_validate(dict(given))
        except ValidationError as error:
            wrong = first_problem(error, "options")
            raise UsageError(
                f"{self.name}, {wrong.message}",
                remedy=f"its options are {', '.join(self.options.model_fields)}",
                field=wrong.field or "options",
            ) from error


def _asap(options: AsapOptions, count: Counter) -> Rewriter:
    return options.rewriter(count)


def _control(options: LongestStepsOptions | RandomStepsOptions, count: Counter) -> Rewriter:
    return options.rewriter(count)


def _anchor(options: AnchorOptions, _: Counter) -> Rewriter:
    return options.rewriter()


def _dap(options: DapOptions, count: Counter) -> Rewriter:
    return options.rewriter(count)


METHODS: Mapping[str, RewritingMethod] = {
    method.name: method
    for method in (
        RewritingMethod(
            "asap",
            "ASAP, fine stage: reasoning steps by the surprisal of their first token",
            "arXiv 2508.05988",
            "first-token surprisal, without a teacher",
            AsapOptions,
            _asap,
            asks="proxy",
        ),
        RewritingMethod(
            "anchor",
            "ASAP, coarse stage: a teacher leaves out what the way to the answer does not need",
            "arXiv 2508.05988",
            "anchor-guided, by a teacher",
            AnchorOptions,
            _anchor,
        ),
        RewritingMethod(
            "dap",
            "DAP: a teacher rewrites reasoning to the length that its difficulty calls for",
            "arXiv 2505.19716",
            "difficulty-aware, by a teacher",
            DapOptions,
            _dap,
        ),
        RewritingMethod(
            "random-steps",
            "Control: reasoning steps in a random order, to the budget of the method compared with",
            "arXiv 2607.28707",
            "steps in a random order",
            RandomStepsOptions,
            _control,
            asks="nobody",
        ),
        RewritingMethod(
            "longest-steps",
            "Control: the longest reasoning steps, to the budget of the method compared with",
            "none, a baseline",
            "longest steps",
            LongestStepsOptions,
            _control,
            asks="nobody",
        ),
    )
}


def find(name: str) -> RewritingMethod:
    """The method of rewriting called `name`. Raises UsageError."""
    if name not in METHODS:
        raise UsageError(
            f"there is no method of rewriting called {name!r}",
            remedy=f"known: {', '.join(METHODS)}",
            field="method",
        )
    return METHODS[name]
