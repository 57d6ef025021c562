"""Load a proxy model and its tokenizer from a local folder.

Notable choices: safetensors only and no code from the model folder, ever; float32 on a CPU, where bfloat16
is several times slower without hardware for it, and bfloat16 on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from scorers.models import products
from scorers.models import tokenizer as tokenizers
from scorers.models.sources import ModelSourceError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A model in evaluation mode, without gradients, on one device.

    `max_positions` is the longest sequence its configuration allows, None when it states none.
    """

    model: Any
    tokenizer: Any
    device: torch.device
    dtype: torch.dtype
    max_positions: int | None


def load(folder: Path, *, device: str | None = None, dtype: str | None = None) -> Proxy:
    """Load the model in `folder`; `device` defaults to the GPU if there is one, `dtype` to what suits it.

    Raises ModelSourceError when the folder, the device or the dtype cannot be used.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ModelSourceError(f"device {device} asked for, but torch sees no GPU", remedy="use device cpu")
    dtype = dtype or ("bfloat16" if place.type == "cuda" else "float32")
    if dtype not in DTYPES:
        raise ModelSourceError(f"dtype {dtype!r} is not known", remedy=f"one of: {', '.join(DTYPES)}")
    config, tokenizer = tokenizers.load(folder)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=DTYPES[dtype],
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelSourceError(f"transformers cannot load the model in {folder}: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise ModelSourceError(  # transformers fills them with random numbers
            f"the weights in {folder} lack {len(missing)} of the model's parameters, such as {missing[0]}",
            remedy="fetch the model again",
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelSourceError(
            f"the tokenizer in {folder} has {len(tokenizer)} tokens but the model embeds {rows}",
            remedy="use the tokenizer that came with the model",
        )
    model.requires_grad_(False).eval().to(place)
    products.speed_up(model)
    return Proxy(model, tokenizer, place, DTYPES[dtype], tokenizers.max_positions(config))
