"""Rewards of a corpus, cached like signals, with tiny reward models in a real process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datapruner import library
from datapruner.errors import ModelError, UsageError
from datapruner.measuring import rewards
from scorers.conversations.conversation import Conversation, Turn
from scorers.signals.rewards import Read, RewardModel
from tests.tiny_reward import save_tiny_reward

ANSWERS = ["is salty", "is not", "deep", "the deep sea and rain", "deep" + " deep" * 39]
ROWS = [{"instruction": "the sea", "output": answer} for answer in ANSWERS]


@pytest.fixture(scope="module")
def reward_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}, "num_labels": 2}
    return save_tiny_reward(tmp_path_factory.mktemp("reward"), "bert", **labels)


def test_rows_are_ranked_by_the_label_named_and_rewarded_once(
    reward_folder: Path, tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"reward_model": str(reward_folder), "home": tmp_path, **options}
    result = library.prune(ROWS, "reward", 0.5, options={"label": "good"}, **given)
    table = result.scores.sort("row")
    model = RewardModel(reward_folder)
    talks = [Conversation((Turn("user", "the sea"), Turn("assistant", answer))) for answer in ANSWERS[:4]]
    outputs = dict(model.score([each for each in model.read(talks) if isinstance(each, Read)]))
    expected = [float(np.log(np.exp(outputs[at][1]) / np.exp(outputs[at]).sum())) for at in range(4)]
    assert table["reward"].to_list()[:4] == pytest.approx(expected, abs=1e-5)
    assert set(result.scores.filter(keep=True)["row"]) == set(np.argsort(expected)[-2:].tolist())
    assert table["status"].to_list()[4] == "error"
    assert "by the reward model: 42 tokens, more than the 32" in table["reason"].to_list()[4]
    report = result.report
    assert (report.ingested, report.kept, report.pruned, report.errored) == (5, 2, 2, 1)
    assert table["ppl"].null_count() == 5  # the proxy model reads nothing for it
    assert result.run.lineage["reward_model"]["model"] == str(reward_folder)
    # The other label is there already.
    monkeypatch.setattr(rewards, "WORKER", ("-c", "raise SystemExit('nothing is to be rewarded')"))
    other = library.prune(ROWS, "reward", 0.5, options={"label": "bad"}, **given).scores.sort("row")
    both = np.exp(table["reward"].to_numpy()[:4]) + np.exp(other["reward"].to_numpy()[:4])
    assert both == pytest.approx(np.ones(4), abs=1e-6)


def test_a_label_that_the_model_lacks_is_refused_before_anything_is_rewarded(
    reward_folder: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    given = {"reward_model": str(reward_folder), "home": tmp_path, **options}
    with pytest.raises(ModelError, match=r"has 2 labels .*one of: bad, good"):
        library.prune(ROWS, "reward", 0.5, **given)


def test_a_reward_model_is_named_where_it_is_read_and_only_there(
    options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="method reward needs a reward model") as lacking:
        library.prune(ROWS, "reward", 0.5, home=tmp_path, **options)
    assert lacking.value.field == "measuring.reward_model"
    with pytest.raises(UsageError, match="no reward is read by length"):
        library.prune(ROWS, "length", 0.5, home=tmp_path, reward_model="org/name", **options)
