"""The corpora of a folder, and the rows of them that methods select from, read on, and compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

Rows = list[dict[str, Any]]

FILES = {
    "alpaca": "alpaca/alpaca_52k.parquet",
    "pairs": "alpaca/alpaca_gpt4_pairs_1k.parquet",
    "longest": "alpaca/alpaca_longest_1k_refined.parquet",
    "rules": "alpaca/alpaca_rule_defects.parquet",
    "dolly": "chat/dolly_3k.parquet",
    "evol": "chat/evol_instruct_1k.parquet",
    "user": "chat/self_instruct_user_252.parquet",
    "solutions": "math/gsm8k_model_solutions_labelled.parquet",
    "gsm8k": "math/gsm8k_test.parquet",
    "gsm8k-train": "math/gsm8k_train.parquet",
}


@dataclass(frozen=True)
class Amounts:
    """rows: of a corpus. each: with each planted defect. labelled: of either kind, where others labelled
    them. held: of each held-out set. clean: of the target set and for the reference model. longest:
    characters of a row."""

    rows: int
    each: int
    labelled: int
    held: int
    clean: int
    longest: int


class Data:
    """The corpora of a folder, cut to a size. Raises SystemExit naming what is not there."""

    def __init__(self, folder: Path, amounts: Amounts) -> None:
        self.folder, self.amounts = folder, amounts
        missing = [name for name in FILES.values() if not (folder / name).is_file()]
        if missing:
            raise SystemExit(
                f"{folder} lacks {', '.join(missing)}: give the folder of the corpora with --data"
            )

    def file(self, name: str) -> pl.DataFrame:
        """A file as it is."""
        return pl.read_parquet(self.folder / FILES[name])

    def read(self, name: str, prompt: str, more: str | None, response: str) -> pl.DataFrame:
        """All rows of a file that are not too long, as instruction, input and output, shuffled."""
        text = pl.col(response).str.strip_chars()
        frame = self.file(name).select(
            pl.col(prompt).alias("instruction"),
            (pl.lit("") if more is None else pl.col(more).fill_null("")).alias("input"),
            text.alias("output"),
        )
        size = pl.sum_horizontal(pl.col(part).str.len_chars() for part in ("instruction", "input", "output"))
        fits = (size <= self.amounts.longest) & (pl.col("output").str.len_chars() >= 20)
        return frame.filter(fits).unique(maintain_order=True).sample(fraction=1, shuffle=True, seed=0)

    def alpaca(self) -> tuple[Rows, Rows, Rows]:
        """Rows to select from, all there are; clean ones beside them, and held-out ones."""
        found = self.read("alpaca", "instruction", "input", "output").to_dicts()
        held, clean = self.amounts.held, self.amounts.clean
        return found[held + clean :], found[held : held + clean], found[:held]

    def problems(self) -> Rows:
        """Problems of GSM8K with solutions by people: the first are the clean ones."""
        return self.read("gsm8k-train", "question", None, "answer").to_dicts()

    def held_out(self, name: str) -> Rows:
        """The rows of a held-out set."""
        made: Mapping[str, Callable[[], Rows]] = {
            "alpaca": lambda: self.alpaca()[2],
            "gpt-4": lambda: self.read("pairs", "instruction", "input", "output_gpt4").to_dicts(),
            "dolly": lambda: self.read("dolly", "instruction", "input", "output").to_dicts(),
            "evol": lambda: self.read("evol", "instruction", None, "output").to_dicts(),
            "user": lambda: self.read("user", "instruction", "input", "output").to_dicts(),
            "gsm8k": lambda: self.read("gsm8k", "question", None, "answer").to_dicts(),
        }
        return made[name]()[: self.amounts.held]
