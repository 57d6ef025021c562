"""What a file of rows to train on says to the model that will be trained: whether its ids are that model's.

Notable choices:
- files say of themselves whose tokens they hold (`scorers.models.fingerprint`); that is compared first;
- of files that do not, ids are turned into text and back: those of another tokenizer come back as others;
- a row that cannot be trained on as it stands, or whose ids mean something else to the model, fails the
  check; what a trainer would cut, or have no token of, is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from datapruner.errors import InputError, ModelError, UsageError
from datapruner.measuring.passes import length_limit
from datapruner.outputs import checked_rows, learner
from datapruner.outputs.checked_rows import Row
from datapruner.outputs.training_rows import IGNORED
from scorers.models import fingerprint, tokenizer_file
from scorers.models.sources import ModelSourceError, resolve

_TRIED = 200
"""Rows whose text is turned into ids again."""
_TRIED_TOKENS = 1_000_000
"""Tokens of the first rows, behind which none is: so many take ten seconds."""
_SHOWN = 400
"""Tokens of the example."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Of what a file says of its tokenizer: what the model has otherwise."""

    what: str
    file: str
    model: str


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of neighbouring tokens that are all trained on, or none of them."""

    text: str
    trained: bool


@dataclass(slots=True)
class Findings:
    """What a check found. Rows are counted by what is wrong with them, some by several things.

    rows = those with ids and labels + `unreadable`, the first for this `reason`. `outside`: with ids that the
    vocabulary has not. `altered`: with a label that is neither -100 nor the id in its place. `untrained`:
    without a token to train on. `too_long`: of more tokens than `max_length`. `ended`: whose last token to
    train on is the model's end token. `weighted`: with a factor of each token's loss; `unweighable`: with one
    that is not above 0 and finite where a token is trained on, or not 0 where none is. `same`: of the
    `tried`, those whose text has the same ids again. `first`: of each kind a row, counted from 0.
    `described`: whether the file says whose tokens it holds. `warnings`: what is to be known of the model,
    whatever is in the file.
    """

    file: str
    model: str
    max_length: int | None
    described: bool = False
    differences: list[Difference] = field(default_factory=list)
    rows: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    longest: int = 0
    unreadable: int = 0
    outside: int = 0
    altered: int = 0
    untrained: int = 0
    too_long: int = 0
    weighted: int = 0
    unweighable: int = 0
    ended: int = 0
    tried: int = 0
    same: int = 0
    first: dict[str, int] = field(default_factory=dict)
    reason: str | None = None
    warnings: list[str] = field(default_factory=list)
    example: list[Piece] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not (self.differences or self.unreadable or self.outside or self.altered or self.unweighable)

    def count(self, what: str) -> None:
        """One more row of this kind; `rows` is how many there were before it."""
        setattr(self, what, getattr(self, what) + 1)
        self.first.setdefault(what, self.rows)


@dataclass(frozen=True, slots=True)
class Model:
    """What of a model says which ids are its, and how long a row may be."""

    name: str
    print: fingerprint.Fingerprint
    tokenizer: Tokenizer
    size: int
    limit: int | None

    @classmethod
    def find(cls, name: str, home: Path) -> Model:
        """`name` as `scorers.models.sources.resolve` takes it. Raises ModelError."""
        try:
            folder = resolve(name, home, weights=False).path
            found, tokenizer = fingerprint.of_folder(folder), tokenizer_file.read(folder)
        except ModelSourceError as error:
            raise ModelError(str(error)) from error
        size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        return cls(name, found, tokenizer, size, length_limit(learner.configuration(folder)))

    @property
    def end(self) -> int | None:
        special = self.print["special"].get("eos_token")
        return None if special is None else special["id"]


def check(path: Path, model: str, home: Path, *, max_length: int | None = None) -> Findings:
    """Hold a file, or a folder of them, against the model that will be trained on it.

    `max_length` is by default the model's own. Raises UsageError when there is no such file, InputError when
    it holds no rows of token ids, ModelError when the model's tokenizer cannot be used.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder", remedy="give what export wrote")
    known = Model.find(model, home)
    found = Findings(str(path), model, max_length if max_length is not None else known.limit)
    found.warnings = learner.warnings(model, home)
    about = checked_rows.about(path)
    described = _described(about)
    if described is not None:
        found.described = True
        found.differences = _differences(described, known.print)
    for row, reason in checked_rows.rows(path, about.get("trainer")):
        if row is None:
            found.reason = found.reason or reason
            found.count("unreadable")
        else:
            _look(found, known, row)
        found.rows += 1
    if found.rows == found.unreadable:
        raise InputError(
            f"{path}: no rows of token ids: {found.reason or 'it is empty'}",
            remedy="give what `datapruner export --for` wrote",
        )
    if not found.described and found.same * 2 < found.tried:
        said = f"{found.same} of {found.tried} rows have the same ids again"
        found.differences.append(Difference("ids, as text and back", "all of them", said))
    return found


