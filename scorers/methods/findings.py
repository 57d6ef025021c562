"""What each method was found to do on public corpora: what it keeps of which defects, whether its score is
response length, and what it did against random rows.

`findings.json` beside this file is written by a benchmark (`make table`) and by nobody's hand. It speaks of
the model, the device and the sizes that it names; other corpora and larger models may say otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

Verdict = Literal["better", "worse", "no difference"]


@dataclass(frozen=True, slots=True)
class Kept:
    """Of the `rows` of a kind in a corpus, `kept` were kept where half of the corpus was asked for."""

    corpus: str
    kind: str
    kept: int
    rows: int

    @property
    def share(self) -> float:
        return self.kept / self.rows


@dataclass(frozen=True, slots=True)
class Length:
    """Spearman's rank correlation of a score with the response tokens of `rows` sound rows, above 0 where the
    end that is kept is that of long ones."""

    column: str
    correlation: float
    rows: int


@dataclass(frozen=True, slots=True)
class Change:
    """Against random rows in a setting, at equal trained tokens: nats a token that held-out loss changed by,
    below 0 for better, with its interval at 95 %."""

    setting: str
    difference: float
    low: float
    high: float
    verdict: Verdict
    seeds: int
    rows: int
    trained_tokens: float

    @property
    def text(self) -> str:
        """The change and its interval, in a few characters."""
        return f"{self.difference:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of a method with the options given and else its defaults.

    words: what sets it apart from the method's first, "" for that one.
    tokens: the share of the response tokens that is in the kept half of the first corpus. left_out: what was
    not measured and why, in words.
    """

    method: str
    words: str
    options: Mapping[str, Any]
    kept: tuple[Kept, ...]
    tokens: float | None
    length: Length | None
    changes: tuple[Change, ...]
    left_out: tuple[str, ...]

    @property
    def label(self) -> str:
        """The method, and the words if any."""
        return f"{self.method}, {self.words}" if self.words else self.method


@dataclass(frozen=True, slots=True)
class Corpus:
    """What methods were asked to keep half of. shown: the kinds of rows that tell what a method keeps."""

    name: str
    title: str
    rows: int
    tokens: int
    shown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """What models were trained on and read on. held_out: names of the sets. read: their rows read; tokens:
    those of them. share: of the trained tokens that is kept."""

    name: str
    share: float
    trained_tokens: float
    steps: float
    seeds: int
    learning_rate: float
    held_out: tuple[str, ...]
    read: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Findings:
    """All of them, and what they were measured with."""

    model: str
    device: str
    corpora: tuple[Corpus, ...]
    settings: tuple[Setting, ...]
    methods: tuple[Finding, ...]

    def of(self, method: str) -> tuple[Finding, ...]:
        """Those of a method, with its defaults first; () where nothing was measured."""
        return tuple(each for each in self.methods if each.method == method)

    @property
    def sizes(self) -> tuple[str, ...]:
        """What was measured, in words."""
        return (
            f"{self.model}, on {self.device}",
            *(
                f"{each.title}: {each.rows:,} rows with {each.tokens:,} response tokens, half of them kept"
                for each in self.corpora
            ),
            *(
                f"{each.name}: {each.share:.0%} of the trained tokens kept, {each.trained_tokens:,.0f} of "
                f"them trained in each of {each.seeds} trainings ({each.steps:.0f} steps, learning rate "
                f"{each.learning_rate:g}), {each.read:,} held-out rows with {each.tokens:,} tokens read "
                f"({' and '.join(each.held_out)})"
                for each in self.settings
            ),
        )


def parsed(document: Mapping[str, Any]) -> Findings:
    """The findings in a document of `findings.json`'s form."""
    return Findings(
        model=document["model"],
        device=document["device"],
        corpora=tuple(Corpus(**each | {"shown": tuple(each["shown"])}) for each in document["corpora"]),
        settings=tuple(
            Setting(**each | {"held_out": tuple(each["held_out"])}) for each in document["settings"]
        ),
        methods=tuple(
            Finding(
                method=each["method"],
                words=each["words"],
                options=each["options"],
                kept=tuple(Kept(**one) for one in each["kept"]),
                tokens=each["tokens"],
                length=None if each["length"] is None else Length(**each["length"]),
                changes=tuple(Change(**one) for one in each["changes"]),
                left_out=tuple(each["left_out"]),
            )
            for each in document["methods"]
        ),
    )


@cache
def measured() -> Findings:
    """The findings that this version was published with."""
    text = files("scorers.methods").joinpath("findings.json").read_text(encoding="utf-8")
    return parsed(json.loads(text))
