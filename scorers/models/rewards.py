"""Where a reward model comes from: a local folder or a Hub name -> a local folder, and what its scores are.

As `scorers.models.sources` for proxy models, with which it shares the fetching, hashing and checking; runs in
the parent process, so it never imports torch or transformers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from scorers.models import sources
from scorers.models.sources import ALIASES, ModelSourceError

_HEAD = "ForSequenceClassification"


@dataclass(frozen=True, slots=True)
class RewardFolder:
    """A reward model ready to load. `revision` and `template_hash` (hex) key cached rewards.

    labels: names of its outputs. classes: whether these are the logits of classes that exclude one another,
    so that one says something beside the others only.
    """

    path: Path
    revision: str
    template_hash: str
    labels: tuple[str, ...]
    classes: bool

    def index(self, label: str) -> int:
        """Which output is meant, by its name; "" is the only one. Raises ModelSourceError."""
        if label in self.labels:
            return self.labels.index(label)
        if not label and len(self.labels) == 1:
            return 0
        what = f"no label {label!r}" if label else f"{len(self.labels)} labels"
        raise ModelSourceError(
            f"the reward model in {self.path} has {what}",
            remedy=f"set the option label of method reward to one of: {', '.join(self.labels)}",
        )


def resolve(name: str, home: Path) -> RewardFolder:
    """Find the reward model called `name`, a folder or `org/name[@revision]` on the Hub, fetching it when
    needed.

    Raises ModelSourceError, also for one that has no head for sequence classification.
    """
    if name.endswith(".gguf"):
        raise ModelSourceError(
            f"{name}: a GGUF file holds a language model without the head that makes rewards",
            remedy="name the folder or Hub name of the model's safetensors",
        )
    if name in ALIASES:
        raise ModelSourceError(f"{name} is a language model and gives no rewards", remedy=_REMEDY)
    found = sources.resolve(name, home)
    config = json.loads((found.path / "config.json").read_text(encoding="utf-8"))
    architectures = config.get("architectures") or []
    if not any(str(each).endswith(_HEAD) for each in architectures):
        kind = ", ".join(map(str, architectures)) or "of no stated kind"
        raise ModelSourceError(f"{name} is no reward model but {kind}", remedy=_REMEDY)
    count = config.get("num_labels", len(config.get("id2label") or ()) or 2)
    names = config.get("id2label") or {at: f"LABEL_{at}" for at in range(count)}
    labels = tuple(str(names[key]) for key in sorted(names, key=int))
    return RewardFolder(
        path=found.path,
        revision=found.revision,
        template_hash=found.template_hash,
        labels=labels,
        classes=len(labels) > 1
        and config.get("problem_type") not in ("regression", "multi_label_classification"),
    )


_REMEDY = f"it has to be a model whose config.json names an architecture that ends in {_HEAD}"
