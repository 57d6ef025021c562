"""What the parent tells a worker process: the specification before the first task, and samples in tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from scorers.conversations.conversation import TURN_FIELDS, Conversation, Turn


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """How to load the proxy model in `folder` and measure with it.

    `revision` is of the model's files: two models never have the same specification.
    `max_length` in tokens (None: the model's own limit); `overflow` "truncate" or "error"; `train_on` "all"
    or "last" assistant turns; `token_budget` of a batch and `threads` None for the defaults. `context`:
    what stands before the answers, as for `ChatRenderer`. `template`: a chat template to use instead of the
    model's own; "" is ours for models without one. `tied` and `lora`: signals that cost a backward pass.
    `renderers`: processes that render samples ahead of the device, 0 for it to be done in its own.
    """

    folder: str
    revision: str
    dtype: str
    max_length: int | None
    overflow: str
    train_on: str
    tied: bool
    device: str
    token_budget: int | None
    threads: int | None
    context: str = "full"
    template: str | None = None
    lora: bool = False
    renderers: int = 0


def spec_line(spec: WorkerSpec) -> str:
    """The line of the protocol that says which model to load."""
    return json.dumps(asdict(spec)) + "\n"


def wire(sample_id: str, conversation: Conversation) -> dict[str, Any]:
    """A conversation as a task's sample."""
    turns = [[getattr(turn, name) for name in TURN_FIELDS] for turn in conversation.turns]
    return {"id": sample_id, "turns": turns, "tools": conversation.tools}


def unwire(sample: Mapping[str, Any]) -> Conversation:
    """The conversation of a task's sample."""
    return Conversation(tuple(Turn(*turn) for turn in sample["turns"]), sample["tools"])
