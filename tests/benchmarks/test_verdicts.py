"""The benchmark of verdicts runs to its end on a few made-up rows, and goes on where it was cut off."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from benchmarks import verdicts
from tests.tiny_model import FACTS

ROWS = {
    "alpaca": ("instruction", "input", "output"),
    "pairs": ("instruction", "input", "output_gpt4"),
    "dolly": ("instruction", "input", "output"),
    "evol": ("instruction", "", "output"),
    "user": ("instruction", "input", "output"),
    "solutions": ("question", "", "solution"),
    "gsm8k": ("question", "", "answer"),
    "gsm8k-train": ("question", "", "answer"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    for number, (name, columns) in enumerate(ROWS.items()):
        prompt, more, response = columns
        rows = [
            {prompt: f"{at}. {question}", response: f"{answer} That is what {name} {at * 7 + number} says."}
            | ({more: ""} if more else {})
            for at, (question, answer) in enumerate(FACTS)
        ]
        path = folder / verdicts.FILES[name]
        path.parent.mkdir(exist_ok=True)
        pl.DataFrame(rows).write_parquet(path)
    return folder


def test_a_folder_without_the_corpora_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"lacks alpaca/alpaca_52k\.parquet"):
        verdicts.main(["--data", str(tmp_path), "--small"])


def test_makes_a_table_of_what_each_method_keeps_against_random_rows(
    data: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = verdicts.Size(10, 4, 4, 400, ("rho",), ("alpaca", "gpt-4"), 2)
    [swapped, *_] = verdicts.settings(small)  # not those of `--small`
    monkeypatch.setattr(verdicts, "SMALL", small)
    monkeypatch.setattr(verdicts, "settings", lambda _: [swapped])
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- verdicts -->\nold\n<!-- end of verdicts -->\nafter\n", encoding="utf-8")
    monkeypatch.setattr(verdicts, "README", page)
    out = tmp_path / "verdicts.json"
    given = [
        "--data",
        data,
        "--small",
        "--model",
        tiny_folder,
        "--device",
        "cpu",
        "--home",
        tmp_path / "home",
    ]
    assert verdicts.main([str(each) for each in (*given, "--out", out, "--readme")]) == 0
    [first] = json.loads(out.read_text(encoding="utf-8"))
    assert first["setting"] == swapped.name
    assert [line["method"] for line in first["methods"]] == [*small.methods, verdicts.IN_TRAINING]
    for line in first["methods"]:
        assert line["against_random"].keys() == {"alpaca", "gpt-4", "all sets"}
        assert line["seeds"] == 2
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- verdicts -->")
    assert text.endswith("<!-- end of verdicts -->\nafter\n")
    assert "old" not in text
    assert text.count("| `rho` |") == 1
