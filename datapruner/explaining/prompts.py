"""The prompt of a sample as the model reads it: with the system prompt and the list of tools that the chat
template writes, which no turn of the conversation has.

It is decoded from the token ids that were measured, so it is what was rendered, whatever the template does.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from datapruner.errors import InputError
from datapruner.measuring.signal_cache import ProxyKey, SignalCache
from datapruner.runs.published import Run
from scorers.models import tokenizer_file
from scorers.models.sources import ModelSourceError, resolve


def tokenizer_of(model: str, home: Path) -> Tokenizer:
    """The tokenizer of a model that is on this machine. Raises InputError."""
    try:
        return tokenizer_file.read(resolve(model, home, local_only=True).path)
    except ModelSourceError as error:
        raise InputError(f"tokens cannot be shown as text: {error}") from error


def prompt_of(run: Run, sample_id: str, signals: Path, home: Path) -> str:
    """What stands before the first response token of a measured sample.

    `signals` is the folder that the run's signals are in, `home` the one with the models. Raises InputError
    when either is not on this machine.
    """
    tokens = SignalCache(signals, ProxyKey(**run.lineage["proxy"])).tokens(sample_id)
    if tokens is None:
        raise InputError("its signals are not on this machine")
    ids, first = tokens
    text: str = tokenizer_of(run.config.measuring.model, home).decode(ids[:first], skip_special_tokens=False)
    return text
