"""Small random causal language models of several architectures, and random samples for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers as tf

VOCABULARY, WIDTH = 211, 32

torch.set_num_threads(1)  # matrices this small only lose by sharing

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}

CONFIGS: dict[str, Any] = {
    "llama-tied": lambda: tf.LlamaConfig(**_COMMON, tie_word_embeddings=True),
    "llama-untied": lambda: tf.LlamaConfig(**_COMMON, tie_word_embeddings=False),
    "gpt2": lambda: tf.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=WIDTH,
        n_layer=2,
        n_head=4,
        n_positions=256,
        bos_token_id=0,
        eos_token_id=1,
    ),
    "gemma2-softcap": lambda: tf.Gemma2Config(**_COMMON, head_dim=8, final_logit_softcapping=3.0),
    "qwen2": lambda: tf.Qwen2Config(**_COMMON, tie_word_embeddings=True),
    "qwen3": lambda: tf.Qwen3Config(**_COMMON, head_dim=8, tie_word_embeddings=False),
    "phi-head-bias": lambda: tf.PhiConfig(**{**_COMMON, "num_key_value_heads": 4}, tie_word_embeddings=False),
    "cohere-logit-scale": lambda: tf.CohereConfig(**_COMMON, logit_scale=0.25, tie_word_embeddings=True),
    "granite-logits-scaling": lambda: tf.GraniteConfig(
        **_COMMON, logits_scaling=4.0, embedding_multiplier=6.0
    ),
}
TIED = ("llama-tied", "gpt2", "gemma2-softcap", "qwen2", "cohere-logit-scale")


@dataclass
class Proxy:
    """The part of a loaded proxy model that the forward pass reads."""

    model: Any
    device: torch.device


@dataclass
class Sample:
    """A tokenised sample: ids (L,) and the positions of its response tokens (T,)."""

    input_ids: np.ndarray
    position: np.ndarray


def build(family: str, dtype: torch.dtype = torch.float32) -> Any:
    """A random model whose weights are large enough for distributions that are far from uniform."""
    torch.manual_seed(7)
    model = tf.AutoModelForCausalLM.from_config(CONFIGS[family]())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.3)
    return model.to(dtype).eval().requires_grad_(False)


def samples(lengths: list[tuple[int, int]], seed: int = 0) -> list[Sample]:
    """One sample for each (prompt tokens, response tokens)."""
    rng = np.random.default_rng(seed)
    out = []
    for prompt, response in lengths:
        ids = rng.integers(3, VOCABULARY, prompt + response).astype(np.int32)
        out.append(Sample(ids, np.arange(prompt, prompt + response, dtype=np.int32)))
    return out


def multi_turn(seed: int = 1) -> Sample:
    """Three assistant turns with gaps, repeated tokens, the padding token, a trailing prompt token."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(3, 40, 50).astype(np.int32)
    ids[[8, 20, 35]] = 2  # the padding token, which is the end-of-turn token of many models
    return Sample(ids, np.r_[5:12, 20:21, 30:49].astype(np.int32))


VARIED = [(1, 1), (9, 1), (4, 7), (30, 12), (3, 60), (17, 17), (2, 90), (40, 33)]
