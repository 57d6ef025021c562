"""What a home folder holds, which runs need it, and what may go.

What a run needs stays, whatever its age: its corpus, its target set's, and the signals of both under the keys
that it was measured with. Runs themselves, models, forecasts and a teacher's answers are never taken away:
they were asked for, or paid for.

Notable choices:
- signals go by the file: one of which no sample is in a corpus that stays. What else stands in a file with
  samples that are needed stays with them;
- while somebody else uses the home nothing goes at all (`datapruner.system.homes`): a run that has just found
  its corpus here is not known by anything else;
- of a corpus that cannot be read nobody can say which samples it has, so then no signals of a key that is
  needed go.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datapruner.corpora.corpus import Corpus
from datapruner.errors import InputError, UsageError
from datapruner.measuring import compaction
from datapruner.measuring.embeddings import EMBEDDING_VERSION, OF_SENTENCES
from datapruner.measuring.rewards import OF_REWARDS, REWARD_VERSION
from datapruner.measuring.signal_cache import NO_MODEL
from datapruner.runs import folders, published
from datapruner.system import homes
from datapruner.system.files import is_unfinished
from scorers.signals.columns import SIGNAL_VERSION

KINDS = (
    "corpora",
    "signals",
    "embeddings",
    "rewards",
    "influence",
    "tuned",
    "evaluations",
    "runs",
    "forecasts",
    "answers",
    "models",
    "unfinished",
)
_OURS = ("corpora", "signals", "influence", "tuned", "evaluations", "runs", "plans")
_OF_SIGNALS = (".parquet", ".json")
_UNFINISHED_AFTER = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Holding:
    """One thing in a home: a corpus, the signals of one key, a run.

    name: below the home. about: what it is, in words. used: when it was last written to or, by the runs that
    need it, read; in UTC. runs: ids of those. unneeded: its files that nothing needs, and how old each is
    by the time of its last writing.
    """

    kind: str
    name: str
    about: str
    bytes: int
    used: datetime
    runs: tuple[str, ...] = ()
    unneeded: tuple[Unneeded, ...] = field(default=(), repr=False)

    @property
    def unneeded_bytes(self) -> int:
        return sum(each.bytes for each in self.unneeded)


@dataclass(frozen=True, slots=True)
class Unneeded:
    """A file, or a folder with all that is in it."""

    path: Path
    bytes: int
    written: datetime


def holdings(home: Path, older_than: timedelta = timedelta()) -> list[Holding]:
    """All that `home` holds, by kind and name; unneeded is what was last written to before that.

    Raises InputError when a run in it cannot be read.
    """
    limit = datetime.now(UTC) - older_than
    references = _References.of(home)
    corpora = list(_corpora(home, references, limit))
    found = [*corpora, *_signals(home, references, corpora, limit), *_others(home, limit)]
    found += _unfinished(home, min(limit, datetime.now(UTC) - _UNFINISHED_AFTER))
    return sorted(found, key=lambda each: (KINDS.index(each.kind), each.name))


def clean(home: Path, *, older_than: timedelta, dry_run: bool = False) -> list[Unneeded]:
    """Take away what nothing needs and what was last written to before that; with `dry_run` only say what.

    Raises UsageError when another process uses the home, InputError as `holdings` does.
    """
    if dry_run:
        return [each for holding in holdings(home, older_than) for each in holding.unneeded]
    with homes.alone(home) as nobody_else:
        if not nobody_else:
            raise UsageError(
                f"{home}: another process uses it, a run or a Python session that had one",
                remedy="try again when it has ended; --dry-run shows what would go",
            )
        chosen = [each for holding in holdings(home, older_than) for each in holding.unneeded]
        for each in chosen:
            if each.path.is_dir():
                shutil.rmtree(each.path)
            else:
                each.path.unlink(missing_ok=True)
        return chosen


@dataclass(frozen=True, slots=True)
class _References:
    """By name of a corpus, and of a folder of signals: the runs that need it. times: of publishing a run."""

    corpora: Mapping[str, list[str]]
    keys: Mapping[str, list[str]]
    times: Mapping[str, datetime]

    @classmethod
    def of(cls, home: Path) -> _References:
        corpora: dict[str, list[str]] = {}
        keys: dict[str, list[str]] = {}
        times: dict[str, datetime] = {}
        for path in sorted((home / "runs").glob("*/run.json")):
            document = folders.read_document(path)
            run, lineage = document["run"], document["lineage"]
            times[run] = _written(path)
            for part in (lineage, *lineage.get("target", ())):
                if "corpus" in part:
                    corpora.setdefault(part["corpus"], []).append(run)
            for digest in published.signal_folders(lineage):
                keys.setdefault(digest, []).append(run)
        return cls(corpora, keys, times)

    def used(self, written: datetime, runs: Sequence[str]) -> datetime:
        return max([written, *(self.times[run] for run in runs)])


def _corpora(home: Path, references: _References, limit: datetime) -> Iterator[Holding]:
    sources = _by_corpus(home / "corpora")
    for path in sorted((home / "corpora").glob("[!.]*.duckdb")):
        runs = references.corpora.get(path.stem, [])
        try:
            with Corpus(path) as corpus:
                names = [str(source["name"]) for source in corpus.provenance.sources]
                about = f"{corpus.counts().rows:,} rows of {', '.join(names[:3])}"
        except InputError as error:
            about = error.message
        files = [_file(each) for each in (path, *sources.get(path.stem, ()))]
        unneeded = () if runs or max(each.written for each in files) > limit else files
        yield _holding(home, "corpora", path, about, files, references, runs, unneeded)


def _by_corpus(folder: Path) -> dict[str, list[Path]]:
    """The files that say which corpus a source became, by that."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("[!.]*.source")):
        found.setdefault(path.read_text(encoding="utf-8"), []).append(path)
    return found


