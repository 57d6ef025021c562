"""The signal cache: append-only Parquet shards, one folder per proxy key. A sample is measured once.

`signals/{key}/{hash of the shard's sample ids}.parquet`, and `key.json` that spells the key out. Whatever
decides a number is in the key: model revision, template hash, dtype, length limit, which turns are trained
on, what stands before the responses, signal version. A shard appears by rename, so every file there is whole.

Notable choices:
- which samples are there is asked of the shards themselves (their id column), not of a second index that
  could disagree with them;
- small shards are merged into larger ones (`compaction`), and are then no shards any more;
- a sample in two shards (two runs at once measured it) is read from the first by name;
- token columns and vectors are read some thousand samples at a time and put where they belong, vectors and
  long token columns on disk (`spool`): nothing stands in memory twice.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datapruner.measuring import merged
from datapruner.measuring.places import Places, flatten
from datapruner.measuring.spool import Spool, column
from datapruner.measuring.vectors import unpack
from datapruner.system.files import publishing
from scorers.signals.columns import SAMPLE_SIGNALS, TOKEN_SIGNALS, VECTOR_SIGNALS, Ints, Signals, let_go

# A sample's means have the names of the token columns they are means of; shards keep the two apart.
_MEANS = {name: f"{name}_mean" for name in ("nll", "entropy", "el2n")}
NO_MODEL = "none"
"""The dtype in the key of a cache of token ids and their places alone, for which no model was loaded."""
_TEXTS_AT_ONCE = 65_536
_COUNTS = ("n_tokens", "n_prompt_tokens", "n_response_tokens")
_INDEX = {"sample_id": pl.String, "error": pl.String, "shard": pl.UInt32, "line": pl.UInt32}
_ELEMENTS: Mapping[str, type[np.generic]] = {"real": np.float32, "whole": np.int32, "truth": np.bool_}


@dataclass(frozen=True, slots=True)
class ProxyKey:
    """Everything that decides a signal's value, besides the sample."""

    model: str
    revision: str
    template_hash: str
    dtype: str
    max_length: int | None
    overflow: str
    train_on: str
    tied: bool
    signal_version: int
    context: str = "full"
    lora: bool = False

    @property
    def has_signals(self) -> bool:
        """Whether a model has read the samples, so that there is more of them than their tokens."""
        return self.dtype != NO_MODEL

    def document(self) -> dict[str, Any]:
        """The key spelled out, without the fields that have a default: keys were given those later, and what
        was measured before stays valid."""
        defaults = {each.name: each.default for each in fields(self) if each.default is not MISSING}
        return {name: value for name, value in asdict(self).items() if defaults.get(name, MISSING) != value}

    def digest(self) -> str:
        """Folder name of the key. The model's name is for people and does not count."""
        decisive = {name: value for name, value in self.document().items() if name != "model"}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def shard_name(ids: Sequence[str]) -> str:
    """File name of the shard that holds exactly these samples."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:20] + ".parquet"


class SignalCache:
    """The shards of one proxy key below `home`."""

    def __init__(self, home: Path, key: ProxyKey) -> None:
        self.key = key
        self.folder = home / "signals" / key.digest()
        self._known: list[Path] = []
        self._heights: Ints = np.empty(0, np.int64)
        self._located = pl.DataFrame(schema=_INDEX)

    def create(self) -> None:
        """Make the folder, with its key spelled out."""
        self.folder.mkdir(parents=True, exist_ok=True)
        about = self.folder / "key.json"
        if not about.exists():
            with publishing(about) as file:
                file.write(json.dumps(self.key.document(), indent=2).encode() + b"\n")

    def shards(self) -> list[Path]:
        """Every published shard, by name, without those that were merged into others."""
        return merged.shards(self.folder)

    def _index(self) -> pl.DataFrame:
        """Where each sample is: sample_id, error, shard (number in `shards()`), line (in the shard)."""
        shards = self.shards()
        if shards != self._known:
            # glob off: a home called "runs[1]" is no pattern
            scan = pl.scan_parquet(shards, glob=False, include_file_paths="shard")
            found = scan.select("sample_id", "error", "shard").collect()
            runs = found["shard"].rle().struct.unnest()
            number = {str(path): at for at, path in enumerate(shards)}
            self._heights = np.zeros(len(shards), np.int64)
            self._heights[[number[path] for path in runs["value"]]] = runs["len"].to_numpy()
            shard = np.repeat(np.arange(len(shards)), self._heights)
            line = np.arange(len(found)) - np.repeat(np.cumsum(self._heights) - self._heights, self._heights)
            located = found.select(
                "sample_id",
                "error",
                shard=pl.Series(shard.astype(np.uint32)),
                line=pl.Series(line.astype(np.uint32)),
            )
            self._located = located.unique("sample_id", keep="first", maintain_order=True)
            self._known = shards
        return self._located

    def status(self, ids: Sequence[str] | pl.Series) -> pl.DataFrame:
        """Of these samples, the measured ones: columns sample_id, error (null when measured well)."""
        return self._index().select("sample_id", "error").join(_wanted(ids), on="sample_id", how="semi")

    def places(self, ids: Sequence[str] | pl.Series) -> Places:
        """Where measured samples are, in the order of `ids`. All of them must be there."""
        found = self._index().filter(pl.col("error").is_null())
        found = _wanted(ids).join(found, on="sample_id", how="inner", maintain_order="left")
        assert len(found) == len(ids), f"{len(ids) - len(found)} samples are not in {self.folder}"
        shard, line = (found[name].to_numpy().astype(np.int64) for name in ("shard", "line"))
        return Places(self._known, self._heights, shard, line)

    def columns(self, ids: Sequence[str] | pl.Series, names: Sequence[str]) -> pl.DataFrame:
        """sample_id and these shard columns of measured samples, in the order of `ids`. All must be there.

        Reads the shards that hold them, and of those the columns asked for.
        """
        return self.places(ids).columns(["sample_id", *names])

    def held_bytes(self, ids: Sequence[str] | pl.Series) -> int:
        """Bytes on disk of those of these samples that are here: of each shard the part of its lines that
        they are."""
        found = self._index().join(_wanted(ids), on="sample_id", how="semi")
        lines = np.bincount(found["shard"].to_numpy(), minlength=len(self._known))
        sizes = np.array([path.stat().st_size for path in self._known], np.float64)
        return math.ceil(float((sizes * lines / np.maximum(self._heights, 1)).sum()))

    def sample(self, sample_id: str) -> dict[str, list[Any]] | None:
        """Lists of one sample: `input_ids`, and of each response token its `position` and, where a model has
        read it, its `el2n`. None when it is not here."""
        names = ["input_ids", "position", *(["el2n"] if self.key.has_signals else [])]
        shards = self.shards()
        if not shards:
            return None
        measured = (pl.col("sample_id") == sample_id) & pl.col("error").is_null()
        # First the shard by its column of ids: token ids are most of the bytes.
        scan = pl.scan_parquet(shards, glob=False, include_file_paths="shard").filter(measured)
        holders = scan.select("shard").head(1).collect().to_series().to_list()
        for shard in holders:
            return (
                pl.scan_parquet(shard, glob=False).filter(measured).select(names).collect().row(0, named=True)
            )
        return None

    def signals(self, ids: Sequence[str] | pl.Series, needs: frozenset[str]) -> Signals:
        """Signals of measured samples in the order of `ids`: those in `needs`, and the counts.

        Names are those of `scorers.signals.columns`; token signals are asked for as "token:nll".
        """
        samples = sorted((needs & set(SAMPLE_SIGNALS)) | set(_COUNTS))
        tokens = sorted(name for name in TOKEN_SIGNALS if f"token:{name}" in needs)
        vectors = sorted(needs & set(VECTOR_SIGNALS))
        unknown = needs - set(samples) - {f"token:{name}" for name in tokens} - set(vectors)
        assert not unknown, f"no such signals: {sorted(unknown)}"
        places = self.places(ids)
        frame = places.columns(list(dict.fromkeys(_MEANS.get(name, name) for name in samples)))
        offsets = np.concatenate([[0], np.cumsum(frame["n_response_tokens"].to_numpy())])
        found = Signals(
            ids=_texts(ids, self.folder),
            samples={name: frame[_MEANS.get(name, name)].to_numpy() for name in samples},
            tokens={
                name: column(self.folder, int(offsets[-1]), _ELEMENTS[TOKEN_SIGNALS[name].kind])
                for name in tokens
            },
            offsets=offsets,
            vectors=self._vectors(places, ids, vectors),
        )
        _read_tokens(found, places)
        return found

    def vectors(self, ids: Sequence[str], name: str) -> Spool:
        """A vector signal of measured samples in the order of `ids`."""
        return self._vectors(self.places(ids), ids, [name])[name]

    def _vectors(
        self, places: Places, ids: Sequence[str] | pl.Series, names: Sequence[str]
    ) -> dict[str, Spool]:
        by_id = _by_id(ids, self.folder) if names else np.empty(0, np.int64)
        found: dict[str, Spool] = {}
        for rows, frame in places.blocks(names) if names else ():
            for name in names:
                vectors = unpack(frame[name])
                if name not in found:
                    found[name] = Spool(self.folder, by_id, vectors.shape[1])
                found[name].put(rows, vectors)
        return found


def _read_tokens(signals: Signals, places: Places) -> None:
    """Fill in the token columns of samples that are at these places."""
    for rows, frame in places.blocks(list(signals.tokens)) if signals.tokens else ():
        lengths = signals.offsets[rows + 1] - signals.offsets[rows]
        shift = signals.offsets[rows] - (np.cumsum(lengths) - lengths)
        at = np.repeat(shift, lengths) + np.arange(int(lengths.sum()))
        for name, values in signals.tokens.items():
            values[at] = flatten(frame[name])
        signals.let_go()


def _texts(ids: Sequence[str] | pl.Series, folder: Path) -> NDArray[np.str_]:
    """The ids as an array, made without all of them as Python's texts."""
    texts = pl.Series(ids, dtype=pl.String)
    longest = int(texts.str.len_chars().to_numpy().max(initial=1))
    found: NDArray[np.str_] = column(folder, len(texts), f"<U{longest}")
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        some = texts[start : start + _TEXTS_AT_ONCE]
        found[start : start + len(some)] = some.to_list()
        let_go(found)
    return found


def series(ids: NDArray[np.str_]) -> pl.Series:
    """The ids of `Signals`, some at a time as Python's texts."""
    parts = [pl.Series(dtype=pl.String)]
    for start in range(0, len(ids), _TEXTS_AT_ONCE):
        parts.append(pl.Series(ids[start : start + _TEXTS_AT_ONCE].tolist(), dtype=pl.String))
        let_go(ids)
    return pl.concat(parts)


def _by_id(ids: Sequence[str] | pl.Series, folder: Path) -> Ints:
    """The place of each among all in the order of their ids, (N,)."""
    order = np.argsort(_texts(ids, folder), kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return place


def _wanted(ids: Sequence[str] | pl.Series) -> pl.DataFrame:
    return pl.DataFrame({"sample_id": ids}, schema={"sample_id": pl.String})
