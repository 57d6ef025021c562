"""Load the tokenizer and the configuration of a model folder. Imports no torch, and does without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from scorers.models.sources import ModelSourceError


def load(folder: Path) -> tuple[Any, Any]:
    """The model's configuration and its tokenizer, which tells where in a text its tokens are.

    Raises ModelSourceError when either cannot be used. No code from the folder is ever run.
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelSourceError(f"transformers cannot load the model in {folder}: {error}") from error
    if not tokenizer.is_fast:
        raise ModelSourceError(
            f"the tokenizer in {folder} has no fast form, so its tokens have no character offsets",
            remedy="add the model's tokenizer.json",
        )
    return config, tokenizer


def max_positions(config: Any) -> int | None:
    """The longest sequence that a model's configuration allows, None when it states none."""
    found: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return found
