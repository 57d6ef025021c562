"""What a tokenizer and a chat template are, in hashes that any machine gives: whether token ids that were
made with one model's mean the same to another. Standard library only.

Notable choices:
- hashed is what decides which ids a text has, from the parsed `tokenizer.json` and not from its bytes: saving
  it again, or with another version of its library, changes spelling, order and what is written of defaults;
- left out is what does not decide that: how ids become text again, what is put around a text (the template
  does that here), where offsets lie, truncation and padding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from scorers.models import template
from scorers.models.sources import ModelSourceError, Stamps, stamps

ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")

_OTHER_FILES = ("tokenizer.model", "vocab.json", "merges.txt", "vocab.txt")
_ROLE_FILES = ("special_tokens_map.json", "tokenizer_config.json")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_DECISIVE = ("normalizer", "pre_tokenizer")
_OF_OFFSETS = ("trim_offsets",)
_DEFAULTS = {"use_regex": True}
"""Of older files, what they do not say."""


class Special(TypedDict):
    """A token, and its id where the vocabulary has it."""

    token: str
    id: int | None


class Fingerprint(TypedDict):
    """Hashes are of 32 hexadecimal digits.

    tokenizer: of all that decides which ids a text has. template: of the chat template in force. vocabulary:
    of every token with its id, special ones included, and `tokens`, how many they are; neither where there is
    no `tokenizer.json`. special: by role.
    """

    tokenizer: str
    template: str
    special: dict[str, Special]
    vocabulary: NotRequired[str]
    tokens: NotRequired[int]


def of_folder(folder: Path) -> Fingerprint:
    """The fingerprint of a model folder. Raises ModelSourceError when a file cannot be read."""
    files = ("tokenizer.json", *_OTHER_FILES, *_ROLE_FILES, *template.FILES)
    return deepcopy(_at(folder, stamps(folder, files)))


@lru_cache(maxsize=16)
def _at(folder: Path, _: Stamps) -> Fingerprint:
    """By the stamps of its files, for these are megabytes and every run of a service asks."""
    try:
        return _of_folder(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelSourceError(
            f"the tokenizer in {folder} cannot be read: {type(error).__name__}: {error}",
            remedy="save it again with transformers' save_pretrained",
        ) from error


def _of_folder(folder: Path) -> Fingerprint:
    text = template.in_folder(folder)[0].replace("\r\n", "\n").removesuffix("\n")  # as Jinja reads it
    hashed_template = _hash([text])
    path = folder / "tokenizer.json"
    if not path.is_file():
        parts = [(folder / name).read_bytes().hex() for name in _OTHER_FILES if (folder / name).is_file()]
        return {"tokenizer": _hash(parts), "template": hashed_template, "special": _roles(folder, {})}
    document = json.loads(path.read_bytes())
    ids = _vocabulary(document)
    model = {name: value for name, value in document["model"].items() if name not in ("vocab", "dropout")}
    scores = document["model"]["vocab"] if isinstance(document["model"].get("vocab"), list) else None
    merges = [one.split(" ") if isinstance(one, str) else one for one in model.pop("merges", None) or ()]
    added = sorted(
        (token["id"], token["content"], *(token.get(name) is True for name in _FLAGS))
        for token in document.get("added_tokens") or ()
    )
    steps = [_plain(document.get(name)) for name in _DECISIVE]
    vocabulary = _hash(sorted(ids.items(), key=lambda item: (item[1], item[0])))
    return {
        "tokenizer": _hash([vocabulary, _plain(model), scores, merges, added, steps]),
        "template": hashed_template,
        "special": _roles(folder, ids),
        "vocabulary": vocabulary,
        "tokens": len(ids),
    }


def _vocabulary(document: Mapping[str, Any]) -> dict[str, int]:
    """Every token and its id."""
    vocab = document["model"].get("vocab") or {}
    ids = dict(vocab) if isinstance(vocab, dict) else {piece: at for at, (piece, _) in enumerate(vocab)}
    return ids | {token["content"]: token["id"] for token in document.get("added_tokens") or ()}


def _roles(folder: Path, ids: Mapping[str, int]) -> dict[str, Special]:
    found: dict[str, Special] = {}
    for name in _ROLE_FILES:
        if (folder / name).is_file():
            said = json.loads((folder / name).read_text(encoding="utf-8"))
            for role in ROLES:
                token = said.get(role)
                token = token.get("content") if isinstance(token, dict) else token
                if isinstance(token, str):
                    found[role] = {"token": token, "id": ids.get(token)}
    return found


def _plain(value: Any) -> Any:
    """A part of the document without what says nothing: absent, off, empty, or about offsets alone."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    kept = {name: _plain(each) for name, each in value.items() if name not in _OF_OFFSETS}
    return {
        name: each
        for name, each in kept.items()
        if each not in (None, False, "", []) and _DEFAULTS.get(name) != each
    }


def _hash(value: Any) -> str:
    said = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(said.encode()).hexdigest()[:32]