def _look(found: Findings, model: Model, row: Row) -> None:
    ids, labels = row.ids, row.labels
    trained = labels != IGNORED
    if row.weights is not None:
        found.weighted += 1
        given = row.weights[trained]
        if not (np.isfinite(given) & (given > 0)).all() or row.weights[~trained].any():
            found.count("unweighable")
    found.tokens += len(ids)
    found.trained_tokens += int(trained.sum())
    found.longest = max(found.longest, len(ids))
    inside = bool(((ids >= 0) & (ids < model.size)).all())
    if not inside:
        found.count("outside")
    if not np.array_equal(ids[trained], labels[trained]):
        found.count("altered")
    if not trained.any():
        found.count("untrained")
    elif model.end is not None and int(ids[trained][-1]) == model.end:
        found.count("ended")
    if found.max_length is not None and len(ids) > found.max_length:
        found.count("too_long")
    if not inside:
        return
    if found.tried < _TRIED and found.tokens <= _TRIED_TOKENS:
        text = model.tokenizer.decode(ids.tolist(), skip_special_tokens=False)
        found.tried += 1
        found.same += model.tokenizer.encode(text, add_special_tokens=False).ids == ids.tolist()
    if not found.example and trained.any():
        pairs = zip(ids[:_SHOWN].tolist(), trained[:_SHOWN].tolist(), strict=True)
        found.example = [
            Piece(model.tokenizer.decode([each for each, _ in group], skip_special_tokens=False), is_trained)
            for is_trained, group in groupby(pairs, key=lambda pair: bool(pair[1]))
        ]


def _described(about: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The fingerprint of the tokenizer whose ids are in a file; None when it does not say."""
    for part in ("carried", "lineage"):
        said = about.get(part)
        found = said.get("tokenizer") if isinstance(said, dict) else None
        if isinstance(found, dict):
            return found
    return None


def _differences(file: Mapping[str, Any], model: fingerprint.Fingerprint) -> list[Difference]:
    ours: dict[str, Any] = dict(model)
    found = []
    for name, what in _COMPARED.items():
        theirs, mine = file.get(name), ours.get(name)
        if theirs != mine:
            found.append(Difference(what, _shown(theirs), _shown(mine)))
    special = file.get("special")
    special = special if isinstance(special, dict) else {}
    for role in _FED:
        theirs, mine = special.get(role), model["special"].get(role)
        if theirs != mine:
            found.append(Difference(role.replace("_", " "), _token(theirs), _token(mine)))
    return found


_FED = ("bos_token", "eos_token")
"""Special tokens that a model is trained to read and write; how it is padded is the trainer's to say."""
_COMPARED = {
    "tokens": "tokens in the vocabulary",
    "vocabulary": "vocabulary",
    "tokenizer": "rules of the tokenizer",
    "template": "chat template",
}


def _shown(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return "none" if value is None else str(value)[:32]


def _token(special: Any) -> str:
    if not isinstance(special, Mapping):
        return "none"
    return f"{str(special.get('token'))[:64]!r} ({special.get('id')})"
