"""Pruning inside the training loop: real trainers over small random models, against a plain loop."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers as tf
import trl
from tokenizers import Tokenizer, models
from torch.nn import functional as F

from datapruner.training import MicroBatch, QTuningMixin, StepPruning
from scorers.method import Selection
from scorers.methods.qtuning import QTuning
from scorers.signals.columns import Signals
from tests import proxies

END = 1
PRUNING = StepPruning(keep=0.5, token_keep=0.5)
Row = dict[str, list[int]]

ARGUMENTS: dict[str, Any] = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 3,
    "max_steps": 2,
    "learning_rate": 1e-2,
    "use_cpu": True,
    "report_to": [],
    "save_strategy": "no",
    "logging_steps": 1,
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}
"""Of every trainer here."""


class Remembering(QTuningMixin):
    """A trainer that remembers what was handed on, and the gradient of each step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.handed_on: list[tuple[list[dict[str, Any]], int]] = []
        self.gradients: list[dict[str, torch.Tensor]] = []

    def get_batch_samples(self, *args: Any) -> tuple[list[Any], Any]:
        batches, count = super().get_batch_samples(*args)
        self.handed_on.append(([dict(batch) for batch in batches], int(count)))
        return batches, count

    def _clip_grad_norm(self, model: Any) -> Any:
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters()})
        return super()._clip_grad_norm(model)


class PruningTrainer(Remembering, tf.Trainer):  # type: ignore[misc]
    pass


class PruningSFTTrainer(Remembering, trl.SFTTrainer):  # type: ignore[misc]
    pass


def rows(count: int = 24, seed: int = 3) -> list[Row]:
    """Rows of many lengths, of which a prompt is not trained; they end with the token that ends a text."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        prompt, response = int(draw.integers(1, 6)), int(draw.integers(2, 14))
        ids = [*draw.integers(3, proxies.VOCABULARY, prompt + response - 1).tolist(), END]
        made.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    return made


def padded(examples: list[Row]) -> dict[str, torch.Tensor]:
    width = max(len(each["input_ids"]) for each in examples)

    def column(name: str, fill: int) -> torch.Tensor:
        return torch.tensor([each[name] + [fill] * (width - len(each[name])) for each in examples])

    mask = [[1] * len(each["input_ids"]) + [0] * (width - len(each["input_ids"])) for each in examples]
    return {
        "input_ids": column("input_ids", 2),
        "attention_mask": torch.tensor(mask),
        "labels": column("labels", -100),
    }


def flattened(examples: list[Row]) -> dict[str, Any]:
    """All rows in one line, as for kernels that take their lengths."""
    return tf.DataCollatorWithFlattening(return_flash_attn_kwargs=True, return_seq_idx=True)(examples)


def trainer(folder: Path, *, collator: Any = padded, **settings: Any) -> PruningTrainer:
    model = proxies.build("llama-tied").requires_grad_(True)
    pruning = settings.pop("pruning", PRUNING)
    return PruningTrainer(
        model=model,
        args=tf.TrainingArguments(str(folder), **ARGUMENTS | settings),
        train_dataset=rows(),
        data_collator=collator,
        pruning=pruning,
    )


def chosen_by_the_method(
    model: Any, samples: list[Row], pruning: StepPruning
) -> tuple[Selection, Signals, list[Any]]:
    """What Q-Tuning selects of these, by signals of one row at a time in fp64; these, and where they are."""
    model = model.double()
    nll, entropy, position = [], [], []
    for each in samples:
        ids = torch.tensor([each["input_ids"]])
        where = torch.tensor([i for i, label in enumerate(each["labels"]) if label != -100])
        with torch.no_grad():
            log_p = model(input_ids=ids).logits[0, where - 1].log_softmax(-1)
        nll.append(-log_p[torch.arange(len(where)), ids[0, where]].numpy())
        entropy.append(-(log_p.exp() * log_p).sum(-1).numpy())
        position.append(where.numpy())
    model.float()
    ends = [END] if pruning.end_tokens is None else list(pruning.end_tokens)
    is_end = [np.isin(np.array(s["input_ids"])[at], ends) for s, at in zip(samples, position, strict=True)]
    signals = Signals(
        ids=np.array([f"{i:03}" for i in range(len(samples))]),
        samples={
            "nll": np.array([each.mean() for each in nll]),
            "entropy": np.array([each.mean() for each in entropy]),
            "n_tokens": np.array([len(each["input_ids"]) for each in samples]),
        },
        tokens={
            "nll": np.concatenate(nll).astype(np.float32),
            "position": np.concatenate(position),
            "is_end": np.concatenate(is_end),
        },
        offsets=np.concatenate([[0], np.cumsum([len(each) for each in nll])]),
    )
    options = pruning.options()
    found = QTuning().select(signals, QTuning().scores(signals, options, 0), pruning.keep, options, 0)
    return found, signals, position


def kept_by_the_method(model: Any, samples: list[Row], pruning: StepPruning) -> list[Row]:
    """The rows that Q-Tuning keeps of these."""
    found, signals, position = chosen_by_the_method(model, samples, pruning)
    kept = []
    for i, each in enumerate(samples):
        mask = found.token_keep[signals.offsets[i] : signals.offsets[i + 1]]
        if found.keep[i]:
            labels = np.array(each["labels"])
            labels[position[i][~mask]] = -100
            kept.append({"input_ids": each["input_ids"], "labels": labels.tolist()})
    return kept


def shown(batch: dict[str, Any]) -> list[Row]:
    """The rows of a batch that have a label, one by one."""
    found = []
    for row in MicroBatch.of(batch).rows:
        part = row.line, slice(row.start, row.stop)
        found.append(
            {"input_ids": batch["input_ids"][part].tolist(), "labels": batch["labels"][part].tolist()}
        )
    return found


def first_step(run: PruningTrainer, size: int = 4, times: int = 3) -> list[list[Row]]:
    """The micro-batches of the first step, in the trainer's own order."""
    order = list(run.get_train_dataloader().batch_sampler)[:times]
    samples = rows()
    return [[samples[i] for i in batch] for batch in order]


