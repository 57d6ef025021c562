"""What the cache of signals has of a sample, beyond the tables of a run: el2n by token, and the prompt as the
model reads it, with the system prompt and the list of tools that the chat template writes, which no turn of
the conversation has.

The prompt is decoded from the token ids that were measured, so it is what was rendered, whatever the template
does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from datapruner.errors import InputError
from datapruner.measuring.signal_cache import ProxyKey, SignalCache
from datapruner.runs.published import Run
from scorers.models import tokenizer_file
from scorers.models.sources import ModelSourceError, resolve


@dataclass(frozen=True, slots=True)
class Reading:
    """prompt: token ids before the first response token. el2n: of each response token; None where no model
    has read the sample."""

    prompt: list[int]
    el2n: list[float] | None


def tokenizer_of(model: str, home: Path) -> Tokenizer:
    """The tokenizer of a model that is on this machine. Raises InputError."""
    try:
        return tokenizer_file.read(resolve(model, home, local_only=True).path)
    except ModelSourceError as error:
        raise InputError(f"tokens cannot be shown as text: {error}") from error


def reading_of(run: Run, sample_id: str, signals: Path) -> Reading:
    """What was read of a measured sample; `signals` is the folder that the run's signals are in.

    Raises InputError when they are not on this machine.
    """
    found = SignalCache(signals, ProxyKey(**run.lineage["proxy"])).sample(sample_id)
    if found is None:
        raise InputError("its signals are not on this machine")
    return Reading(found["input_ids"][: found["position"][0]], found.get("el2n"))


def prompt_of(run: Run, reading: Reading, home: Path) -> str:
    """What stands before the first response token, as text; `home` has the models.

    Raises InputError when the run's is not on this machine.
    """
    tokenizer = tokenizer_of(run.config.measuring.model, home)
    text: str = tokenizer.decode(reading.prompt, skip_special_tokens=False)
    return text
