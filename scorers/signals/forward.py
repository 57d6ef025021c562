"""The one forward pass: tokenised samples in, every signal out, in batches that fit the device.

Notable choices:
- batches are runs of length-sorted samples under a budget of padded tokens; when memory runs out the
  budget is halved and the batch is cut in two, down to a single sample, which is then an error of its own;
- sequences are read to their end, although what follows the last response token predicts none: the mean over
  all positions takes it in;
- padding is on the right and no attention mask is passed: in a causal model no position looks to its right,
  so the fast causal kernels apply. `verify` checks that, and that the head was read right, on the model at
  hand before anything is measured;
- the backbone is called without its head, which then runs on response positions only;
- on a GPU the next batch is started before the results of the one before are looked at, so that the device
  does not wait for the host;
- the opening that a batch has in common (the system prompt, mostly) is computed once (`prefix`), unless the
  model's cache cannot do that, which `verify` finds out.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scorers.models.sources import ModelSourceError
from scorers.signals.head import Head, Projection
from scorers.signals.lora_effort import FreshAdapter, lora_effort
from scorers.signals.pooling import weighted_mean
from scorers.signals.prefix import PrefixStates, shared_length
from scorers.signals.readings import read
from scorers.signals.tied import tied_terms
from scorers.signals.transfer import fetch, onto

_FULL = (torch.float32, torch.float64)


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
    weighted_hidden: NDArray[np.float32]
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
        self.chunk_rows = max(16, _chunk_bytes(self.device) // (4 * self.head.weight.shape[0]))
        verify(self.model, self.head, self.device)
        self.prefix = PrefixStates(self.model) if shares_prefixes(self.model, self.device) else None

    def measure(self, samples: Sequence[TokenisedSample]) -> Iterator[tuple[int, Measured | MeasureError]]:
        """Yield (index, signals or error) for every sample, in the order in which batches finish."""
        lengths = [len(s.input_ids) for s in samples]
        order = sorted(range(len(samples)), key=lambda i: (lengths[i], i), reverse=True)
        pending = list(token_batches(order, lengths, self.token_budget))[::-1]
        running: tuple[list[int], Callable[[], list[Measured | MeasureError]]] | None = None
        while pending or running:
            started = None
            if pending:
                batch = pending.pop()
                try:
                    started = (batch, self._batch([samples[i] for i in batch]))
                except (RuntimeError, MemoryError, IndexError, ValueError) as error:
                    if "cuda error" in str(error).lower() and not out_of_memory(error):
                        raise  # the device's context is gone: only a new process helps
                    if len(batch) == 1:
                        yield batch[0], _explain(error, lengths[batch[0]])
                    else:
                        if out_of_memory(error):
                            self.token_budget = max(1, self.token_budget // 2)
                        middle = len(batch) // 2
                        pending += [batch[middle:], batch[:middle]]
                    _release(self.device)
            if self.device.type == "cpu":
                running, started = started, None
            if running:
                yield from zip(running[0], running[1](), strict=True)
            running = started

    def _batch(self, samples: Sequence[TokenisedSample]) -> Callable[[], list[Measured | MeasureError]]:
        """Start a batch; what is returned waits for its results."""
        order = sorted(range(len(samples)), key=lambda i: len(samples[i].position), reverse=True)
        ordered = [samples[i] for i in order]
        lengths = [len(s.position) for s in ordered]
        ends = [len(s.input_ids) for s in ordered]
        ids = np.zeros((len(ordered), max(ends)), dtype=np.int64)
        ids[np.arange(max(ends)) < np.asarray(ends)[:, None]] = np.concatenate([s.input_ids for s in ordered])
        input_ids = onto(ids, self.device)  # (B, L)
        targets = onto(
            np.concatenate([s.input_ids[s.position] for s in ordered]).astype(np.int64), self.device
        )
        sample_of = onto(np.repeat(np.arange(len(ordered)), lengths), self.device)
        predicts = onto(np.concatenate([s.position for s in ordered]).astype(np.int64) - 1, self.device)
        where = (sample_of, predicts)
        with torch.inference_mode():
            hidden, weighted = self._states(ordered, input_ids, where)  # (R, D), (B, D)
            found = read(self.head, self.projection, hidden, targets, lengths, self.chunk_rows)
        scalars = {"head_grad_norm": found.norm, "head_grad_dot": found.dot}
        batch = (input_ids, where, targets, lengths, self.chunk_rows)
        if self.adapter is not None:
            scalars["lora_effort"] = lora_effort(self.model, self.head, self.adapter, *batch)
        if self.tied:
            norm, dot = found.norm, found.dot
            if self.head.tied:
                norm2, more = tied_terms(self.model, self.head, *batch)
                norm, dot = (norm.square() + norm2).clamp_(min=0).sqrt_(), dot + more
            scalars |= {"tied_grad_norm": norm, "tied_grad_dot": dot}
        arrived = fetch([found.tokens, found.vectors, weighted, torch.stack(list(scalars.values()))])
        k = self.projection.vocabulary.shape[0] * self.projection.hidden.shape[0]

        def results() -> list[Measured | MeasureError]:
            tokens, pooled, over_all, values = (tensor.numpy() for tensor in arrived())
            by_name = dict(zip(scalars, values, strict=True))
            vectors = {
                "head_grad_projection": pooled[:, :k],
                "mean_hidden": pooled[:, k:],
                "weighted_hidden": over_all,
            }
            unpacked = _unpack(tokens, vectors, by_name, lengths)
            return [result for _, result in sorted(zip(order, unpacked, strict=True), key=itemgetter(0))]

        return results

    def _states(
        self, samples: Sequence[TokenisedSample], input_ids: Tensor, where: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Hidden states (R, D) at `where` = (sample, position), and the weighted means of all, (B, D)."""
        ends = [len(s.input_ids) for s in samples]
        limit = min(int(s.position[0]) for s in samples) - 1
        shared = 0 if self.prefix is None else shared_length([s.input_ids for s in samples], limit)
        if self.prefix is None or not shared:
            states = backbone(self.model, input_ids)
            return states[where], weighted_mean([states], ends)
        sample, position = where
        opening, states = self.prefix.states(input_ids, samples[0].input_ids[:shared])
        return states[sample, position - shared], weighted_mean([opening, states], ends)


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

    Rounding grows through the layers, not alike in batches of unlike shape: the head is held to the model's
    logits of the very same batch, at its worst; padding and mask by the root mean square of what they change.

    Raises ProxyMismatchError with the size of the difference.
    """
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    tokens = torch.randint(0, vocabulary, (1, 12), generator=generator).repeat(2, 1).to(device)
    tokens[1, 7:] = 0
    short = tokens[1:, :7]
    with torch.inference_mode():
        alone = model(input_ids=short, attention_mask=torch.ones_like(short)).logits[0].float()
        together = model(input_ids=tokens).logits[1, :7].float()
        states = backbone(model, tokens)[:, :7]
        rebuilt = head.logits(head.raw(states[1]))
    before, padded = states.float()
    scale, spread = alone.std().clamp(min=1e-6), padded.std().clamp(min=1e-6)
    found = {
        "logits rebuilt from its hidden states differ from its own": (rebuilt - together).abs().max() / scale,
        "what follows a token changes its hidden state": (padded - before).square().mean().sqrt() / spread,
        "padding changes its logits": (together - alone).square().mean().sqrt() / scale,
    }
    tolerance = _tolerance(head.weight.dtype)
    for what, difference in found.items():
        if not difference < tolerance:
            raise ProxyMismatchError(
                f"{type(model).__name__}: {what} by {float(difference):.3g} standard deviations (allowed in "
                f"{str(model.dtype).removeprefix('torch.')}: {tolerance:g}); it cannot serve as a proxy model"
                + ("" if model.dtype in _FULL else " in this precision, perhaps in float32")
            )


def shares_prefixes(model: Any, device: torch.device) -> bool:
    """Whether the model's states after a cached opening are those of a plain pass."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    tokens = torch.randint(0, vocabulary, (2, 12), generator=torch.Generator().manual_seed(1)).to(device)
    tokens[1, :5] = tokens[0, :5]
    with torch.inference_mode():
        expected = backbone(model, tokens)[:, 5:].float()
        prefix = PrefixStates(model)
        opening = tokens[0, :5].cpu().numpy()
        try:
            prefix.states(tokens, opening)
            found = prefix.states(tokens, opening)[1].float()  # what was kept must have stayed as it was
        except (AttributeError, TypeError, ValueError, NotImplementedError, RuntimeError):
            return False
    return bool((found - expected).abs().max() < _tolerance(model.dtype) * expected.std())