@pytest.mark.parametrize("collator", [padded, flattened])
def test_a_step_trains_what_the_method_keeps_of_its_rows(tmp_path: Path, collator: Any) -> None:
    run = trainer(tmp_path, collator=collator, max_steps=1)
    batches = first_step(run)
    kept = kept_by_the_method(run.model, [row for batch in batches for row in batch], PRUNING)
    assert 0 < len(kept) < 12
    run.train()
    handed_on, count = run.handed_on[0]
    assert [row for batch in handed_on for row in shown(batch)] == kept
    assert count == sum(label != -100 for row in kept for label in row["labels"])


def test_the_published_way_divides_each_micro_batch_with_a_budget_of_its_own_end_tokens_too(
    tmp_path: Path,
) -> None:
    pruning = StepPruning.published(0.5, 0.5)
    assert (pruning.budget, pruning.end_tokens) == ("plane", ())
    run = trainer(tmp_path, max_steps=1, pruning=pruning, per_device_train_batch_size=8)
    batches = first_step(run)
    kept = [kept_by_the_method(run.model, batch, pruning) for batch in batches]
    together = kept_by_the_method(run.model, [row for batch in batches for row in batch], pruning)
    run.train()
    assert [shown(batch) for batch in run.handed_on[0][0]] == kept
    assert [row for part in kept for row in part] != together


