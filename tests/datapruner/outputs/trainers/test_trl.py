"""Rows for TRL and transformers, fed to the real trainers: what is trained on is what was kept.

The corpus has rows of one and of several turns, a system prompt, text beyond ASCII, and a row that was cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
import transformers as tf
import trl

from datapruner.result import Result
from tests.pipeline import Prune

# By itself, TRL asks transformers for something by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")

SETTINGS = {
    "output_dir": "unused",
    "use_cpu": True,
    "bf16": False,
    "report_to": [],
    "save_strategy": "no",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
    "per_device_train_batch_size": 4,
}

LIMIT = 30
"""Tokens, past which some rows go on, and some have all that is trained on."""

Row = tuple[tuple[int, ...], tuple[int, ...]]


@pytest.fixture(scope="module")
def qtuned(prune: Prune) -> Result:
    """A run that keeps some samples whole and some in part, the multi-turn ones among them."""
    return prune("qtuning", 0.9, token_keep=0.4)


@pytest.fixture(scope="module")
def written(qtuned: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trl") / "rows.parquet"
    counts = qtuned.export_for("trl", path).counts
    assert counts.written == counts.rows == qtuned.report.kept
    assert counts.trained_tokens == qtuned.report.kept_tokens
    return path


@pytest.fixture(scope="module")
def cut(qtuned: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cut") / "rows.parquet"
    counts = qtuned.export_for("trl", path, max_length=LIMIT).counts
    assert min(counts.cut, counts.untrained) > 0
    assert counts.lost_tokens > 0
    return path


@pytest.fixture(scope="module")
def kept(qtuned: Result) -> list[Row]:
    """The ids and labels of each kept sample, from the subset and the masks."""
    masks = dict(qtuned.masks.select("row", "kept_tokens").iter_rows())
    assert {24, 25} <= set(masks), "the multi-turn samples should be among the kept"
    found = []
    for sample in qtuned.subset:
        ids = tuple(sample["input_ids"])
        chosen = set(masks[sample["row"]])
        found.append((ids, tuple(i if at in chosen else -100 for at, i in enumerate(ids))))
    return found


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Any:
    return tf.AutoTokenizer.from_pretrained(tiny_folder)


@pytest.fixture
def model(tiny_folder: Path) -> Any:
    return tf.AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)


def rows_at(path: Path) -> datasets.Dataset:
    """The rows as the printed configuration loads them."""
    return datasets.load_dataset(
        "parquet", data_files=str(path), split="train", cache_dir=path.parent / "cache"
    )


def fed(batches: Iterable[dict[str, torch.Tensor]]) -> Iterator[Row]:
    """The rows in what a model is fed: one a line and padded, or several in a line with positions from 0."""
    for batch in batches:
        for line, ids in enumerate(batch["input_ids"]):
            labels = batch["labels"][line]
            if "position_ids" in batch:
                starts = [*torch.flatten((batch["position_ids"][line] == 0).nonzero()).tolist(), len(ids)]
            else:
                starts = [0, int(batch["attention_mask"][line].sum())]
            for start, stop in pairwise(starts):
                yield tuple(ids[start:stop].tolist()), tuple(labels[start:stop].tolist())


def with_trl(model: Any, tokenizer: Any, path: Path, **settings: Any) -> trl.SFTTrainer:
    config = trl.SFTConfig(**SETTINGS | settings)
    return trl.SFTTrainer(model, args=config, train_dataset=rows_at(path), processing_class=tokenizer)


def test_the_columns_are_those_that_the_trainers_read_and_the_sample(written: Path) -> None:
    names = pq.read_schema(written).names
    assert names == ["sample_id", "input_ids", "attention_mask", "labels"]


@pytest.mark.parametrize(
    "settings",
    [
        {"max_length": 192},
        {"max_length": None, "padding_free": True},
        {"max_length": 192, "packing": True},
    ],
    ids=["padded", "padding-free", "packed"],
)
def test_trl_trains_on_the_kept_tokens_row_by_row(
    written: Path, kept: list[Row], model: Any, tokenizer: Any, settings: dict[str, Any]
) -> None:
    trainer = with_trl(model, tokenizer, written, **settings)
    assert Counter(fed(trainer.get_train_dataloader())) == Counter(kept)


@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
def test_rows_cut_at_export_are_fed_as_trl_would_have_cut_them(
    written: Path, cut: Path, kept: list[Row], model: Any, tokenizer: Any, packing: bool
) -> None:
    expected = Counter((ids[:LIMIT], labels[:LIMIT]) for ids, labels in kept if set(labels[:LIMIT]) != {-100})
    assert 0 < expected.total() < len(kept)
    ours = with_trl(model, tokenizer, cut, max_length=LIMIT, packing=packing)
    assert Counter(fed(ours.get_train_dataloader())) == expected
    theirs = with_trl(model, tokenizer, written, max_length=LIMIT)
    assert Counter(fed(theirs.get_train_dataloader())) == expected


def trained_with_trl(model: Any, tokenizer: Any, path: Path, steps: dict[str, Any]) -> Any:
    trainer = with_trl(model, tokenizer, path, max_length=192, **steps)
    trainer.train()
    return trainer


def trained_with_transformers(model: Any, tokenizer: Any, path: Path, steps: dict[str, Any]) -> Any:
    trainer = tf.Trainer(
        model,
        tf.TrainingArguments(**SETTINGS | steps),
        train_dataset=rows_at(path),
        data_collator=tf.DataCollatorForSeq2Seq(tokenizer),
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("train", [trained_with_trl, trained_with_transformers])
def test_the_loss_of_a_step_over_all_rows_is_that_of_the_kept_tokens_as_they_were_measured(
    written: Path, qtuned: Result, model: Any, tokenizer: Any, train: Callable[..., Any]
) -> None:
    steps = {"max_steps": 1, "logging_steps": 1, "gradient_accumulation_steps": 100}
    [logged, *_] = train(model, tokenizer, written, steps).state.log_history
    nll = qtuned.token_scores.filter(qtuned.token_scores["keep"])["nll"]
    assert len(nll) == qtuned.report.kept_tokens
    assert logged["loss"] == pytest.approx(nll.cast(float).mean(), rel=1e-4)


def test_transformers_trains_on_the_kept_tokens_row_by_row(
    written: Path, kept: list[Row], model: Any, tokenizer: Any
) -> None:
    trainer = tf.Trainer(
        model,
        tf.TrainingArguments(**SETTINGS),
        train_dataset=rows_at(written),
        data_collator=tf.DataCollatorForSeq2Seq(tokenizer),
    )
    assert Counter(fed(trainer.get_train_dataloader())) == Counter(kept)


@pytest.mark.parametrize("name", ["trl", "transformers"])
def test_the_configuration_for_weighted_rows_trains_with_their_weights(
    name: str, weighted: Result, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = weighted.export_for(name, tmp_path / "rows.parquet", max_length=60)
    assert written.counts.weighted
    assert "token_weight" in pq.read_schema(tmp_path / "rows.parquet").names
    settings = SETTINGS | {"max_steps": 1, "logging_steps": 1, "gradient_accumulation_steps": 100}
    configuration = written.configuration.replace('"trained"', "**settings")
    logged: list[dict[str, float]] = []
    monkeypatch.setattr(tf.Trainer, "log", lambda _, logs, *__: logged.append(logs))
    exec(configuration, {"__name__": "configured", "settings": settings})
    tokens = weighted.token_scores.filter(pl.col("keep") & (pl.col("position") < 60))
    assert len(tokens) == written.counts.trained_tokens
    expected = (tokens["token_weight"].cast(float) * tokens["nll"].cast(float)).mean()
    assert logged[0]["loss"] == pytest.approx(expected, rel=1e-3)
    assert logged[0]["loss"] < 0.9 * float(str(tokens["nll"].cast(float).mean()))
