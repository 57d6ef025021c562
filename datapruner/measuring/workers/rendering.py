"""What a measuring process renders samples with. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from datapruner.measuring.workers.spec import WorkerSpec, unwire
from scorers.conversations.chat import ChatRenderer, Encoded, RenderError

Row = dict[str, Any]
"""A row of a shard."""


def renderer_of(spec: WorkerSpec, tokenizer: Any, positions: int | None) -> ChatRenderer:
    """What renders samples as a specification says, with the model's tokenizer, and cuts them at its limit of
    `positions`. Raises ModelSourceError."""
    if spec.template is not None:
        tokenizer.chat_template = spec.template or None
    limits = [n for n in (spec.max_length, positions) if n is not None]
    return ChatRenderer(
        tokenizer,
        train_on=spec.train_on,  # type: ignore[arg-type]
        max_length=min(limits, default=None),
        overflow=spec.overflow,  # type: ignore[arg-type]
        context=spec.context,  # type: ignore[arg-type]
    )


def rendered(
    renderer: ChatRenderer, samples: Sequence[Mapping[str, Any]]
) -> tuple[list[tuple[str, Encoded]], dict[str, Row]]:
    """The samples of a task by their ids, and the rows of those that cannot be rendered."""
    found = renderer.render([unwire(sample) for sample in samples])
    return parted([(sample["id"], text) for sample, text in zip(samples, found, strict=True)])


def parted(
    samples: Iterable[tuple[str, Encoded | RenderError]],
) -> tuple[list[tuple[str, Encoded]], dict[str, Row]]:
    """Rendered samples by their ids, and the rows of those that could not be."""
    encoded: list[tuple[str, Encoded]] = []
    refused: dict[str, Row] = {}
    for sample_id, text in samples:
        if isinstance(text, RenderError):
            refused[sample_id] = {"sample_id": sample_id, "error": text.reason}
        else:
            encoded.append((sample_id, text))
    return encoded, refused
