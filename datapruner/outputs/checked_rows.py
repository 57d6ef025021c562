"""Rows of token ids, labels and weights from files of any of our exports, and what these say of themselves.

Nothing of a file is trusted: readers are those of input, and what is no row of ids and labels comes back as a
reason. Forms are told by their columns, of those whose labels are shifted by the trainer that they name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datapruner.errors import InputError
from datapruner.input.readers import Dataset, Source, open_sources
from datapruner.input.shapes import Limits
from datapruner.outputs.training_rows import IGNORED
from datapruner.runs import folders

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Row:
    """input_ids, unshifted labels and, where there are any, factors of the loss of each token, (T,) each."""

    ids: Ints
    labels: Ints
    weights: Floats | None = None


_NEEDED = {
    name: name for name in ("input_ids", "labels", "loss_mask", "token_weight", "seq_start_id", "messages")
}
_ROWS = ("rows.jsonl", "rows.parquet", "train.idx.parquet")
"""Of folders that hold more than rows, the file that does hold them."""
_SHIFTED = "automodel"
_LARGEST = 16 << 20
"""Bytes of what is said beside rows."""
_AGAIN = "write the rows again with `datapruner export`"


def about(path: Path) -> Mapping[str, Any]:
    """What a file, or a folder of them, says of its run; nothing where it does not. Raises InputError."""
    path = path.absolute()  # for `.` has no name
    said = _in_parquet(path)
    for beside in (path / "datapruner.json", folders.beside(path)):
        if said is None and beside.is_file():
            said = _document(beside)
    if said is None:
        return {}
    try:
        document = orjson.loads(said)
    except ValueError as error:
        raise InputError(f"{path}: what it says of its run is not JSON: {error}", remedy=_AGAIN) from error
    return document if isinstance(document, dict) else {}


def _document(path: Path) -> bytes:
    """A small file beside rows. Raises InputError when it is not."""
    size = path.stat().st_size
    if size > _LARGEST:
        raise InputError(f"{path}: of {size:,} bytes, more than the {_LARGEST:,} it may have", remedy=_AGAIN)
    return path.read_bytes()


def _in_parquet(path: Path) -> bytes | None:
    file = path if path.is_file() else next(iter(sorted(path.glob("*.parquet"))), path)
    if file.suffix != ".parquet" or not file.is_file():
        return None
    try:
        found: bytes | None = (pq.read_schema(file).metadata or {}).get(b"datapruner")
    except (pa.ArrowException, OSError):
        return None  # reading the rows says what is wrong with it
    return found


def rows(path: Path, trainer: Any) -> Iterator[tuple[Row | None, str]]:
    """Every row, or why there is none. `trainer`: the one that the file says it is for. Raises InputError."""
    for source in _sources(path):
        for batch in source.batches(Limits(), typed=True):
            for record in batch.records:
                where = f"{source.name}, row {record.position}"
                if record.fault is not None:
                    yield None, f"{where}: {record.fault.reason}"
                    continue
                try:
                    found = _read(record.row, shifted=trainer == _SHIFTED)
                except (ValueError, TypeError, OverflowError) as error:
                    yield None, f"{where}: {error}"
                else:
                    yield from ((row, "") for row in found)


def _sources(path: Path) -> list[Source]:
    splits = path / "dataset_dict.json"
    if splits.is_file():
        try:
            names = [str(name) for name in orjson.loads(_document(splits))["splits"]]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{splits}: does not say which splits there are",
                remedy="save the splits again with datasets' save_to_disk, or give one of their folders",
            ) from error
        found = (open_sources(Dataset(str(path), split=name), _NEEDED) for name in names)
        return list(chain.from_iterable(found))
    inside = next((path / name for name in _ROWS if (path / name).is_file()), path)
    return open_sources(inside, _NEEDED)


def _read(row: Any, *, shifted: bool) -> list[Row]:
    """The rows of one record: of a pack there are several. Raises ValueError and TypeError."""
    if not isinstance(row, Mapping):
        raise TypeError("not an object")
    if row.get("input_ids") is None:
        if not isinstance(row.get("messages"), list):
            raise ValueError(
                f"it has neither input_ids nor messages with token_ids, but {', '.join(row)[:200]}"
            )
        ids, labels, weights = _of_messages(row["messages"])
    else:
        ids = _integers("input_ids", row["input_ids"])
        labels, weights = _labels(row), _weights(row)
    if len(ids) != len(labels):
        raise ValueError(f"{len(ids)} input_ids, but {len(labels)} labels")
    if weights is not None and len(ids) != len(weights):
        raise ValueError(f"{len(ids)} input_ids, but {len(weights)} weights of tokens")
    if not len(ids):
        raise ValueError("input_ids is empty")
    if row.get("seq_start_id") is None:
        return [Row(ids, _unshifted(labels) if shifted else labels, weights)]
    starts = _integers("seq_start_id", row["seq_start_id"]).tolist()
    if not starts or starts[0] != 0 or any(a >= b for a, b in pairwise([*starts, len(ids)])):
        raise ValueError("seq_start_id does not say where rows begin")
    return [Row(ids[a:b], _unshifted(labels[a:b])) for a, b in pairwise([*starts, len(ids)])]


def _labels(row: Mapping[str, Any]) -> Ints:
    if row.get("loss_mask") is None:
        return _integers("labels", row.get("labels"))
    mask = _numbers("loss_mask", row["loss_mask"])
    ids = _integers("input_ids", row["input_ids"])
    if len(mask) != len(ids):
        raise ValueError(f"{len(ids)} input_ids, but {len(mask)} of loss_mask")
    following = np.append(ids[1:], IGNORED) if row.get("seq_start_id") is not None else ids
    return np.where(mask != 0, following, IGNORED)


def _weights(row: Mapping[str, Any]) -> Floats | None:
    """The weights that a row has: a mask that holds more than 0 and 1 is one of weights."""
    if row.get("token_weight") is not None:
        return _numbers("token_weight", row["token_weight"])
    return None if row.get("loss_mask") is None else _of_scales(_numbers("loss_mask", row["loss_mask"]))


def _of_scales(scales: Floats) -> Floats | None:
    return None if np.isin(scales, (0, 1)).all() else scales


def _unshifted(labels: Ints) -> Ints:
    return np.concatenate([[IGNORED], labels[:-1]])


def _of_messages(messages: Sequence[Any]) -> tuple[Ints, Ints, Floats | None]:
    """Of messages whose contents are token ids, with a factor of each one's loss."""
    contents = [each.get("content") for each in messages if isinstance(each, Mapping)]
    parts = [each for each in contents if isinstance(each, Mapping)]
    if not parts:
        raise ValueError("its messages are text, which has no token masks")
    ids = np.concatenate([_integers("token_ids", part.get("token_ids")) for part in parts])
    scales = np.concatenate([_numbers("loss_scale", part.get("loss_scale") or []) for part in parts])
    if len(ids) != len(scales):
        raise ValueError(f"{len(ids)} token_ids, but {len(scales)} of loss_scale")
    return ids, np.where(scales != 0, ids, IGNORED), _of_scales(scales)


def _numbers(name: str, value: Any) -> Floats:
    found = _list(name, value)
    if found.dtype.kind not in "if" or found.ndim != 1:
        raise ValueError(f"{name} holds something else than numbers")
    return found.astype(np.float64)


def _list(name: str, value: Any) -> NDArray[Any]:
    if isinstance(value, str):  # in CSV
        value = orjson.loads(value)
    if not isinstance(value, list):
        raise TypeError(f"{name} is not a list")
    return np.asarray(value) if value else np.empty(0, np.int64)


def _integers(name: str, value: Any) -> Ints:
    found = _list(name, value)
    if found.dtype.kind != "i" or found.ndim != 1:
        raise ValueError(f"{name} holds something else than whole numbers")
    return found.astype(np.int64)
