"""The one forward pass: tokenised samples in, every signal out, in batches that fit the device.

Notable choices:
- batches are runs of length-sorted samples under a budget of padded tokens; when memory runs out the
  budget is halved and the batch is cut in two, down to a single sample, which is then an error of its own;
- sequences end at the last position that predicts a response token: what follows has no effect on it;
- padding is on the right and no attention mask is passed: in a causal model no position looks to its right,
  so the fast causal kernels apply. `verify` checks that, and that the head was read right, on the model at
  hand before anything is measured;
- the backbone is called without its head, which then runs on response positions only;
- the opening that a batch has in common (the system prompt, mostly) is computed once (`prefix`), unless the
  model's cache cannot do that, which `verify` finds out.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from scorers.models.sources import ModelSourceError
from scorers.signals.head import Head, HeadSignals, Projection, head_signals
from scorers.signals.lora_effort import FreshAdapter, lora_effort
from scorers.signals.prefix import PrefixStates, shared_length
from scorers.signals.tied import tied_terms


class TokenisedSample(Protocol):
    """What the pass needs of a rendered sample: its tokens, and where the response tokens stand."""

    @property
    def input_ids(self) -> NDArray[np.int32]: ...

    @property
    def position(self) -> NDArray[np.int32]: ...


class LoadedProxy(Protocol):
    """What the pass needs of a loaded proxy model."""

    @property
    def model(self) -> Any: ...

    @property
    def device(self) -> torch.device: ...


class ProxyMismatchError(ModelSourceError):
    """The model does something between hidden states and logits that we do not know of."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Signals of one sample. Token arrays are (T,) float32, scalars Python floats (means over T)."""

    nll: NDArray[np.float32]
    entropy: NDArray[np.float32]
    el2n: NDArray[np.float32]
    top1: NDArray[np.bool_]
    head_grad_norm: float
    head_grad_dot: float
    head_grad_projection: NDArray[np.float32]
    mean_hidden: NDArray[np.float32]
    tied_grad_norm: float | None = None
    tied_grad_dot: float | None = None
    lora_effort: float | None = None


@dataclass(frozen=True, slots=True)
class MeasureError:
    """Why a sample could not be measured, and what to do about it.

    `permanent`: it would fail the same way on any machine.
    """

    reason: str
    permanent: bool = True


