"""What all signals cost on a device, against the backbone alone over the same batches.

    python -m benchmarks.device [--device cuda] [--dtype bfloat16] [--rows 4096] [--large 1024]

The bare backbone is the model without its head on the same length-sorted, right-padded batches, hidden
states thrown away: what every signal stands on. `--large` measures as many rows with a random model in the
shape of a 1.5B one: the products of backbone and head a second, against those of one large product.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers as tf
from torch.nn.utils.rnn import pad_sequence

from benchmarks.figures import figure
from benchmarks.forward import encode, measure
from benchmarks.processes import in_turns
from benchmarks.rows import rows_of
from datapruner.home import home_folder
from scorers.conversations.chat import Encoded
from scorers.models.proxy import DTYPES, Proxy, load
from scorers.models.sources import resolve
from scorers.signals.forward import ForwardPass, backbone, token_batches

LARGE = {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151_936,
    "tie_word_embeddings": True,
}
"""Of Qwen2.5-1.5B."""
SMALL = {name: min(value, 64) if name != "num_attention_heads" else 4 for name, value in LARGE.items()}


def in_large_shape(proxy: Proxy, shape: dict[str, int]) -> Proxy:
    """A random Qwen2 of this shape, and the tokenizer of `proxy`."""
    vocabulary = max(shape["vocab_size"], len(proxy.tokenizer))
    config = tf.Qwen2Config(**(shape | {"vocab_size": vocabulary}), max_position_embeddings=4096)
    with torch.device(proxy.device):
        before = torch.get_default_dtype()
        torch.set_default_dtype(proxy.dtype)
        try:
            model = tf.AutoModelForCausalLM.from_config(config)
        finally:
            torch.set_default_dtype(before)
    return Proxy(model.eval().requires_grad_(False), proxy.tokenizer, proxy.device, proxy.dtype, 4096)


def bare(proxy: Proxy, samples: Sequence[Encoded], budget: int) -> None:
    """The backbone's hidden states of all samples."""
    lengths = [len(s.input_ids) for s in samples]
    for batch in token_batches(sorted(range(len(samples)), key=lambda i: -lengths[i]), lengths, budget):
        rows = [torch.from_numpy(samples[i].input_ids.astype(np.int64)) for i in batch]
        with torch.inference_mode():
            backbone(proxy.model, pad_sequence(rows, batch_first=True).to(proxy.device))


def waiting_for(device: torch.device) -> Callable[[], None]:
    """What waits until the device has nothing left to do."""
    return partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None


def products_per_second(proxy: Proxy, size: int) -> float:
    """Multiplications a second of one large product in the model's precision."""
    a = torch.randn(size, size, device=proxy.device, dtype=proxy.dtype)
    took = in_turns({"product": lambda: a @ a}, 5, waiting_for(proxy.device))
    return size**3 / took["product"].wall


def busy(device: torch.device, work: Callable[[], None]) -> tuple[float, float]:
    """Seconds that a GPU runs kernels or copies during some work, and seconds that it took."""
    started = time.perf_counter()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        waiting_for(device)()
        took = time.perf_counter() - started
    return sum(float(each.self_device_time_total) for each in profile.key_averages()) / 1e6, took


def compare(
    proxy: Proxy, samples: Sequence[Encoded], budgets: Sequence[int], repeats: int, name: str
) -> float:
    """Seconds of all signals at the best budget; the ratio at each is printed."""
    tokens, response = sum(len(s.input_ids) for s in samples), sum(len(s.position) for s in samples)
    print(
        f"{name}: {len(samples):,} rows, {tokens:,} tokens, {response:,} of them response tokens", flush=True
    )
    warm, found = samples[:: max(1, len(samples) // 64)], []
    for budget in budgets:
        run = ForwardPass(proxy, token_budget=budget)
        variants = {"signals": partial(measure, run), "bare": partial(bare, proxy, budget=budget)}
        for work in variants.values():
            work(samples=warm)
        took = in_turns(
            {key: partial(work, samples=samples) for key, work in variants.items()},
            repeats,
            waiting_for(proxy.device),
        )
        ours, backbone_alone = took["signals"].wall, took["bare"].wall
        found.append(ours)
        figure(
            f"{name}: all signals, batches of {budget:,} tokens",
            tokens / ours,
            against="the bare backbone",
            baseline=tokens / backbone_alone,
            unit="tokens/s",
            at_least=1 / 1.1,
        )
        if proxy.device.type == "cuda":
            at_work, took_all = busy(proxy.device, partial(measure, run, samples))
            figure(
                f"{name}: device at work", at_work, against="all the time", baseline=took_all, at_least=0.8
            )
        if run.token_budget != budget:
            print(f"    memory ran out: the budget is {run.token_budget:,} now")
    return min(found)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=None, help="rows to read (default: Alpaca-like ones)")
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--device", default=None)
    parser.add_argument("--dtype", default=None, choices=tuple(DTYPES))
    parser.add_argument("--budgets", type=int, nargs="+", default=(16384, 65536))
    parser.add_argument("--large", type=int, default=0, help="rows of the model in the shape of a 1.5B one")
    parser.add_argument("--small", action="store_true", help="a small model in its place, to try the script")
    given = parser.parse_args(argv)
    proxy = load(resolve(given.model, home_folder()).path, device=given.device, dtype=given.dtype)
    samples = encode(proxy, rows_of(given.data, given.rows))
    compare(proxy, samples, given.budgets, given.repeats, f"{given.model}, {given.dtype or proxy.dtype}")
    if not given.large:
        return
    large = in_large_shape(proxy, SMALL if given.small else LARGE)
    some = samples[:: max(1, len(samples) // given.large)][: given.large]
    seconds = compare(large, some, given.budgets[:1], 1, "1.5B-shaped")
    embedded = large.model.get_input_embeddings().weight.numel()
    parameters = sum(p.numel() for p in large.model.parameters()) - embedded
    products = parameters * sum(len(s.input_ids) for s in some) + embedded * sum(
        len(s.position) for s in some
    )
    figure(
        "1.5B-shaped: products of backbone and head",
        products / seconds / 1e12,
        against="one large product",
        baseline=products_per_second(proxy, 256 if given.small else 8192) / 1e12,
        unit="T/s",
        at_least=0.4,
    )


if __name__ == "__main__":
    main()
