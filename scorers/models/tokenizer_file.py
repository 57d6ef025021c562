"""A model's `tokenizer.json` by itself: what token ids write, without transformers."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from scorers.models.sources import ModelSourceError


def read(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder, which neither cuts nor pads. Raises ModelSourceError."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelSourceError(
            f"{folder.name} has no tokenizer.json",
            remedy="save its tokenizer with transformers' save_pretrained",
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library has no other class for what it cannot read
        raise ModelSourceError(f"{path} cannot be read: {error}", remedy="get the file again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