class ForwardPass:
    """Measures samples with one loaded proxy model.

    `token_budget`: padded tokens of a batch (default 1,024 on a CPU, 65,536 on a GPU).
    `tied`: also measure the exact gradient of a tied head, which takes a backward pass. `lora`: also measure
    LoRA effort, which takes one through the last block.
    Raises ProxyMismatchError when the model's logits are not what `Head` makes of its hidden states, or when
    it has no layer to take LoRA effort from.
    """

    def __init__(
        self,
        proxy: LoadedProxy,
        *,
        token_budget: int | None = None,
        tied: bool = False,
        lora: bool = False,
    ) -> None:
        self.model = proxy.model
        self.device = proxy.device
        self.head = Head.of(proxy.model)
        self.head_norm = self.head.norm()
        self.projection = Projection.build(self.head)
        self.tied = tied
        try:
            self.adapter = FreshAdapter.of(self.model) if lora else None
        except ValueError as error:
            raise ProxyMismatchError(str(error)) from error
        on_cpu = self.device.type == "cpu"
        self.token_budget = token_budget or (1024 if on_cpu else 65536)
        chunk_bytes = (48 if on_cpu else 1024) * 2**20
        self.chunk_rows = max(16, chunk_bytes // (4 * self.head.weight.shape[0]))
        verify(self.model, self.head, self.device)
        self.prefix = PrefixStates(self.model) if shares_prefixes(self.model, self.device) else None

    def measure(self, samples: Sequence[TokenisedSample]) -> Iterator[tuple[int, Measured | MeasureError]]:
        """Yield (index, signals or error) for every sample, in the order in which batches finish."""
        lengths = [int(s.position[-1]) for s in samples]
        order = sorted(range(len(samples)), key=lambda i: (lengths[i], i), reverse=True)
        pending = list(token_batches(order, lengths, self.token_budget))[::-1]
        while pending:
            batch = pending.pop()
            try:
                results: list[Measured | MeasureError] = self._batch([samples[i] for i in batch])
            except (RuntimeError, MemoryError, IndexError, ValueError) as error:
                if "cuda error" in str(error).lower() and not out_of_memory(error):
                    raise  # the device's context is gone: only a new process helps
                if len(batch) == 1:
                    results = [_explain(error, lengths[batch[0]])]
                else:
                    if out_of_memory(error):
                        self.token_budget = max(1, self.token_budget // 2)
                    middle = len(batch) // 2
                    pending += [batch[middle:], batch[:middle]]
                    _release(self.device)
                    continue
            yield from zip(batch, results, strict=True)

    def _batch(self, samples: Sequence[TokenisedSample]) -> list[Measured | MeasureError]:
        rows = [torch.from_numpy(s.input_ids[: int(s.position[-1])].astype(np.int64)) for s in samples]
        input_ids = pad_sequence(rows, batch_first=True).to(self.device)  # (B, L)
        targets = torch.from_numpy(
            np.concatenate([s.input_ids[s.position] for s in samples]).astype(np.int64)
        ).to(self.device)  # (R,)
        batch_index = np.repeat(np.arange(len(samples)), [len(s.position) for s in samples])
        predicts = np.concatenate([s.position for s in samples]).astype(np.int64) - 1
        where = (torch.from_numpy(batch_index).to(self.device), torch.from_numpy(predicts).to(self.device))
        lengths = [len(s.position) for s in samples]
        with torch.inference_mode():
            hidden = self._states(samples, input_ids, where)  # (R, D)
            found = head_signals(self.head, self.projection, hidden, targets, lengths, self.chunk_rows)
        batch = (input_ids, where, targets, lengths, self.chunk_rows)
        effort = None if self.adapter is None else lora_effort(self.model, self.head, self.adapter, *batch)
        if not self.tied:
            return _unpack(found, lengths, None, effort)
        if not self.head.tied:
            return _unpack(found, lengths, (found.grad_norm, found.grad_dot), effort)
        norm2, dot = tied_terms(self.model, self.head, *batch)
        norm = (found.grad_norm.square() + norm2).clamp_(min=0).sqrt_()
        return _unpack(found, lengths, (norm, found.grad_dot + dot), effort)

    def _states(
        self, samples: Sequence[TokenisedSample], input_ids: Tensor, where: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Hidden states (R, D) at `where` = (sample, position)."""
        limit = min(int(s.position[0]) for s in samples) - 1
        shared = 0 if self.prefix is None else shared_length([s.input_ids for s in samples], limit)
        if self.prefix is None or not shared:
            return backbone(self.model, input_ids)[where]
        sample, position = where
        return self.prefix.states(input_ids, shared)[sample, position - shared]


def token_batches(order: Sequence[int], lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Cut a longest-first order into batches of at most `budget` padded tokens, at least one sample each."""
    batch: list[int] = []
    for i in order:
        if batch and lengths[batch[0]] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def backbone(model: Any, input_ids: Tensor | None = None, **kwargs: Any) -> Tensor:
    """Final-norm hidden states (B, L, D) of a right-padded batch."""
    states: Tensor = model.base_model(input_ids=input_ids, use_cache=False, **kwargs).last_hidden_state
    return states


def verify(model: Any, head: Head, device: torch.device) -> None:
    """Check on a few random tokens that `head` over the backbone, right-padded and unmasked, is the model.

    Raises ProxyMismatchError with the size of the difference.
    """
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    tokens = torch.randint(0, vocabulary, (2, 12), generator=generator).to(device)
    short = tokens[1:, :7]
    with torch.inference_mode():
        expected = model(input_ids=short, attention_mask=torch.ones_like(short)).logits[0].float()
        padded = tokens.clone()
        padded[1, 7:] = 0
        found = head.logits(head.raw(backbone(model, padded)[1, :7]))
    tolerance = _tolerance(head.weight.dtype)
    difference = float((found - expected).abs().max() / expected.std().clamp(min=1e-6))
    if not difference < tolerance:
        raise ProxyMismatchError(
            f"{type(model).__name__}: logits rebuilt from its hidden states differ from its own by "
            f"{difference:.3g} standard deviations (allowed {tolerance:g}); this architecture cannot "
            "serve as a proxy model"
        )


def shares_prefixes(model: Any, device: torch.device) -> bool:
    """Whether the model's states after a cached opening are those of a plain pass."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    tokens = torch.randint(0, vocabulary, (2, 12), generator=torch.Generator().manual_seed(1)).to(device)
    tokens[1, :5] = tokens[0, :5]
    with torch.inference_mode():
        expected = backbone(model, tokens)[:, 5:].float()
        try:
            found = PrefixStates(model).states(tokens, 5).float()
        except (AttributeError, TypeError, ValueError, NotImplementedError, RuntimeError):
            return False
    return bool((found - expected).abs().max() < _tolerance(model.dtype) * expected.std())


def _tolerance(dtype: torch.dtype) -> float:
    """Largest difference, in standard deviations, that rounding in `dtype` explains."""
    return {torch.float32: 1e-3, torch.float64: 1e-3, torch.float16: 5e-2}.get(dtype, 2e-1)


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on any device."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text


def _explain(error: BaseException, length: int) -> MeasureError:
    if out_of_memory(error):
        reason = f"out of memory on this sample alone ({length} tokens); lower max_length"
        return MeasureError(reason, permanent=False)
    return MeasureError(f"the proxy model failed on this sample: {type(error).__name__}: {error}")


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _unpack(
    found: HeadSignals, lengths: Sequence[int], tied: tuple[Tensor, Tensor] | None, effort: Tensor | None
) -> list[Measured | MeasureError]:
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    nll, entropy, el2n, top1 = (t.numpy() for t in (found.nll, found.entropy, found.el2n, found.top1))
    out: list[Measured | MeasureError] = []
    for i, (a, b) in enumerate(pairwise(bounds)):
        norm, dot = float(found.grad_norm[i]), float(found.grad_dot[i])
        if not (np.isfinite(nll[a:b]).all() and np.isfinite(entropy[a:b]).all() and np.isfinite(norm)):
            out.append(MeasureError("the proxy model's logits are not finite; use dtype float32 or bfloat16"))
            continue
        out.append(
            Measured(
                nll=nll[a:b],
                entropy=entropy[a:b],
                el2n=el2n[a:b],
                top1=top1[a:b],
                head_grad_norm=norm,
                head_grad_dot=dot,
                head_grad_projection=found.projection[i].numpy(),
                mean_hidden=found.mean_hidden[i].numpy(),
                tied_grad_norm=None if tied is None else float(tied[0][i]),
                tied_grad_dot=None if tied is None else float(tied[1][i]),
                lora_effort=None if effort is None else float(effort[i]),
            )
        )
    return out
