"""Whether a proxy model is one that ASAP's score was made for: a reasoning model, and not a small one.

ASAP's authors score with a reasoning model of 7 billion parameters. To a small model that was never trained
on reasoning a step's first token is surprising where hesitation begins ("Wait"), and expected where
derivation goes on, so that hesitation stays and derivation goes (`benchmarks/README.md` has by how much).

Notable choice: a model is taken for a reasoning model where its chat template or its tokenizer knows
`<think>`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from math import prod
from pathlib import Path

from scorers.models import template
from scorers.models.sources import ProxyFolder

REASONING_PROXY = "Qwen/Qwen3-4B-Thinking-2507"
"""A reasoning model on the Hub whose chat template keeps the reasoning of the last turn."""
FEWEST_PARAMETERS = 10**9
_MARK = "<think>"


def unfit(method: str, proxy: ProxyFolder) -> Iterator[str]:
    """A warning where steps scored by their first tokens by this model had better not be relied on."""
    reasons = [] if knows_reasoning(proxy.path) else ["is no reasoning model"]
    count = parameters(proxy.path)
    if count < FEWEST_PARAMETERS:
        reasons.append(f"has {count / 1e6:,.0f} million parameters")
    if reasons:
        yield (
            f"{method}: the proxy model {' and '.join(reasons)}: by first tokens, such models keep "
            "hesitation and remove derivation, and were no better than random steps. Use a reasoning model, "
            f"such as {REASONING_PROXY}, or the score later-tokens, and compare with random-steps"
        )


def knows_reasoning(folder: Path) -> bool:
    """Whether the chat template or the tokenizer has the mark that reasoning begins with."""
    if _MARK in template.in_folder(folder)[0]:
        return True
    tokenizer = folder / "tokenizer.json"
    return tokenizer.is_file() and f'"{_MARK}"'.encode() in tokenizer.read_bytes()


def parameters(folder: Path) -> int:
    """How many numbers the model's weights are, by the heads of their files."""
    return sum(map(_in_file, folder.glob("*.safetensors")))


def _in_file(path: Path) -> int:
    with path.open("rb") as file:
        [size] = struct.unpack("<Q", file.read(8))
        head = json.loads(file.read(size))
    return sum(prod(about["shape"]) for name, about in head.items() if name != "__metadata__")
