"""What all signals of the one pass cost, against plain passes over the same rows in the same run.

    python -m benchmarks.forward [--data rows.jsonl|.parquet] [--rows 256] [--device cpu]

Baselines: transformers' own `model(**batch)` with its cross-entropy, length-sorted, at the best of several
batch sizes; the same one row at a time; and for DONOD the step itself (copy the head, backward, step,
norms) per sample.
Every figure is the median of `--repeats` rounds in which the variants take turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers as tf

from benchmarks.figures import figure
from benchmarks.processes import in_turns
from benchmarks.rows import EXAMPLES, read_rows
from datapruner.home import home_folder
from datapruner.input.shapes import RowParser, Sample
from scorers.conversations.chat import ChatRenderer, Encoded
from scorers.conversations.conversation import Conversation, Turn
from scorers.methods.donod import don_nod
from scorers.models.proxy import Proxy, load
from scorers.models.sources import resolve
from scorers.signals.forward import ForwardPass, Measured, backbone, token_batches
from scorers.signals.head import residuals
from scorers.signals.norms import of_sample


def encode(proxy: Proxy, rows: list[dict[str, object]]) -> list[Encoded]:
    """Render the rows; those without a response are left out."""
    parsed = [RowParser().parse(row) for row in rows]
    conversations = [
        Conversation(tuple(Turn(*turn) for turn in sample.turns), sample.tools)
        for sample in parsed
        if isinstance(sample, Sample)
    ]
    rendered = ChatRenderer(proxy.tokenizer, max_length=proxy.max_positions).render(conversations)
    return [r for r in rendered if isinstance(r, Encoded)]


def plain(proxy: Proxy, samples: Sequence[Encoded], budget: int) -> None:
    """`model(**batch).loss` over length-sorted, right-padded batches of at most `budget` tokens."""
    lengths = [len(s.input_ids) for s in samples]
    order = sorted(range(len(samples)), key=lambda i: -lengths[i])
    for batch in token_batches(order, lengths, budget):
        shape = (len(batch), lengths[batch[0]])
        ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, -100)
        for row, i in enumerate(batch):
            tokens = torch.from_numpy(samples[i].input_ids.astype(np.int64))
            where = torch.from_numpy(samples[i].position.astype(np.int64))
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
            labels[row, where] = tokens[where]
        on = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        with torch.inference_mode():
            proxy.model(**{name: tensor.to(proxy.device) for name, tensor in on.items()}).loss.item()


def measure(run: ForwardPass, samples: Sequence[Encoded]) -> None:
    """All signals of all samples."""
    for _, result in run.measure(samples):
        assert isinstance(result, Measured), result


def donod_variants(
    run: ForwardPass, samples: Sequence[Encoded], rate: float = 2e-5
) -> dict[str, Callable[[], None]]:
    """DON and NOD of some samples, from their hidden states: by the step, and by the closed form.

    The closed form is what it adds to the token signals, which have the softmax anyway: ||G|| from the
    residuals, <W, G> from nll and entropy.
    """
    head = run.head
    prepared = []
    for sample in samples:
        ids = torch.from_numpy(sample.input_ids.astype(np.int64)).to(run.device)
        where = torch.from_numpy(sample.position.astype(np.int64)).to(run.device)
        with torch.no_grad():
            hidden = backbone(run.model, ids[None])[0, where - 1].float()
            prepared.append((hidden, ids[where], residuals(head, hidden.to(head.weight.dtype), ids[where])))

    def step() -> None:
        for hidden, targets, _ in prepared:
            weight = head.weight.float().clone().requires_grad_(True)
            before = weight.detach().clone()
            torch.nn.functional.cross_entropy(hidden @ weight.T, targets).backward()  # type: ignore[no-untyped-call]
            torch.optim.SGD([weight], lr=rate).step()
            after = weight.detach()
            ((before.norm() - after.norm()).item(), (before - after).norm().item())

    def closed() -> None:
        for hidden, targets, found in prepared:
            norm = of_sample(found.g, hidden).sqrt()[None].cpu().numpy() / len(targets)
            dot = found.dot.double().mean().cpu().numpy()[None]
            don_nod(norm, dot, np.array([run.head_norm]), rate)

    return {"DONOD by the step": step, "DONOD by the closed form": closed}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=EXAMPLES)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--device", default=None)
    parser.add_argument("--dtype", default=None)
    parser.add_argument("--budgets", type=int, nargs="+", default=None, help="token budgets to try")
    arguments = parser.parse_args(argv)

    folder = resolve(arguments.model, home_folder()).path
    proxy = load(folder, device=arguments.device, dtype=arguments.dtype)
    untouched = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=proxy.dtype).eval().to(proxy.device)
    others = replace(proxy, model=untouched)
    samples = encode(proxy, read_rows(arguments.data, arguments.rows))
    tokens = sum(len(s.input_ids) for s in samples)
    response = sum(len(s.position) for s in samples)
    print(
        f"{len(samples)} rows of {arguments.data.name}, {tokens} tokens, {response} of them response tokens"
    )
    print(f"{proxy.device}, {proxy.dtype}, {torch.get_num_threads()} threads, torch {torch.__version__}")

    run = ForwardPass(proxy)
    on_cpu = proxy.device.type == "cpu"
    budgets = arguments.budgets or ([512, 1024, 2048] if on_cpu else [8192, 32768, 131072])
    warm = samples[:: max(1, len(samples) // 16)]
    measure(run, warm)

    def wait() -> None:
        if proxy.device.type == "cuda":
            torch.cuda.synchronize(proxy.device)

    tried = in_turns({str(b): partial(plain, others, samples, b) for b in budgets}, 1, wait)
    best = int(min(tried, key=lambda name: tried[name].wall))
    took = in_turns(
        {
            "plain, one row at a time": lambda: plain(others, samples, 1),
            f"plain, batches of {best} tokens": lambda: plain(others, samples, best),
            "all signals": lambda: measure(run, samples),
        },
        arguments.repeats,
        wait,
    )
    one, batched, ours = (each.wall for each in took.values())
    print(f"\n{'':38}{'tokens/s':>10}{'seconds':>10}{'time against batches':>22}")
    for name, each in took.items():
        print(f"{name:38}{tokens / each.wall:10.0f}{each.wall:10.2f}{each.wall / batched:22.2f}")
    figure("all signals", ours, against=f"plain batches of {best} tokens", baseline=batched, at_most=0.6)
    figure("all signals", ours, against="plain, one row at a time", baseline=one)

    few = samples[:: max(1, len(samples) // 12)][:12]
    steps = in_turns(donod_variants(run, few), arguments.repeats, wait)
    by_step, closed = (each.wall for each in steps.values())
    figure(
        f"DONOD of {len(few)} samples, closed form", closed, against="the SGD step itself", baseline=by_step
    )


if __name__ == "__main__":
    main()
