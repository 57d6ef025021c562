"""What the tokens of rows surprise a model by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from datapruner.tuning.batches import batches
from datapruner.tuning.examples import Examples, Ints
from datapruner.tuning.loss import nll
from datapruner.tuning.training import Trainee
from scorers.signals.transfer import fetch

_AHEAD = 4  # passes a device is given before the first is looked at


def read(trainee: Trainee, examples: Examples) -> NDArray[np.float64]:
    """The nats of the counted tokens of each row, summed, (N,)."""
    found = np.zeros(len(examples))
    waiting: list[tuple[Ints, Callable[[], list[torch.Tensor]]]] = []
    rows = np.arange(len(examples))

    def collect() -> None:
        row_of, arrived = waiting.pop(0)
        np.add.at(found, row_of, arrived()[0].numpy().astype(np.float64))

    with torch.inference_mode():
        for batch in batches(examples, rows, trainee.sizes, trainee.device):
            hidden, head = trainee.states(batch)
            waiting.append((batch.row_of, fetch([nll(head, hidden, batch.targets)])))
            if len(waiting) > _AHEAD:
                collect()
        while waiting:
            collect()
    return found
