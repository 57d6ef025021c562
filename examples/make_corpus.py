"""Writes instructions.jsonl, the small instruction corpus of the demo, with planted and labelled defects.

Usage: python examples/make_corpus.py [OUTPUT]

The clean rows come from content.toml, written by hand, and from problems.py, worked out by the program. A
quarter of the corpus is spoilt; the column `planted` says how ("" for a clean row).

Notable choices:
- Answers to another question are rotated among the rows concerned, never copied from a clean row: a repeated
  answer would give the defect away.
- A duplicate stands somewhere after its original, because the first copy is the one that a pruner keeps.
"""

import json
import random
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from problems import solved_problems

HERE = Path(__file__).parent
SEED = 9  # chosen among a few because it spreads the defects evenly over the file
PER_DEFECT = 20
MIN_LENGTH_TO_TRUNCATE = 120  # characters; a shorter answer cut in two can still look complete


@dataclass(frozen=True)
class Sample:
    """One row; `family` and `wrong` stay behind when it is written."""

    family: str
    instruction: str
    input: str
    output: str
    wrong: str | None = None
    planted: str = ""


def written() -> Iterator[Sample]:
    """The rows of content.toml; its head describes the format."""
    families = tomllib.loads((HERE / "content.toml").read_text(encoding="utf-8"))
    for family, table in families.items():
        asks, answers = table["ask"], table.get("answers", ["{y}"])
        for index, (x, *outputs) in enumerate(table["items"]):
            ask, answer = asks[index % len(asks)], answers[index % len(answers)]
            right, *wrong = (answer.replace("{x}", x).replace("{y}", y) for y in outputs)
            yield Sample(
                family,
                instruction=ask.replace("{x}", x),
                input="" if "{x}" in ask else x,
                output=right,
                wrong=wrong[0] if wrong else None,
            )


def clean_rows() -> list[Sample]:
    """All rows before anything is spoilt. No two of them ask the same thing.

    Raises ValueError for a repeated question and for a wrong answer that is right, both slips of the author.
    """
    rows = [*written()]
    for family, question, right, wrong in solved_problems():
        rows.append(Sample(family, question, input="", output=right, wrong=wrong))
    questions = {(row.instruction, row.input) for row in rows}
    if len(questions) < len(rows):
        raise ValueError("the content asks the same question twice")
    for row in rows:
        if row.output == row.wrong:
            raise ValueError(f"the wrong answer to {row.instruction!r} is the right one")
    return rows


def cut(text: str, rng: random.Random) -> str:
    """The text up to some place inside a word, 30 to 70 % of the way through it."""
    inside = range(len(text) * 3 // 10, len(text) * 7 // 10)
    return text[: rng.choice([at for at in inside if text[at - 1].isalpha() and text[at].isalpha()])]


def plant(rows: list[Sample], rng: random.Random) -> list[Sample]:
    """The rows in random order with PER_DEFECT defects of each kind, at most one to a row.

    Duplicates are added to the rows; the other defects replace a row's output.
    """
    corpus = list(rows)
    rng.shuffle(corpus)
    unspoilt = rng.sample(range(len(corpus)), len(corpus))

    def draw(fits: Callable[[Sample], bool]) -> list[int]:
        drawn = [at for at in unspoilt if fits(corpus[at])][:PER_DEFECT]
        unspoilt[:] = [at for at in unspoilt if at not in drawn]
        return drawn

    def spoil(at: int, defect: str, output: str) -> None:
        corpus[at] = replace(corpus[at], output=output, planted=defect)

    for at in draw(lambda row: row.wrong is not None):
        spoil(at, "wrong_answer", corpus[at].wrong or "")
    for at in draw(lambda row: len(row.output) >= MIN_LENGTH_TO_TRUNCATE):
        spoil(at, "truncated", cut(corpus[at].output, rng))
    # Half a turn around the rows sorted by family ends in another family for every one of them, so that
    # no answer fits by chance.
    takers = sorted(draw(lambda _: True), key=lambda at: corpus[at].family)
    givers = takers[PER_DEFECT // 2 :] + takers[: PER_DEFECT // 2]
    for at, answer in zip(takers, [corpus[giver].output for giver in givers], strict=True):
        spoil(at, "other_question", answer)
    for at in draw(lambda _: True):
        spoil(at, "empty", "")
    for original in [corpus[at] for at in draw(lambda _: True)]:
        place = rng.randint(corpus.index(original) + 1, len(corpus))
        corpus.insert(place, replace(original, planted="duplicate"))
    return corpus


def corpus_text() -> str:
    """The whole file: one JSON object per line with id, instruction, input, output and planted."""
    lines = []
    for number, row in enumerate(plant(clean_rows(), random.Random(SEED))):
        record = {
            "id": f"example-{number:03d}",
            "instruction": row.instruction,
            "input": row.input,
            "output": row.output,
            "planted": row.planted,
        }
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    return "".join(lines)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "instructions.jsonl"
    target.write_text(corpus_text(), encoding="utf-8", newline="\n")