def _signals(
    home: Path, references: _References, corpora: Sequence[Holding], limit: datetime
) -> Iterator[Holding]:
    living: NDArray[np.uint64] | None = None
    known = False
    for folder in sorted(path for path in (home / "signals").glob("[!.]*") if path.is_dir()):
        about = _spelled_out(folder)
        kind, version = _measured(about)
        runs = references.keys.get(folder.name, [])
        files = [_file(path) for path in sorted(folder.glob("[!.]*")) if path.suffix in _OF_SIGNALS]
        unneeded = [each for each in [_folder(folder)] if each.written <= limit]
        if runs:
            if not known:
                known, living = True, _samples(home, corpora)
            old = [each for each in files if each.path.suffix == ".parquet" and each.written <= limit]
            unneeded = [each for each in old if living is not None and not _any(each.path, living)]
            merged = set(compaction.superseded(folder))
            unneeded += [each for each in old if each.path in merged and each not in unneeded]
        model, dtype = (about.get(name, "unknown") for name in ("model", "dtype"))
        words = f"tokens of {model}" if dtype == NO_MODEL else f"{model} in {dtype}"
        if about.get("signal_version") != version:
            words += ", as another version measured it"
        yield _holding(home, kind, folder, words, files, references, runs, unneeded)


def _measured(about: Mapping[str, Any]) -> tuple[str, int]:
    """What a key is of, and the version in which that is measured now."""
    if about.get("template_hash") == OF_SENTENCES:
        return "embeddings", EMBEDDING_VERSION
    return ("rewards", REWARD_VERSION) if about.get("context") == OF_REWARDS else ("signals", SIGNAL_VERSION)


def _spelled_out(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "key.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _samples(home: Path, corpora: Sequence[Holding]) -> NDArray[np.uint64] | None:
    """Hashes of the samples of all corpora that stay, sorted; None when one of them cannot be read."""
    found = [np.empty(0, dtype=np.uint64)]
    for each in corpora:
        if not each.unneeded:
            try:
                with Corpus(home / each.name) as corpus:
                    found.append(corpus.sample_index()["sample_id"].hash().to_numpy())
            except InputError:
                return None
    return np.unique(np.concatenate(found))


def _any(shard: Path, living: NDArray[np.uint64]) -> bool:
    """Whether one of the shard's samples is among those. Two ids of one hash at worst keep a shard."""
    ids = pl.read_parquet(shard, columns=["sample_id"], glob=False)["sample_id"].hash().to_numpy()
    return bool(np.isin(ids, living).any())


def _others(home: Path, limit: datetime) -> Iterator[Holding]:
    # What either was computed for is with the runs; this only spares computing what is asked for again.
    kinds = {
        "influence": "LiSSA",
        "tuned": "a model tuned on a target set",
        "evaluations": "trainings of an evaluation",
    }
    for kind, about in kinds.items():
        for folder in sorted(path for path in (home / kind).glob("[!.]*") if path.is_dir()):
            whole = _folder(folder)
            unneeded = (whole,) if whole.written <= limit else ()
            yield Holding(kind, _name(home, folder), about, whole.bytes, whole.written, (), unneeded)
    for path in sorted((home / "runs").glob("*/run.json")):
        run = published.read(path.parent)
        whole = _folder(path.parent)
        about = f"{run.config.title}: {run.report.ingested:,} rows"
        yield Holding("runs", _name(home, path.parent), about, whole.bytes, whole.written, (run.run_id,))
    for kind, name, about in (
        ("forecasts", "plans", "what runs were forecast to take"),
        ("answers", "teacher", "what a teacher was asked"),
    ):
        if (home / name).is_dir():
            whole = _folder(home / name)
            yield Holding(kind, name, about, whole.bytes, whole.written)
    for folder in sorted(path for path in (home / "models").glob("[!.]*") if path.is_dir()):
        whole = _folder(folder)
        yield Holding("models", _name(home, folder), "a model", whole.bytes, whole.written)


def _unfinished(home: Path, limit: datetime) -> Iterator[Holding]:
    """What processes that were killed left behind."""
    begun = [folder for folder in (home / "runs").glob("[!.]*") if not (folder / "run.json").is_file()]
    hidden = [
        Path(place, name)
        for part in _OURS
        for place, folders, files in os.walk(home / part)
        for name in (*folders, *files)
        if is_unfinished(Path(name)) and Path(place) not in begun
    ]
    for path in (*begun, *hidden):
        left = _folder(path) if path.is_dir() else _file(path)
        if left.written <= limit:
            yield Holding("unfinished", _name(home, path), "", left.bytes, left.written, (), (left,))


def _holding(
    home: Path,
    kind: str,
    path: Path,
    about: str,
    files: Sequence[Unneeded],
    references: _References,
    runs: Sequence[str],
    unneeded: Collection[Unneeded],
) -> Holding:
    size, written = sum(each.bytes for each in files), max([_written(path), *(f.written for f in files)])
    used = references.used(written, runs)
    return Holding(kind, _name(home, path), about, size, used, tuple(runs), tuple(unneeded))


def _name(home: Path, path: Path) -> str:
    return path.relative_to(home).as_posix()


def _file(path: Path) -> Unneeded:
    return Unneeded(path, path.stat().st_size, _written(path))


def _folder(folder: Path) -> Unneeded:
    """A folder: written when the newest of its files was."""
    files = []
    for path in (Path(place, name) for place, _, names in os.walk(folder) for name in names):
        with suppress(FileNotFoundError):  # of a run that goes on
            files.append(_file(path))
    written = max((each.written for each in files), default=_written(folder))
    return Unneeded(folder, sum(each.bytes for each in files), written)


def _written(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
