"""One model, trained anew for every arm and seed.

AdamW with a warm-up over the first tenth of the steps and a linear way down to nothing, gradients cut at
a norm of 1, no weight decay, no dropout. A step's gradient is the mean over its trained tokens, whichever
passes they are in. Where tokens have weights, each one's loss is multiplied by its own and the sum divided by
the number of tokens, not by the sum of the weights, as in the papers that weight tokens.

Notable choices:
- LoRA is peft's, on all linear layers but the head; the same seed gives the same initial adapter;
- on a CPU the same arguments give the same bytes, with the same number of threads.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from transformers.utils import logging

from datapruner.errors import ModelError
from datapruner.tuning.batches import Batch, Sizes, batches, steps
from datapruner.tuning.examples import Examples, Ints
from datapruner.tuning.loss import summed_nll
from scorers.models import products
from scorers.models.proxy import load
from scorers.models.sources import ModelSourceError
from scorers.signals.forward import backbone, verify
from scorers.signals.head import Head

RANK = 16
RATES = {"lora": (5e-4, 1.5e-3, 4e-3), "full": (1e-5, 3e-5, 1e-4)}
"""Learning rates that are tried."""
_WARM_UP, _LARGEST_NORM = 0.1, 1.0


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training took. padded: tokens passed through the model, padding included."""

    rows: int
    trained_tokens: int
    steps: int
    padded: int


class Trainee:
    """The model that is trained, on one device. full: all its weights, instead of an adapter (LoRA).

    Raises ModelError when the model cannot be used.
    """

    def __init__(self, folder: Path, device: str, *, full: bool, token_budget: int | None = None) -> None:
        logging.disable_progress_bar()
        try:
            # Weights that are trained are kept in full precision, and an adapter's always are.
            proxy = load(folder, device=device, dtype="float32" if full else None)
            self.model = proxy.model
            verify(self.model, Head.of(self.model), proxy.device)
        except ModelSourceError as error:
            raise ModelError(str(error)) from error
        self.tokenizer, self.device, self.full = proxy.tokenizer, proxy.device, full
        self.sizes = Sizes.on(self.device, token_budget)
        if full:
            self.model.requires_grad_(True)
            self._before = copy.deepcopy(self.model.state_dict())
        else:
            self._adapted = _adapted(self.model)
            if self.device.type == "cpu":
                products.speed_up_frozen(self.model)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """Those that are trained."""
        return [each for each in self.model.parameters() if each.requires_grad]

    def begin(self, seed: int) -> None:
        """Be as never trained, with the adapter of this seed."""
        if self.full:
            self.model.load_state_dict(self._before)
            return
        torch.manual_seed(seed)
        for module in self._adapted.modules():
            if hasattr(module, "reset_lora_parameters"):
                module.reset_lora_parameters("default", True)

    def train(
        self,
        examples: Examples,
        *,
        seed: int,
        rate: float,
        number: int,
        tell: Callable[[int], None] = lambda _: None,
    ) -> Trained:
        """Train once on each of the rows, in at most `number` steps. The order is drawn by the seed.

        tell: is told of the trained tokens of each step.
        """
        order = np.random.default_rng([seed, len(examples)]).permutation(len(examples))
        cut = steps(examples.counted, order, number)
        padded, counted = 0, examples.counted
        with self.training(seed, rate, len(cut)) as step:
            for rows in cut:
                padded += step(examples, rows)
                tell(int(counted[rows].sum()))
        return Trained(len(examples), int(counted.sum()), len(cut), padded)

    @contextmanager
    def training(self, seed: int, rate: float, number: int) -> Iterator[Callable[[Examples, Ints], int]]:
        """A training of `number` steps that begins as the seed says. What it gives does a step with some rows
        of some examples, and says how many tokens went through the model."""
        self.begin(seed)
        optimiser = torch.optim.AdamW(
            self.parameters, lr=rate, weight_decay=0.0, fused=self.device.type == "cuda"
        )
        done = 0

        def step(examples: Examples, rows: Ints) -> int:
            nonlocal done
            for group in optimiser.param_groups:
                group["lr"] = rate * _share(done, number)
            done += 1
            return self._step(examples, rows, optimiser)

        self.model.train()
        try:
            yield step
        finally:
            self.model.eval()

    def save(self, folder: Path) -> None:
        """Write the trained model, as `merged`, and its tokenizer."""
        self.merged().save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def merged(self) -> Any:
        """The trained model, an adapter made one with the weights; it is not trained any more then."""
        return self.model if self.full else self._adapted.merge_and_unload()

    def _step(self, examples: Examples, rows: Ints, optimiser: torch.optim.Optimizer) -> int:
        total = int(examples.counted[rows].sum())
        padded = 0
        for batch in batches(examples, rows, self.sizes, self.device):
            (self.loss(batch) / total).backward()  # type: ignore[no-untyped-call]
            padded += batch.size
        torch.nn.utils.clip_grad_norm_(self.parameters, _LARGEST_NORM)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return padded

    def loss(self, batch: Batch) -> torch.Tensor:
        """The nats of the tokens of a batch that count, each times its weight where there are any, summed."""
        hidden, head = self.states(batch)
        return summed_nll(head, hidden, batch.targets, batch.weights)

    def states(self, batch: Batch) -> tuple[torch.Tensor, Head]:
        """The hidden states that predict the tokens of a batch that count, (R, D), and the head that reads
        them, in one precision."""
        head = Head.of(self.model)
        if self.full:
            head = replace(head, weight=self.model.get_output_embeddings().weight)
        if self.device.type == "cpu":
            return backbone(self.model, batch.input_ids)[batch.where], head
        with torch.autocast(self.device.type, torch.bfloat16):
            hidden = backbone(self.model, batch.input_ids)[batch.where]
        return hidden.to(torch.bfloat16), replace(head, weight=head.weight.to(torch.bfloat16))


def _share(step: int, number: int) -> float:
    """The share of the learning rate at a step, from 0: up to all of it, then down to nearly nothing."""
    rising = max(1, round(number * _WARM_UP))
    if step < rising:
        return (step + 1) / rising
    return (number - step) / (number - rising)


def _adapted(model: Any) -> Any:
    """The model with an adapter, which is put into the model itself."""
    config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, target_modules="all-linear")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers to peft
        return peft.get_peft_model(model, config)
