"""What a row says of its own training."""

from __future__ import annotations

from typing import Any

import pytest

from datapruner.input.shapes import RowParser
from tests.chats import of_sample
from tests.datapruner.input.parsing import CHAT, rejection, sample, texts


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("weight", 0, "weight 0"),
        ("weight", 0.0, "weight 0.0"),
        ("train", False, "train false"),
        ("training", False, "training false"),
        ("loss", False, "loss false"),
        ("loss_mask", 0, "loss_mask 0"),
    ],
)
def test_a_turn_that_is_not_to_be_trained_on_says_why(key: str, value: object, why: str) -> None:
    first, second = ({"role": "assistant", "content": "x", key: flag} for flag in (value, 1))
    row = {"messages": [CHAT[0], first, CHAT[0], second]}
    assert [turn.untrained for turn in of_sample(sample(row)).turns] == [None, why, None, None]
    plain = {"messages": [CHAT[0], {**first, key: None}, CHAT[0], {**second, key: None}]}
    assert sample(row).sample_id != sample(plain).sample_id


@pytest.mark.parametrize(
    ("role", "key", "value"),
    [
        ("assistant", "weight", 0.5),
        ("assistant", "weight", -1),
        ("assistant", "weight", "0"),
        ("assistant", "loss_mask", [0, 1]),
        ("assistant", "mask", 1),
        ("assistant", "masks", [1]),
        ("user", "train", True),
    ],
)
def test_a_flag_that_cannot_be_followed_is_refused(role: str, key: str, value: object) -> None:
    chat = [CHAT[0], {"role": role, "content": "x", key: value}, CHAT[1]]
    found = rejection({"messages": chat})
    assert (found.code, found.field) == ("unsupported_weight", f"messages[1].{key}")


def test_a_row_of_which_nothing_is_trained_on_is_refused() -> None:
    chat = [CHAT[0], {**CHAT[1], "weight": 0}]
    assert rejection({"messages": chat}).code == "nothing_to_train_on"


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        ({"label": False}, "not_to_train"),
        ({"label": "False"}, "not_to_train"),
        ({"label": 0}, "not_to_train"),
        ({"train": False}, "not_to_train"),
        ({"train": "False"}, "not_to_train"),
        ({"weight": 0}, "not_to_train"),
        ({"weight": "0.0"}, "not_to_train"),
        ({"chosen": "a", "rejected": "b"}, "preference_pair"),
        ({"loss_mask": [0, 1]}, "unsupported_mask"),
    ],
)
def test_columns_that_say_not_to_train_are_followed(flags: dict[str, Any], code: str) -> None:
    assert rejection({"prompt": "a", "completion": "b", **flags}).code == code


@pytest.mark.parametrize(
    "others", [{"label": True}, {"label": None}, {"weight": 0.3}, {"train": True}, {"chosen": "a"}]
)
def test_columns_that_ask_for_training_change_nothing(others: dict[str, Any]) -> None:
    row = {"prompt": "a", "completion": "b"}
    assert sample({**row, **others}).sample_id == sample(row).sample_id


def test_a_class_label_of_zero_is_no_flag() -> None:
    assert sample({"question": "a", "answer": "b", "label": 0}).shape == "question-answer"


def test_a_mapping_says_which_answer_of_a_pair_is_meant() -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    assert rejection(row).code == "preference_pair"
    parser = RowParser({"prompt": "prompt", "response": "chosen"})
    assert parser.parse(row) == RowParser({"prompt": "prompt", "response": "x"}).parse(
        {"prompt": "a", "x": "b"}
    )._replace(columns=parser.mapped)  # type: ignore[union-attr]


def test_a_chat_that_ends_with_the_user_is_kept_as_it_is() -> None:
    assert texts({"messages": [*CHAT, {"role": "user", "content": "Bye"}]})[-1] == ("user", "Bye")