# By itself, TRL asks transformers for something by its old name.
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("size", "settings"),
    [
        (4, {"max_length": 40}),
        (4, {"max_length": None, "padding_free": True}),
        (1, {"max_length": 40, "packing": True}),
    ],
    ids=["padded", "padding-free", "packed"],
)
def test_a_step_of_trl_trains_what_the_method_keeps_of_its_rows(
    tmp_path: Path, size: int, settings: dict[str, Any]
) -> None:
    words = models.WordLevel({f"t{i}": i for i in range(proxies.VOCABULARY)}, unk_token="t0")
    run = PruningSFTTrainer(
        model=proxies.build("llama-tied").requires_grad_(True),
        args=trl.SFTConfig(str(tmp_path), **ARGUMENTS | settings | {"per_device_train_batch_size": size}),
        train_dataset=datasets.Dataset.from_list(rows()),
        processing_class=tf.PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(words), eos_token=f"t{END}", pad_token="t2"
        ),
        pruning=PRUNING,
    )
    before = [row for batch in islice(run.get_train_dataloader(), 3) for row in shown(batch)]
    kept = kept_by_the_method(run.model, before, PRUNING)
    assert 0 < len(kept) < len(before)
    run.train()
    handed_on, count = run.handed_on[0]
    assert [row for batch in handed_on for row in shown(batch)] == kept
    assert count == sum(label != -100 for row in kept for label in row["labels"])


