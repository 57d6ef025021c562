"""Random reward models of a few thousand parameters, saved as those from the Hub are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as tf

from tests.tiny_encoder import save_tiny_encoder
from tests.tiny_model import save_tiny_model

_SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def save_tiny_reward(folder: Path, kind: str = "llama", **changes: Any) -> Path:
    """A model with one output, unless `changes` of its configuration say otherwise.

    llama, gpt2 and qwen3 are decoders, with the tiny model's tokens and template; bert and roberta encoders,
    with the tiny encoder's and no template.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if kind in ("bert", "roberta"):
        save_tiny_encoder(folder)
        (folder / "1_Pooling" / "config.json").unlink()
        given = {"pad_token_id": 0, "max_position_embeddings": 32}
    else:
        save_tiny_model(folder)
        given = {"pad_token_id": 2, "max_position_embeddings": 4096}
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    given |= {"vocab_size": len(tokenizer), "num_labels": 1, **_SMALL}
    given |= {} if kind == "gpt2" else {"intermediate_size": 64}
    torch.manual_seed(11)
    config = tf.AutoConfig.for_model(kind, **(given | changes))
    model = tf.AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    return folder
