"""The folder of somebody who reads the README: what a clone has, rows of their own, and a small model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.compose import ROOT
from tests.tiny_model import FACTS, save_tiny_model, teach

EXAMPLES = ROOT / "examples" / "instructions.jsonl"
_OF_A_CLONE = ("examples", "Makefile", "pyproject.toml", "constraints.txt", ".env.example")


def traces() -> list[dict[str, str]]:
    """Rows that reason about 14, each in words of its own."""
    rows = []
    for at, (question, _) in enumerate(FACTS):
        thoughts = [FACTS[(at + step) % len(FACTS)][1].replace("\n", " ") for step in (0, 3, 7, 8)]
        sum_of = f"What is {at} plus {14 - at}? {question}"
        steps = "\n\n".join(
            [*(f"Wait, {thought}" for thought in thoughts), f"So {at} and {14 - at} make 14."]
        )
        response = f"<think>\n{steps}\n</think>\nThe result is \\boxed{{14}}."
        rows.append({"instruction": sum_of, "output": response, "answer": "14"})
    return rows


def write(folder: Path, recipe: str) -> None:
    """The files that the pages take for the reader's own, their recipe among them, and what a clone has."""
    for name in _OF_A_CLONE:
        (folder / name).symlink_to(ROOT / name)
    environment = folder / ".venv"
    environment.mkdir()
    for entry in Path(sys.prefix).iterdir():
        (environment / entry.name).symlink_to(entry)
    (environment / ".installed").unlink(missing_ok=True)
    (environment / ".installed").touch()

    examples = [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
    asked = (
        "A train leaves at nine and drives for three hours at eighty kilometres an hour. How far does it get?"
    )
    train = [*examples[:20], {"id": "leaked", "instruction": asked, "input": "", "output": "240 kilometres."}]
    files = {"train.jsonl": train, "traces.jsonl": traces(), "gsm8k_test.jsonl": [{"question": asked}]}
    for name, rows in files.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "alpaca.json").write_text(json.dumps(examples), encoding="utf-8")
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    texts = [f"{row['instruction']} {row['output']}" for row in [*traces(), *examples]]
    model = folder / "home" / ".datapruner" / "models" / "smollm2-135m"
    model.mkdir(parents=True)
    teach(save_tiny_model(model), texts, positions=1024)
