"""The signal cache: append-only Parquet shards, one folder per proxy key. A sample is measured once.

`signals/{key}/{hash of the shard's sample ids}.parquet`, and `key.json` that spells the key out. Whatever
decides a number is in the key: model revision, template hash, dtype, length limit, which turns are trained
on, signal version. A shard appears by rename, so every file there is whole.

Notable choices:
- which samples are there is asked of the shards themselves (their id column), not of a second index that
  could disagree with them;
- a sample in two shards (two runs at once measured it) is read from the first by name.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl

from scorers.signals import SAMPLE_SIGNALS, TOKEN_SIGNALS, VECTOR_SIGNALS, Signals

# A sample's means have the names of the token columns they are means of; shards keep the two apart.
_MEANS = {name: f"{name}_mean" for name in ("nll", "entropy", "el2n")}
_COUNTS = {
    "n_tokens": pl.col("input_ids").list.len(),
    "n_response_tokens": pl.col("position").list.len(),
    "n_prompt_tokens": pl.col("input_ids").list.len() - pl.col("position").list.len(),
}


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

    def digest(self) -> str:
        """Folder name of the key. The model's name is for people and does not count."""
        fields = {name: value for name, value in asdict(self).items() if name != "model"}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def shard_name(ids: Sequence[str]) -> str:
    """File name of the shard that holds exactly these samples."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:20] + ".parquet"


class SignalCache:
    """The shards of one proxy key below `home`."""

    def __init__(self, home: Path, key: ProxyKey) -> None:
        self.key = key
        self.folder = home / "signals" / key.digest()

    def create(self) -> None:
        """Make the folder, with its key spelled out."""
        self.folder.mkdir(parents=True, exist_ok=True)
        about = self.folder / "key.json"
        if not about.exists():
            temporary = about.with_name(f".key.{os.getpid()}")
            temporary.write_text(json.dumps(asdict(self.key), indent=2) + "\n")
            temporary.replace(about)

    def shards(self) -> list[Path]:
        """Every published shard, by name."""
        return sorted(self.folder.glob("[!.]*.parquet"))

    def _scan(self) -> pl.LazyFrame | None:
        shards = self.shards()
        return pl.scan_parquet(shards) if shards else None

    def status(self, ids: Sequence[str]) -> pl.DataFrame:
        """Of these samples, the measured ones: columns sample_id, error (null when measured well)."""
        wanted = pl.DataFrame({"sample_id": ids}, schema={"sample_id": pl.String})
        scan = self._scan()
        if scan is None:
            return wanted.clear().with_columns(error=pl.lit(None, dtype=pl.String))
        return (
            scan.select("sample_id", "error")
            .unique("sample_id", keep="first", maintain_order=True)
            .join(wanted.lazy(), on="sample_id", how="semi")
            .collect()
        )

    def columns(self, ids: Sequence[str], names: Sequence[str]) -> pl.DataFrame:
        """Shard columns of measured samples, in the order of `ids`. All of them must be there."""
        wanted = pl.DataFrame({"sample_id": ids}, schema={"sample_id": pl.String})
        scan = self._scan()
        assert scan is not None, f"no signals in {self.folder}"
        found = (
            scan.filter(pl.col("error").is_null())
            .select("sample_id", *(_COUNTS[n].alias(n) if n in _COUNTS else pl.col(n) for n in names))
            .join(wanted.lazy(), on="sample_id", how="semi")
            .unique("sample_id", keep="first", maintain_order=True)
            .collect()
        )
        out = wanted.join(found, on="sample_id", how="left", maintain_order="left")
        assert len(found) == len(wanted), f"{len(wanted) - len(found)} samples are not in {self.folder}"
        return out

    def signals(self, ids: Sequence[str], needs: frozenset[str]) -> Signals:
        """Signals of measured samples in the order of `ids`: those in `needs`, and the counts.

        Names are those of `scorers.signals`; token signals are asked for as "token:nll".
        """
        samples = sorted((needs & set(SAMPLE_SIGNALS)) | set(_COUNTS))
        tokens = sorted(name for name in TOKEN_SIGNALS if f"token:{name}" in needs)
        vectors = sorted(needs & set(VECTOR_SIGNALS))
        unknown = needs - set(samples) - {f"token:{name}" for name in tokens} - set(vectors)
        assert not unknown, f"no such signals: {sorted(unknown)}"
        stored = [_MEANS.get(name, name) for name in samples]
        frame = self.columns(ids, list(dict.fromkeys([*stored, *tokens, *vectors])))
        lengths = frame["n_response_tokens"].to_numpy().astype(np.int64)
        return Signals(
            ids=np.array(ids, dtype=np.str_),
            samples={name: frame[_MEANS.get(name, name)].to_numpy() for name in samples},
            tokens={name: frame[name].explode().to_numpy() for name in tokens},
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            vectors={name: frame[name].to_numpy() for name in vectors},
        )
