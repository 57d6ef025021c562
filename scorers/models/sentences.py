"""Texts to sentence embeddings: a transformer encoder, its pooling, unit length.

Notable choices: float32 everywhere, since an encoder is small and embeddings are compared closely; texts are
batched by length, and a batch's padding is masked out, so a text's company changes its vector by rounding
only; no code from the model folder, ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModel, AutoTokenizer

from scorers.models import products
from scorers.models.encoders import Pooling
from scorers.models.sources import ModelSourceError

_BATCH_TOKENS = 4096


class SentenceEncoder:
    """A loaded encoder. Texts longer than `max_length` tokens are cut at the end.

    `max_length` None: as many as the model has positions for. Raises ModelSourceError when it cannot load.
    """

    def __init__(
        self, folder: Path, *, pooling: Pooling, max_length: int | None = None, device: str = "cpu"
    ) -> None:
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            self._tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            self._model, report = AutoModel.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ModelSourceError(f"transformers cannot load the encoder in {folder}: {error}") from error
        # The pooler, an extra layer on the first token, goes unused; without it models are published.
        if missing := sorted(name for name in report["missing_keys"] if not name.startswith("pooler.")):
            raise ModelSourceError(
                f"the weights in {folder} lack {len(missing)} of the encoder's parameters: {missing[0]}, …",
                remedy="fetch the model again",
            )
        self._model.requires_grad_(False).eval().to(device)
        products.speed_up(self._model)
        self._pooling = pooling
        self._device = torch.device(device)
        limits = (max_length, getattr(config, "max_position_embeddings", None))
        self.max_length: int | None = min((each for each in limits if each is not None), default=None)
        self.width = int(config.hidden_size)

    def encode(self, texts: Sequence[str]) -> Iterator[tuple[int, NDArray[np.float32], int]]:
        """(index, unit vector (width,), tokens) of each text, in an order of our own."""
        if not texts:
            return
        cut = {} if self.max_length is None else {"truncation": True, "max_length": self.max_length}
        ids: list[list[int]] = self._tokenizer(list(texts), **cut)["input_ids"]
        order = sorted(range(len(ids)), key=lambda at: (len(ids[at]), at))
        while order:
            size = 1
            while size < len(order) and (size + 1) * len(ids[order[size]]) <= _BATCH_TOKENS:
                size += 1
            batch, order = order[:size], order[size:]
            vectors = self._embed([ids[at] for at in batch])
            for at, vector in zip(batch, vectors, strict=True):
                yield at, vector, len(ids[at])

    @torch.inference_mode()
    def _embed(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Unit vectors (B, width)."""
        rows = [torch.tensor(each, dtype=torch.long) for each in ids]
        tokens = pad_sequence(rows, batch_first=True).to(self._device)
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(self._device)
        hidden = self._model(input_ids=tokens, attention_mask=mask).last_hidden_state  # (B, L, width)
        if self._pooling == "cls":
            pooled = hidden[:, 0]
        else:
            weights = mask[..., None].to(hidden.dtype)
            pooled = (hidden * weights).sum(1) / weights.sum(1)
        vectors: NDArray[np.float32] = F.normalize(pooled, dim=1).cpu().numpy()
        return vectors
