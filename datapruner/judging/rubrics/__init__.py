"""The rubrics by which a teacher rates rows: what each score of a rubric is asked by, and on which scale.

`alpagasus` is one score of a conversation's accuracy from 0 to 5 (AlpaGasus, arXiv 2307.08701, which keeps
4.5 and over). `deita` is the complexity of each instruction and the quality of each response to it from 1 to
6, each summed over the turns (DEITA, arXiv 2312.15685). The scales and dimensions are the papers', the words
are ours.

A score's prompt is a file here, `alpagasus@1` for `alpagasus.v1.md` (`datapruner.teacher.prompts`). A
published version never changes: other wording is another version, beside it.

Notable choice: DEITA trains two scorers on a teacher's ratings of evolved instructions, side by side; here
the teacher itself rates each turn, alone, so that no row changes the score of another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from datapruner.teacher import prompts
from datapruner.teacher.prompts import Prompt


@dataclass(frozen=True, slots=True)
class Scale:
    """One score of a rubric. prompt: id of the file that asks for it. least, most: the scale; whole: without
    fractions. of: what one question shows the teacher, the conversation, or of each exchange what the
    response answers alone, or both; several questions' scores are summed."""

    prompt: str
    least: float
    most: float
    whole: bool
    of: Literal["conversation", "instructions", "exchanges"]

    def text(self) -> Prompt:
        """The prompt; `$material` is what is rated."""
        return prompts.prompt(__name__, self.prompt)


RUBRICS: Mapping[str, Mapping[str, Scale]] = {
    "alpagasus": {"accuracy": Scale("alpagasus@1", 0, 5, False, "conversation")},
    "deita": {
        "complexity": Scale("deita-complexity@1", 1, 6, True, "instructions"),
        "quality": Scale("deita-quality@1", 1, 6, True, "exchanges"),
    },
}
"""The scores of each rubric, by their names."""


def document(rubric: str) -> dict[str, dict[str, str]]:
    """What a run's lineage says of a rubric: of each score the version of its prompt, and the file's hash."""
    return {
        name: {
            "prompt": scale.prompt,
            "sha256": hashlib.sha256(prompts.text(__name__, scale.prompt).encode()).hexdigest(),
        }
        for name, scale in RUBRICS[rubric].items()
    }
