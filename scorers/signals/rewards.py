"""Conversations to rewards: a model with a head for sequence classification, batched by length.

Notable choices:
- a conversation is read whole, as the reward model's own chat template writes it; by one without a template
  as the pair of what came before the last response, and that response, as such models are trained;
- one that is longer than the model reads is not cut, for the reward of half a response is that of another: it
  has none, and the reason;
- decoders take their reward at the last token that is not the padding token of their configuration, alone as
  in a batch; where that names none, at the last token, so that a batch is padded with a token that it does
  not hold;
- no code from the model's folder, ever, and safetensors only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSequenceClassification

from scorers.conversations.chat import ChatRenderer, RenderError
from scorers.conversations.conversation import Conversation
from scorers.models import products
from scorers.models import tokenizer as tokenizers
from scorers.models.proxy import DTYPES
from scorers.models.sources import ModelSourceError
from scorers.signals.forward import MeasureError, out_of_memory, token_batches

_CPU_TOKENS, _GPU_TOKENS = 4096, 32768
_NO_LIMIT = 10**9  # tokenizers that know no longest text say a larger number


@dataclass(frozen=True, slots=True)
class Read:
    """A conversation as the model reads it: ids (L,), and segments (L,) for models that tell the parts of a
    pair apart."""

    ids: Sequence[int]
    segments: Sequence[int] | None = None


class RewardModel:
    """A loaded reward model. Raises ModelSourceError when it cannot be used."""

    def __init__(
        self, folder: Path, *, device: str = "cpu", dtype: str = "float32", token_budget: int | None = None
    ) -> None:
        config, self._tokenizer = tokenizers.load(folder)
        try:
            self.model, report = AutoModelForSequenceClassification.from_pretrained(
                folder,
                config=config,
                dtype=DTYPES[dtype],
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ModelSourceError(
                f"transformers cannot load the reward model in {folder}: {error}"
            ) from error
        if missing := sorted(report["missing_keys"]):
            raise ModelSourceError(  # transformers fills them with random numbers
                f"the weights in {folder} lack {len(missing)} of the reward model's parameters, such as "
                f"{missing[0]}",
                remedy="fetch the model again",
            )
        self.model.requires_grad_(False).eval().to(device)
        products.speed_up(self.model)
        self._device = torch.device(device)
        self._budget = token_budget or (_CPU_TOKENS if self._device.type == "cpu" else _GPU_TOKENS)
        self._text_config = self.model.config.get_text_config()
        self._padding: int | None = self._text_config.pad_token_id
        has_template = self._tokenizer.chat_template is not None
        self._renderer = ChatRenderer(self._tokenizer) if has_template else None
        self.longest = self._longest(config)

    def _longest(self, config: Any) -> int | None:
        """Tokens that the model reads at most."""
        limits = [tokenizers.max_positions(config)]
        if self._tokenizer.model_max_length < _NO_LIMIT:
            limits.append(self._tokenizer.model_max_length)
        for name, module in self.model.named_modules():
            if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
                limits.append(module.num_embeddings - module.padding_idx - 1)  # RoBERTa counts from there
        return min((each for each in limits if each is not None), default=None)

    def read(self, conversations: Sequence[Conversation]) -> list[Read | RenderError]:
        """The conversations as tokens, in order; of one that cannot be read whole the reason."""
        if self._renderer is not None:
            rendered = self._renderer.render(conversations)
            found = [
                each if isinstance(each, RenderError) else Read(each.input_ids.tolist()) for each in rendered
            ]
        else:
            found = [self._pair(each) for each in conversations]
        return [self._whole(each) for each in found]

    def _whole(self, found: Read | RenderError) -> Read | RenderError:
        if isinstance(found, Read) and self.longest is not None and len(found.ids) > self.longest:
            return RenderError(
                f"{len(found.ids)} tokens, more than the {self.longest} that the reward model reads; "
                "drop it, or name another model"
            )
        return found

    def _pair(self, conversation: Conversation) -> Read | RenderError:
        turns = conversation.turns
        last = max((at for at, turn in enumerate(turns) if turn.role == "assistant"), default=-1)
        if last < 0:
            return RenderError("there is no response to reward")
        texts = ("\n\n".join(turn.content for turn in turns[:last]), turns[last].content)
        try:
            for text in texts:
                text.encode()
        except UnicodeEncodeError as error:
            return RenderError(f"text is not valid Unicode: {error}; repair or drop the row")
        encoded = self._tokenizer(*texts, verbose=False)
        return Read(encoded["input_ids"], encoded.get("token_type_ids"))

    def score(self, samples: Sequence[Read]) -> Iterator[tuple[int, NDArray[np.float32] | MeasureError]]:
        """(index, outputs (labels,) or why there are none) of each sample, in an order of our own."""
        lengths = [len(each.ids) for each in samples]
        order = sorted(range(len(samples)), key=lambda at: (lengths[at], at), reverse=True)
        pending = list(token_batches(order, lengths, self._budget))[::-1]
        while pending:
            batch = pending.pop()
            try:
                outputs = self._outputs([samples[at] for at in batch])
            except (RuntimeError, MemoryError, IndexError, ValueError) as error:
                if len(batch) == 1:
                    yield batch[0], _explained(error, lengths[batch[0]])
                    continue
                if out_of_memory(error):
                    self._budget = max(1, self._budget // 2)
                    if self._device.type == "cuda":
                        torch.cuda.empty_cache()
                middle = len(batch) // 2
                pending += [batch[middle:], batch[:middle]]
                continue
            for at, output in zip(batch, outputs, strict=True):
                finite = bool(np.isfinite(output).all())
                yield at, output if finite else MeasureError("the reward is not finite; use dtype float32")

    @torch.inference_mode()
    def _outputs(self, samples: Sequence[Read]) -> NDArray[np.float32]:
        """The model's outputs (B, labels)."""
        padding = self._padding
        if padding is None:
            held = {each for sample in samples for each in sample.ids}
            padding = next(at for at in range(len(held) + 1) if at not in held)
            self._text_config.pad_token_id = padding
        given = {
            "input_ids": self._padded([each.ids for each in samples], padding),
            "attention_mask": self._padded([[1] * len(each.ids) for each in samples], 0),
        }
        segments = [each.segments for each in samples if each.segments is not None]
        if segments:
            given["token_type_ids"] = self._padded(segments, 0)
        outputs: NDArray[np.float32] = self.model(**given).logits.float().cpu().numpy()
        return outputs

    def _padded(self, rows: Sequence[Sequence[int]], value: int) -> Tensor:
        tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
        return pad_sequence(tensors, batch_first=True, padding_value=value).to(self._device)


def _explained(error: BaseException, length: int) -> MeasureError:
    if out_of_memory(error):
        return MeasureError(f"out of memory on this sample alone ({length} tokens)", permanent=False)
    return MeasureError(f"the reward model failed on this sample: {type(error).__name__}: {error}")
