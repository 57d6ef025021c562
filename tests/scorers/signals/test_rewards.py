"""Rewards in batches against one conversation at a time through the plain model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

from scorers.conversations.chat import RenderError
from scorers.conversations.conversation import Conversation, Turn
from scorers.models.sources import ModelSourceError
from scorers.signals.forward import MeasureError
from scorers.signals.rewards import Read, RewardModel
from tests.tiny_model import FACTS, save_tiny_model
from tests.tiny_reward import save_tiny_reward


def talk(*contents: str) -> Conversation:
    roles = ("user", "assistant")
    return Conversation(tuple(Turn(roles[at % 2], each) for at, each in enumerate(contents)))  # type: ignore[arg-type]


TALKS = [talk(*pair) for pair in FACTS[:14]] + [talk("the sea", "is salty", "rain", "is not")]


def read_of(model: RewardModel, talks: list[Conversation]) -> list[Read]:
    found = [each for each in model.read(talks) if isinstance(each, Read)]
    assert len(found) == len(talks)
    return found


def alone(folder: Path, talks: list[Conversation]) -> Any:
    """What transformers' own model says of each conversation, one after another (N, labels)."""
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    model = tf.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    outputs = []
    for each in talks:
        messages = [{"role": turn.role, "content": turn.content} for turn in each.turns]
        if tokenizer.chat_template is not None:
            text = tokenizer.apply_chat_template(messages, tokenize=False)
            given = {"input_ids": tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]}
        else:
            before = "\n\n".join(message["content"] for message in messages[:-1])
            given = tokenizer(before, messages[-1]["content"], return_tensors="pt")
        with torch.inference_mode():
            outputs.append(model(**given).logits[0].numpy())
    return np.stack(outputs)


def scored(model: RewardModel, read: list[Read]) -> Any:
    found = dict(model.score(read))
    assert not any(isinstance(each, MeasureError) for each in found.values())
    return np.stack([found[at] for at in range(len(read))])


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {}),  # pads with the token that ends its turns
        ("gpt2", {"pad_token_id": None}),
        ("qwen3", {"num_key_value_heads": 2, "head_dim": 8, "pad_token_id": None, "num_labels": 3}),
        ("bert", {}),
        ("roberta", {"type_vocab_size": 2, "num_labels": 2}),
    ],
)
def test_rewards_of_a_batch_are_those_of_single_conversations(
    tmp_path: Path, kind: str, changes: dict[str, Any]
) -> None:
    folder = save_tiny_reward(tmp_path / kind, kind, **changes)
    model = RewardModel(folder, token_budget=300)
    talks = [each for each, found in zip(TALKS, model.read(TALKS), strict=True) if isinstance(found, Read)]
    read = read_of(model, talks)
    assert len({len(each.ids) for each in read}) > 4
    assert scored(model, read) == pytest.approx(alone(folder, talks), abs=2e-5)


def test_padding_changes_no_reward(tmp_path: Path) -> None:
    model = RewardModel(save_tiny_reward(tmp_path / "llama"))
    short, long = read_of(model, [talk("Hi", "Yes."), talk("Hi", "All work and no play. " * 12)])
    single, together = scored(model, [short]), scored(model, [long, short, short])
    assert len(long.ids) > 3 * len(short.ids)
    assert together[1:] == pytest.approx(np.repeat(single, 2, axis=0), abs=1e-5)


def test_a_batch_that_memory_does_not_hold_is_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = RewardModel(save_tiny_reward(tmp_path / "llama"))
    read = read_of(model, TALKS)
    expected, whole = scored(model, read), RewardModel._outputs

    def narrow(self: RewardModel, samples: list[Read]) -> Any:
        if len(samples) > 2:
            raise torch.OutOfMemoryError("no memory")
        return whole(self, samples)

    monkeypatch.setattr(RewardModel, "_outputs", narrow)
    assert scored(model, read) == pytest.approx(expected, abs=1e-5)


def test_a_conversation_longer_than_the_model_reads_is_not_cut(tmp_path: Path) -> None:
    roberta = RewardModel(save_tiny_reward(tmp_path / "roberta", "roberta", type_vocab_size=2))
    assert roberta.longest == 31  # it counts positions from behind its padding token's
    refused, fits = roberta.read([talk("the sea", "deep " * 40), talk("the sea", "deep " * 28)])
    assert isinstance(refused, RenderError)
    assert "more than the 31 that the reward model reads" in refused.reason
    assert isinstance(fits, Read)
    assert np.isfinite(scored(roberta, [fits])).all()


def test_a_model_without_the_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError, match=r"reward model's parameters, such as score\.weight"):
        RewardModel(save_tiny_model(tmp_path))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_rewards_on_a_gpu_are_those_of_a_cpu(tmp_path: Path, kind: str) -> None:
    folder = save_tiny_reward(tmp_path / kind, kind)
    cpu = RewardModel(folder)
    read = [each for each in cpu.read(TALKS) if isinstance(each, Read)]
    found = scored(RewardModel(folder, device="cuda"), read)
    assert found == pytest.approx(scored(cpu, read), abs=1e-3)
