"""What a file of rows to train on says to the model that will be trained: whether its ids are that model's.

Any form of our exports with token ids is read. Nothing of the file is trusted: readers are those of input,
and what is no row of ids and labels is counted and told.

Notable choices:
- files say of themselves whose tokens they hold (`scorers.models.fingerprint`); that is compared first;
- of files that do not, ids are turned into text and back: those of another tokenizer come back as others;
- a row that cannot be trained on as it stands, or whose ids mean something else to the model, fails the
  check; what a trainer would cut, or have no token of, is counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tokenizers import Tokenizer

from datapruner.errors import InputError, ModelError, UsageError
from datapruner.input.readers import Dataset, Source, open_sources
from datapruner.input.shapes import Limits
from datapruner.outputs.training_rows import IGNORED
from scorers.models import fingerprint
from scorers.models.sources import ModelSourceError, resolve

Ints = NDArray[np.int64]

_NEEDED = {"ids": "input_ids", "labels": "labels", "messages": "messages"}
_TRIED = 200
"""Rows whose text is turned into ids again."""
_SHOWN = 400
"""Tokens of the example."""
_LARGEST = 16 << 20
"""Bytes of a file beside the rows."""


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
    train on is the model's end token. `same`: of the `tried`, those whose text has the same ids again.
    `first`: of each kind a row, counted from 0. `described`: whether the file says whose tokens it holds.
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
    ended: int = 0
    tried: int = 0
    same: int = 0
    first: dict[str, int] = field(default_factory=dict)
    reason: str | None = None
    example: list[Piece] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not (self.differences or self.unreadable or self.outside or self.altered)

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
            found = fingerprint.of_folder(folder)
        except ModelSourceError as error:
            raise ModelError(str(error)) from error
        if "tokens" not in found:
            raise ModelError(
                f"{folder} has no tokenizer.json",
                remedy="save its tokenizer with transformers' save_pretrained",
            )
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        return cls(name, found, tokenizer, size, _limit(folder / "config.json"))

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
    described = _described(path)
    if described is not None:
        found.described = True
        found.differences = _differences(described, known.print)
    for row, reason in _rows(path):
        if row is None:
            found.reason = found.reason or reason
            found.count("unreadable")
        else:
            _look(found, known, *row)
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


def _look(found: Findings, model: Model, ids: Ints, labels: Ints) -> None:
    trained = labels != IGNORED
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
    if found.tried < _TRIED:
        text = model.tokenizer.decode(ids.tolist(), skip_special_tokens=False)
        found.tried += 1
        found.same += model.tokenizer.encode(text, add_special_tokens=False).ids == ids.tolist()
    if not found.example and trained.any():
        pairs = zip(ids[:_SHOWN].tolist(), trained[:_SHOWN].tolist(), strict=True)
        found.example = [
            Piece(model.tokenizer.decode([each for each, _ in group], skip_special_tokens=False), is_trained)
            for is_trained, group in groupby(pairs, key=lambda pair: bool(pair[1]))
        ]


# What a file says of itself


def _described(path: Path) -> Mapping[str, Any] | None:
    """The fingerprint of the tokenizer whose ids are in a file; None when it does not say."""
    inside = path if path.is_file() else next(iter(sorted(path.glob("*.parquet"))), path)
    document: Any = None
    if inside.suffix == ".parquet" and inside.is_file():
        try:
            document = (pq.read_schema(inside).metadata or {}).get(b"datapruner")
        except (pa.ArrowException, OSError):
            return None  # reading the rows says what is wrong with it
    beside = path.with_suffix(".run.json")
    if document is None and beside.is_file() and beside.stat().st_size <= _LARGEST:
        document = beside.read_bytes()
    if document is None:
        return None
    try:
        said = orjson.loads(document)
    except ValueError as error:
        raise InputError(f"{path}: what it says of its run is not JSON: {error}") from error
    for part in ("carried", "lineage"):
        about = said.get(part) if isinstance(said, dict) else None
        found = about.get("tokenizer") if isinstance(about, dict) else None
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
    for role in fingerprint.ROLES:
        theirs, mine = special.get(role), model["special"].get(role)
        if theirs != mine:
            found.append(Difference(role.replace("_", " "), _token(theirs), _token(mine)))
    return found


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


def _limit(config: Path) -> int | None:
    """The longest row that a model's configuration allows, None when it states none."""
    try:
        said = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{config}: cannot be read: {error}") from error
    for part in (said, said.get("text_config") if isinstance(said, dict) else None):
        limit = part.get("max_position_embeddings") if isinstance(part, dict) else None
        if isinstance(limit, int):
            return limit
    return None


# Its rows


def _rows(path: Path) -> Iterator[tuple[tuple[Ints, Ints] | None, str | None]]:
    """Ids and labels of every row, or why there are none."""
    for source in _sources(path):
        for batch in source.batches(Limits(), typed=True):
            for record in batch.records:
                if record.fault is not None:
                    yield None, f"{source.name}, row {record.position}: {record.fault.reason}"
                    continue
                try:
                    yield _row(record.row), None
                except (ValueError, TypeError, OverflowError) as error:
                    yield None, f"{source.name}, row {record.position}: {error}"


def _sources(path: Path) -> list[Source]:
    splits = path / "dataset_dict.json"
    if splits.is_file():
        try:
            names = orjson.loads(splits.read_bytes())["splits"]
            return list(
                chain.from_iterable(open_sources(Dataset(str(path), split=str(n)), _NEEDED) for n in names)
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{splits}: does not say which splits there are") from error
    return open_sources(path, _NEEDED)


def _row(row: Any) -> tuple[Ints, Ints]:
    """Raises ValueError and TypeError."""
    if not isinstance(row, Mapping):
        raise TypeError("not an object")
    if row.get("input_ids") is not None:
        ids, labels = (_integers(name, row.get(name)) for name in ("input_ids", "labels"))
    elif isinstance(row.get("messages"), list):
        ids, labels = _of_messages(row["messages"])
    else:
        raise ValueError(f"it has neither input_ids nor messages with token_ids, but {', '.join(row)[:200]}")
    if len(ids) != len(labels):
        raise ValueError(f"{len(ids)} input_ids, but {len(labels)} labels")
    if not len(ids):
        raise ValueError("input_ids is empty")
    return ids, labels


def _of_messages(messages: Sequence[Any]) -> tuple[Ints, Ints]:
    """Of messages whose contents are token ids, with a factor of each one's loss."""
    contents = [each.get("content") for each in messages if isinstance(each, Mapping)]
    parts = [each for each in contents if isinstance(each, Mapping)]
    if not parts:
        raise ValueError("its messages are text, which has no token masks")
    ids = np.concatenate([_integers("token_ids", part.get("token_ids")) for part in parts])
    scales = np.concatenate([np.asarray(part.get("loss_scale") or [], np.float64) for part in parts])
    if len(ids) != len(scales):
        raise ValueError(f"{len(ids)} token_ids, but {len(scales)} of loss_scale")
    return ids, np.where(scales > 0, ids, IGNORED)


def _integers(name: str, value: Any) -> Ints:
    if isinstance(value, str):  # in CSV
        value = orjson.loads(value)
    if not isinstance(value, list):
        raise TypeError(f"{name} is not a list")
    found = np.asarray(value) if value else np.empty(0, np.int64)
    if found.dtype.kind != "i" or found.ndim != 1:
        raise ValueError(f"{name} holds something else than whole numbers")
    return found.astype(np.int64)