def _tolerance(dtype: torch.dtype) -> float:
    """Largest difference, in standard deviations, that rounding in `dtype` explains."""
    return 1e-3 if dtype in _FULL else 5e-2 if dtype == torch.float16 else 2e-1


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


def _chunk_bytes(device: torch.device) -> int:
    """Bytes of one fp32 block of logits: what stays in a CPU's reach, or a part of what a GPU has free."""
    if device.type != "cuda":
        return 48 * 2**20
    free, _ = torch.cuda.mem_get_info(device)
    return min(2**30, free // 16)


def _unpack(
    tokens: NDArray[np.float32],
    vectors: Mapping[str, NDArray[np.float32]],
    scalars: Mapping[str, NDArray[np.float64]],
    lengths: Sequence[int],
) -> list[Measured | MeasureError]:
    """Cut what was read into samples: tokens (4, R), vectors (n, ...) and scalars (n) by name."""
    finite = np.isfinite(tokens[:2]).all(0)
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    whole = np.logical_and.reduceat(finite, bounds[:-1]) & np.isfinite(scalars["head_grad_norm"])
    out: list[Measured | MeasureError] = []
    for i, (a, b) in enumerate(pairwise(bounds.tolist())):
        if not whole[i]:
            out.append(MeasureError("the proxy model's logits are not finite; use dtype float32 or bfloat16"))
            continue
        nll, entropy, el2n, top1 = tokens[:, a:b]
        out.append(
            Measured(
                nll=nll,
                entropy=entropy,
                el2n=el2n,
                top1=top1 > 0,
                head_grad_projection=vectors["head_grad_projection"][i],
                mean_hidden=vectors["mean_hidden"][i],
                weighted_hidden=vectors["weighted_hidden"][i],
                **{name: float(values[i]) for name, values in scalars.items()},
            )
        )
    return out
