"""NeMo Automodel but for its processes on GPUs: the loader of its recipe, from the printed configuration."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise

import yaml
from feeding import Row, hand_back, job
from nemo_automodel.components.datasets.loader import (
    DataloaderConfig,
    ThdPackingConfig,
    make_collate_fn,
    make_dataset_config,
)


def fed(batch: dict[str, object]) -> Iterator[Row]:
    """Labels are of the tokens that follow."""
    for line, (ids, labels) in enumerate(
        zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True)
    ):
        lengths = (
            [each for each in batch["seq_lens"][line].tolist() if each > 0]
            if "seq_lens" in batch
            else [int(batch["attention_mask"][line].sum())]
        )
        for start, stop in pairwise(accumulate(lengths, initial=0)):
            assert labels[stop - 1] == -100
            yield ids[start:stop], [-100, *labels[start : stop - 1]]
        assert set(labels[sum(lengths) :]) <= {-100}


if __name__ == "__main__":
    given = job()
    configuration = yaml.safe_load(given["configuration"])
    dataset = configuration["dataset"]
    loader = DataloaderConfig(
        dataset_config=make_dataset_config(dataset.pop("_target_"), dataset),
        packing=ThdPackingConfig(packed_sequence_size=given["limit"]) if given["packing"] else None,
        collate_fn=make_collate_fn(configuration["dataloader"]["collate_fn"]),
        batch_size=1 if given["packing"] else 4,
    ).build(dp_rank=0, dp_world_size=1, tokenizer=None)
    hand_back(
        given, (row for batch in loader for row in fed(batch)), "nemo-automodel", "transformers", "datasets"
    )