@pytest.mark.parametrize("collator", [padded, flattened])
def test_the_gradient_is_that_of_the_mean_over_the_tokens_that_are_left(
    tmp_path: Path, collator: Any
) -> None:
    run = trainer(tmp_path, collator=collator, max_steps=1, max_grad_norm=1e9)
    model = proxies.build("llama-tied").requires_grad_(True)
    kept = kept_by_the_method(model, [row for batch in first_step(run) for row in batch], PRUNING)
    run.train()
    total, count = torch.zeros(()), 0
    for row in kept:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"][1:])
        total = total + F.cross_entropy(model(input_ids=ids).logits[0, :-1], labels, reduction="sum")
        count += int((labels != -100).sum())
    (total / count).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(run.gradients[0][name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_a_flattened_step_is_that_of_padded_rows(tmp_path: Path) -> None:
    runs = [trainer(tmp_path / name, collator=c) for name, c in (("p", padded), ("f", flattened))]
    for run in runs:
        run.train()
    for one, other in zip(*(run.model.parameters() for run in runs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_what_describes_a_flattened_line_describes_what_is_left_of_it(tmp_path: Path) -> None:
    run = trainer(tmp_path, collator=flattened, max_steps=1)
    run.train()
    seen = 0
    for batch in run.handed_on[0][0]:
        left = shown(batch)
        seen += len(left)
        again = flattened(left) if left else flattened([{"input_ids": [5, 6], "labels": [-100, -100]}])
        for name in ("position_ids", "cu_seq_lens_q", "cu_seq_lens_k", "seq_idx"):
            assert batch[name].tolist() == again[name].tolist(), name
        assert int(batch["max_length_q"]) == int(again["max_length_q"])
    assert seen


def test_a_micro_batch_that_nothing_is_left_of_adds_nothing(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", max_steps=1, per_device_train_batch_size=12, max_grad_norm=1e9)
    whole.args.gradient_accumulation_steps = 1
    single = trainer(
        tmp_path / "single",
        max_steps=1,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=12,
        max_grad_norm=1e9,
    )
    whole.train()
    single.train()
    batches, count = single.handed_on[0]
    assert len(batches) == 12
    empty = [batch for batch in batches if not shown(batch)]
    assert empty
    assert all(batch["input_ids"].shape == (1, 2) for batch in empty)
    assert count == whole.handed_on[0][1]
    for name, gradient in whole.gradients[0].items():
        torch.testing.assert_close(single.gradients[0][name], gradient, rtol=1e-4, atol=1e-6)


def test_all_rows_and_tokens_kept_are_the_plain_training(tmp_path: Path) -> None:
    pruned = trainer(tmp_path / "pruned", pruning=StepPruning(keep=1.0, token_keep=1.0))
    plain = tf.Trainer(
        model=proxies.build("llama-tied").requires_grad_(True),
        args=pruned.args,
        train_dataset=rows(),
        data_collator=padded,
    )
    plain.train()
    pruned.train()
    for one, other in zip(plain.model.parameters(), pruned.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_resumed_training_prunes_as_one_that_went_through(tmp_path: Path) -> None:
    through = trainer(tmp_path / "through", max_steps=4, save_strategy="steps", save_steps=2)
    through.train()
    resumed = trainer(tmp_path / "resumed", max_steps=4)
    resumed.train(resume_from_checkpoint=str(tmp_path / "through" / "checkpoint-2"))
    later = through.handed_on[2:]
    assert len(resumed.handed_on) == len(later) == 2
    for (batches, count), (expected, expected_count) in zip(resumed.handed_on, later, strict=True):
        assert count == expected_count
        assert [shown(batch) for batch in batches] == [shown(batch) for batch in expected]
    for one, other in zip(through.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_rows_are_read_without_dropout_and_the_model_goes_on_training(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_steps=1)
    dropout = torch.nn.Dropout(0.5)
    run.model.model.norm = torch.nn.Sequential(run.model.model.norm, dropout)
    run.model.train()
    loader = iter(run.get_train_dataloader())
    batches = [next(loader) for _ in range(3)]
    state = torch.get_rng_state()
    run.get_batch_samples(iter(batches), 3, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)
    assert dropout.training


def test_the_logs_say_what_was_kept_and_what_it_cost(tmp_path: Path) -> None:
    pruning = StepPruning(keep=0.75)
    run = trainer(tmp_path, pruning=pruning)
    first = chosen_by_the_method(run.model, [row for batch in first_step(run) for row in batch], pruning)
    run.train()
    logs = [each for each in run.state.log_history if "loss" in each]
    assert len(logs) == 2
    assert logs[0]["pruning/fill"] == first[0].thresholds["fill_share"] > 0
    for log, (batches, count), step in zip(logs, run.handed_on, (0, 1), strict=True):
        taken = [
            r for b in list(run.get_train_dataloader().batch_sampler)[3 * step : 3 * step + 3] for r in b
        ]
        before = [rows()[i] for i in taken]
        size = sum(4 * max(len(rows()[i]["input_ids"]) for i in taken[at : at + 4]) for at in range(0, 12, 4))
        left = sum(batch["input_ids"].numel() for batch in batches)
        assert log["pruning/rows"] == pytest.approx(sum(len(shown(b)) for b in batches) / 12)
        total = sum(label != -100 for row in before for label in row["labels"])
        assert log["pruning/tokens"] == pytest.approx(count / total)
        assert log["pruning/compute"] == pytest.approx((size + 3 * left) / (3 * size))


def test_end_tokens_lose_no_label_unless_asked_for(tmp_path: Path) -> None:
    lost = []
    for name, ends in (("protected", None), ("paper", ())):
        pruning = StepPruning(keep=1.0, token_keep=0.01, end_tokens=ends)
        run = trainer(tmp_path / name, pruning=pruning, max_steps=1)
        run.train()
        shown_rows = [row for batch in run.handed_on[0][0] for row in shown(batch)]
        lost.append(sum(row["labels"][-1] == -100 for row in shown_rows))
    assert lost[0] == 0
    assert lost[1] > 0


def test_fields_that_are_not_understood_are_refused() -> None:
    batch: dict[str, Any] = padded(rows(2))
    with pytest.raises(ValueError, match="pixel_values in a batch"):
        MicroBatch.of(batch | {"pixel_values": torch.zeros(2, 3, 4, 4)})
    with pytest.raises(ValueError, match="needs input_ids and labels"):
        MicroBatch.of({name: batch[name] for name in ("input_ids", "attention_mask")})


def test_left_padded_rows_are_found_where_they_stand() -> None:
    batch = padded(rows(3))
    turned = {name: value.flip(1) for name, value in batch.items()}
    widths = batch["attention_mask"].sum(1).tolist()
    total = batch["input_ids"].shape[1]
    found = MicroBatch.of(turned).rows
    assert [(row.start, row.stop) for row in found] == [(total - width, total) for width in widths]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("keep", 0.0, "share"),
        ("keep", 1.5, "share"),
        ("token_keep", 0.0, "token_keep"),
        ("fill", "all", "fill"),
        ("budget", "batch", "budget"),
        ("plane", "epoch", "plane is 'epoch': allowed is one of 'step', 'micro-batch'"),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: Any, said: str) -> None:
    given: dict[str, Any] = {"keep": 0.5, name: value}
    with pytest.raises(ValueError, match=said):
        StepPruning(**given)
