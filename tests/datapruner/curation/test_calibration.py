"""Calibration batches of a corpus, tried by a real process, against the same batches tried here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import datapruner
from datapruner.curation.verdicts import Verdicts
from datapruner.errors import UsageError
from scorers.conversations.chat import ChatRenderer, Encoded
from scorers.models.proxy import load
from scorers.signals.calibration_kl import divergences
from tests.chats import of_messages
from tests.command_line import Said
from tests.tiny_model import COPIES, LINES, MEASURED, REJECTED, TOO_LONG, messages_of, text_of

# A part of the corpus that is measured first, in other batches, has other last bits than whole runs expect.
pytestmark = pytest.mark.usefixtures("first_run")

ASKED: dict[str, Any] = {"batches": 3, "size": 4, "held_out": 5, "seed": 2}


@pytest.fixture(scope="module")
def calibrated(corpus_file: Path, home: Path, options: dict[str, Any]) -> Verdicts:
    return datapruner.calibrate(corpus_file, **ASKED, home=home, **options)


def test_the_batch_kept_is_the_one_that_changes_the_model_least(
    calibrated: Verdicts, tiny_folder: Path
) -> None:
    proxy = load(tiny_folder, device="cpu")
    renderer = ChatRenderer(proxy.tokenizer, max_length=proxy.max_positions)

    def encoded(rows: list[int]) -> list[Encoded]:
        lines = [LINES[row] for row in rows]
        chats = [of_messages(messages_of(line)) for line in lines if isinstance(line, dict)]
        found = renderer.render(chats)
        assert len(found) == len(rows)
        assert all(isinstance(each, Encoded) for each in found)
        return found  # type: ignore[return-value]

    table = calibrated.table
    batches = [encoded(table.filter(calibration_batch=number)["row"].to_list()) for number in range(3)]
    held_out = encoded(table.filter(pl.col("reason") == "held out, to measure on")["row"].to_list())
    assert ([len(each) for each in batches], len(held_out)) == ([4, 4, 4], 5)
    expected = list(divergences(proxy, batches, held_out))
    best = expected.index(min(expected))
    assert calibrated.settings["divergence"] == pytest.approx(expected, rel=1e-5)
    assert calibrated.settings["best"] == best
    assert calibrated.kept_rows == table.filter(calibration_batch=best)["row"].to_list()


def test_every_row_is_accounted_for_with_its_reason(
    corpus_file: Path, home: Path, options: dict[str, Any]
) -> None:
    everything = {"batches": 3, "size": 5, "held_out": len(MEASURED) - 15}
    result = datapruner.calibrate(corpus_file, **everything, home=home, **options)
    assert result.counts == {
        "ingested": len(LINES),
        "kept": 5,
        "dropped": len(LINES) - 5 - len(REJECTED),
        "rejected": len(REJECTED),
    }
    reasons = dict(result.table.select("row", "reason").iter_rows())
    for row, first in COPIES.items():
        assert reasons[row] == f"exact duplicate of row {first}"
    assert reasons[TOO_LONG[0]].startswith("cannot be used: ")
    best = result.settings["best"]
    others = [number for number in range(3) if number != best]
    assert {reason for reason in reasons.values() if reason and reason.startswith("batch")} == {
        f"batch {number} changes the model more than batch {best} does" for number in others
    }


def test_the_draw_does_not_depend_on_the_order_of_the_rows_but_on_the_seed(
    calibrated: Verdicts, home: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    def kept(verdicts: Verdicts) -> set[str]:
        return set(verdicts.table.filter(status="kept")["sample_id"])

    turned = tmp_path / "turned.jsonl"
    turned.write_text("\n".join(map(text_of, LINES[::-1])) + "\n", encoding="utf-8")
    again = datapruner.calibrate(turned, **ASKED, home=home, **options)
    assert kept(again) == kept(calibrated)
    assert again.settings["divergence"] == pytest.approx(calibrated.settings["divergence"], rel=1e-5)
    other = datapruner.calibrate(turned, **(ASKED | {"seed": 3}), home=home, **options)
    assert kept(other) != kept(calibrated)


def test_more_samples_than_there_are_is_an_error(
    corpus_file: Path, home: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(
        UsageError, match=rf"make 201 samples, but there are only {len(MEASURED)} that can be used \(ask for"
    ):
        datapruner.calibrate(corpus_file, batches=2, size=100, held_out=1, home=home, **options)


@pytest.mark.parametrize("wrong", [{"batches": 0}, {"size": 0}, {"held_out": 0}, {"sparsity": 1.0}])
def test_settings_out_of_range_are_refused(corpus_file: Path, tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(wrong))}: must be (at least|under|over)"):
        datapruner.calibrate(corpus_file, home=tmp_path, **wrong)


def test_the_command_shows_every_batch_and_writes_the_rows_of_the_best(
    command: Callable[..., Said],
    calibrated: Verdicts,
    corpus_file: Path,
    home: Path,
    tiny_folder: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "calibration.jsonl"
    given = ["--batches", 3, "--size", 4, "--held-out", 5, "--seed", 2, "--model", tiny_folder, "--out", out]
    said = command("calibrate", corpus_file, *given, home=home)
    assert said.code == 0, said.err
    for divergence in calibrated.settings["divergence"]:
        assert f"{divergence:.5f}" in said.out
    written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert written == [LINES[row] for row in calibrated.kept_rows]
    document = command("calibrate", corpus_file, *given[:-2], "--json", home=home).json
    assert document["settings"]["best"] == calibrated.settings["best"]
