"""Signals that no shard has a column of (`scorers.signals.columns.DERIVED_SIGNALS`): worked out when a method
asks for them, of the model's configuration and of the token ids."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datapruner.errors import ModelError
from datapruner.measuring.places import Places, flatten
from scorers.signals.columns import Ints

_RESPONSE = -1  # no token's id


def vocabulary(folder: Path) -> int:
    """How many tokens a model chooses from: the rows of its head, padding included.

    Raises ModelError when its configuration does not say.
    """
    configuration = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for part in (configuration.get("text_config"), configuration):
        size = part.get("vocab_size") if isinstance(part, dict) else None
        if isinstance(size, int) and size > 0:
            return size
    raise ModelError(
        f"config.json of the model in {folder} does not say how many tokens it chooses from",
        remedy="set vocab_size there, or use a method that does not need it",
    )


def prompts(places: Places) -> Ints:
    """A hash of each sample's prompt, (N,): of its tokens up to the last that is trained on, with each run of
    those that are as one mark."""
    found = np.empty(len(places), dtype=np.int64)
    for rows, frame in places.blocks(["input_ids", "position"]):
        ids, lengths = flatten(frame["input_ids"]).astype(np.int32), frame["input_ids"].list.len().to_numpy()
        begins = np.cumsum(lengths.astype(np.int64)) - lengths
        counts = frame["position"].list.len().to_numpy().astype(np.int64)
        ids[np.repeat(begins, counts) + flatten(frame["position"])] = _RESPONSE
        for row, text in zip(rows.tolist(), np.split(ids, begins[1:]), strict=True):
            found[row] = _hash(text)
    return found


def _hash(text: NDArray[np.int32]) -> int:
    trained = text == _RESPONSE
    stop = len(text) - int(np.argmax(trained[::-1]))
    first = trained[:stop] & np.diff(trained[:stop], prepend=False)
    parts = text[:stop][first | ~trained[:stop]]
    return int.from_bytes(hashlib.blake2b(parts.tobytes(), digest_size=8).digest(), "little", signed=True)
