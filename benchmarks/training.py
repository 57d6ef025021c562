"""Training for an evaluation against a plain loop: trained tokens a processor second, on the same rows.

python -m benchmarks.training [--data rows.parquet] [--rows 32] [--repeats 2] [--model smollm2-135m]

The plain loop is what a trainer does without being told more: batches in random order, padded to their
longest row, logits of every position, the same adapter by the same package. Both train on the same tokens in
as many steps, and are timed in turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.figures import figure
from benchmarks.rows import EXAMPLES, read_rows
from datapruner.corpora.corpus import Corpus
from datapruner.corpora.store import ingest_to
from datapruner.evaluation.rows import tokenised
from datapruner.home import made_home
from datapruner.measuring.measure import Machine, proxy_for
from datapruner.progress import Silent
from datapruner.request.config import Measuring
from datapruner.training import UNTRAINED
from datapruner.tuning.examples import Examples
from datapruner.tuning.training import Trainee
from scorers.models import products

ROWS_A_STEP, RATE = 8, 1e-3


def plain_loop(trainee: Trainee, examples: Examples) -> None:
    """Train as a plain loop does, on the model as its library made it."""
    _as(trainee, products.FrozenLinear, torch.nn.Linear)
    try:
        trainee.begin(0)
        trainee.model.train()
        optimiser = torch.optim.AdamW(trainee.parameters, lr=RATE, weight_decay=0.0)
        order = np.random.default_rng(0).permutation(len(examples))
        for start in range(0, len(order), ROWS_A_STEP):
            rows = [examples.row(row) for row in order[start : start + ROWS_A_STEP].tolist()]
            ids = torch.zeros(len(rows), max(len(tokens) for tokens, _ in rows), dtype=torch.long)
            mask, labels = torch.zeros_like(ids), torch.full_like(ids, UNTRAINED)
            for line, (tokens, where) in enumerate(rows):
                ids[line, : len(tokens)] = torch.from_numpy(tokens.astype(np.int64))
                mask[line, : len(tokens)] = 1
                labels[line, where] = ids[line, where]
            trainee.model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(trainee.parameters, 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
    finally:
        trainee.model.eval()
        _as(trainee, torch.nn.Linear, products.FrozenLinear)


def _as(trainee: Trainee, now: type[torch.nn.Module], then: type[torch.nn.Module]) -> None:
    """Make the layers that are not trained of another class."""
    for module in trainee.model.modules():
        if type(module) is now and not module.weight.requires_grad:
            module.__class__ = then


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=EXAMPLES)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--model", default="smollm2-135m")
    given = parser.parse_args(argv)
    home = made_home(None)
    wanted = proxy_for(Measuring(model=given.model), home, ("cpu",))
    with Corpus(ingest_to(read_rows(given.data, given.rows), {}, home, Silent())) as corpus:
        samples = tokenised(corpus, wanted, home, Machine(("cpu",)), Silent())
    examples = samples.examples(samples.index["sample_id"].to_list())
    trainee = Trainee(wanted.proxy.path, "cpu", full=False)
    number = -(-len(examples) // ROWS_A_STEP)
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: trainee.train(examples, seed=0, rate=RATE, number=number),
        "plain": lambda: plain_loop(trainee, examples),
    }
    took = dict.fromkeys(ways, np.inf)
    for _ in range(given.repeats):
        for name, run in ways.items():
            before = time.process_time()
            run()
            took[name] = min(took[name], time.process_time() - before)
    trained = int(examples.counted.sum())
    figure(
        "training with LoRA",
        trained / took["ours"],
        against="a plain padded loop",
        baseline=trained / took["plain"],
        unit="trained tokens a processor s",
    )


if __name__ == "__main__":
    main()
