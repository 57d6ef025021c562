"""`check`, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from datapruner.outputs import checking
from datapruner.result import Result
from tests.command_line import Said

Command = Callable[..., Said]


@pytest.fixture(scope="module")
def exported(first_run: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "train.parquet"
    first_run.export_for("trl", path)
    return path


def test_a_file_for_the_model_ends_well_and_shows_a_row(
    command: Command, exported: Path, tiny_folder: Path, home: Path
) -> None:
    said = command("check", exported, "--model", tiny_folder, home=home)
    assert (said.code, said.err) == (0, "")
    assert "fine: its ids are this model's" in said.out
    assert "assistant\nBlue.[+<|im_end|>+]" in said.out
    document = command("check", exported, "--model", tiny_folder, "--json", home=home).json
    assert document["ok"] is True
    assert document["rows"] == document["same"] > 0


def test_a_file_for_another_model_ends_with_1_and_says_what_differs(
    command: Command, exported: Path, smollm2: Path, home: Path
) -> None:
    said = command("check", exported, "--model", smollm2, "--max-length", 30, home=home)
    assert said.code == 1
    assert "not for this model: it would train on something else" in said.out
    assert "400" in said.out
    assert "49,152" in said.out
    assert "over 30 tokens" in said.out
    assert "\x1b" not in said.out
    document = command("check", exported, "--model", smollm2, "--json", home=home).json
    assert document["ok"] is False
    assert {"vocabulary", "chat template"} < {each["what"] for each in document["differences"]}


def test_rows_of_which_none_could_be_tried_are_not_called_the_same(
    command: Command, tiny_folder: Path, home: Path, tmp_path: Path
) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text('{"input_ids": [5, 400], "labels": [-100, 400]}\n')
    said = command("check", path, "--model", tiny_folder, home=home)
    assert said.code == 1
    assert "As text and back  no row tried" in said.out


def test_rows_too_long_to_be_tried_are_not_called_the_model_s(
    command: Command, tiny_folder: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "_TRIED_TOKENS", 2)
    path = tmp_path / "long.jsonl"
    path.write_text('{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}\n')
    said = command("check", path, "--model", tiny_folder, home=home)
    assert said.code == 0
    assert "nothing that shows that its ids are this model's" in said.out
    assert "fine" not in said.out
