"""The model that will be trained on a subset: what its folder says of how it can be.

Notable choice: neither of these is a fault, for a base model is trained with our template as it was measured
with it, and a folder's configuration may be of a part of a model. So they are warned of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datapruner.errors import ModelError
from scorers.models import template
from scorers.models.sources import ModelSourceError, resolve

_CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""How transformers' classes of models that write text are called; the last also those that see images."""


def configuration(folder: Path) -> Mapping[str, Any]:
    """What `config.json` says, nothing where that is no object. Raises ModelError."""
    path = folder / "config.json"
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read: {error}", remedy="get the model again") from error
    return said if isinstance(said, dict) else {}


def warnings(model: str, home: Path) -> list[str]:
    """What is to be known before a model is trained on conversations. `model` is as
    `scorers.models.sources.resolve` takes it. Raises ModelError."""
    try:
        folder = resolve(model, home, weights=False).path
    except ModelSourceError as error:
        raise ModelError(str(error)) from error
    found = []
    if template.in_folder(folder)[1] == "fallback":
        found.append(
            f"{model} has no chat template: rows are rendered for it with ### Instruction: and "
            "### Response:, in which form it is to be prompted"
        )
    said = configuration(folder)
    classes = said.get("architectures")
    names = [each for each in classes if isinstance(each, str)] if isinstance(classes, list) else []
    is_other = bool(names) and not any(each.endswith(_CAUSAL) for each in names)
    if is_other or said.get("is_encoder_decoder") is True:
        what = f" ({', '.join(names)[:200]})" if names else ""
        found.append(
            f"{model} is no causal language model by its configuration{what}: trainers of such models "
            "cannot train it on these rows"
        )
    return found
