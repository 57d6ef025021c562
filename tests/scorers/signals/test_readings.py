"""Batches as a GPU starts them: by few operations, of which none waits for what those before come to."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scorers.signals import norms, plain_softmax
from scorers.signals.forward import ForwardPass
from scorers.signals.readings import chunks
from tests import proxies

WAITING = ("_local_scalar_dense", "nonzero", "equal", "unique_dim", "_unique2", "masked_select", "is_nonzero")
"""Operations whose result decides what the host does next."""


class Operations(TorchDispatchMode):
    """Counts the operations that torch is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "tiles_pay", lambda _device: True)
    monkeypatch.setattr(plain_softmax, "_ROWS", 10_000)


def started(run: ForwardPass, samples: list[proxies.Sample]) -> Counter[str]:
    """Operations from the start of a batch until its results could be waited for."""
    with Operations() as operations:
        results = run._batch(samples)
    assert len(results()) == len(samples)
    return operations.counts


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_batch_of_more_samples_takes_no_more_operations() -> None:
    run = ForwardPass(proxies.Proxy(proxies.build("llama-tied"), torch.device("cpu")))
    few, many = (started(run, proxies.samples([(6, 10)] * n)) for n in (14, 60))
    assert few == many


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("family", ["llama-tied", "gpt2", "gemma2-softcap", "qwen3"])
def test_nothing_waits_for_the_device_while_a_batch_is_started(family: str) -> None:
    run = ForwardPass(proxies.Proxy(proxies.build(family), torch.device("cpu")))
    run.chunk_rows = 32
    apart = proxies.samples([(4, 7), (9, 1), (3, 60)])
    for sample, first in zip(apart, (5, 6, 7), strict=True):
        sample.input_ids[0] = first  # nothing in common
    alike = proxies.samples([(12, 5), (12, 9)])
    alike[1].input_ids[:12] = alike[0].input_ids[:12]
    for samples, asked in ((apart, 2), (alike, 0)):
        found = started(run, samples)
        assert found.pop("is_nonzero", 0) <= asked, (
            "transformers asks for each kind of attention whether sequences are packed"
        )
        assert not {name: found[name] for name in WAITING if found[name]}


def test_chunks_hold_whole_samples_and_long_ones_alone() -> None:
    found = chunks([3, 3, 3, 10, 1], 6)
    assert found == [
        (range(2), slice(0, 6)),
        (range(2, 3), slice(6, 9)),
        (range(3, 4), slice(9, 15)),
        (range(3, 4), slice(15, 19)),
        (range(4, 5), slice(19, 20)),
    ]
