"""The Python API of rewriting: `rewrite`, and the `Rewrites` it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from datapruner import settings, validation
from datapruner.corpora.corpus import Corpus
from datapruner.measuring.measure import Machine, find_devices
from datapruner.outputs import exports
from datapruner.progress import Progress, Silent
from datapruner.request.config import DEFAULT_MODEL
from datapruner.rewriting import run as rewriting
from datapruner.rewriting import tables
from datapruner.rewriting.rehearsal import rehearse
from datapruner.rewriting.training import TrainingRows
from datapruner.rows import row_files
from datapruner.system import files
from datapruner.system.panics import contained
from datapruner.teacher import Estimate, TeacherSettings

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True, repr=False)
class Rewrites:
    """A published rewriting run, and everything that came of it. Tables are read when asked for."""

    run: rewriting.RewriteRun
    home: Path

    def __repr__(self) -> str:
        return repr(self.run).replace("RewriteRun", "Rewrites", 1)

    @property
    def report(self) -> rewriting.Report:
        """Counts, tokens, reasons; ingested = rewritten + original + dropped + rejected + errored."""
        return self.run.report

    @cached_property
    def table(self) -> pl.DataFrame:
        """One line per ingested row (`datapruner.rewriting.tables.COLUMNS`)."""
        frame = pl.from_arrow(tables.read(self.run.database, "SELECT * FROM rewrites ORDER BY row"))
        assert isinstance(frame, pl.DataFrame), type(frame)
        return frame

    @cached_property
    def rows(self) -> datasets.Dataset:
        """The rows to train on: `messages`, what was rewritten and why, and what they came with
        (`datapruner.rewriting.training`)."""
        with self._corpus() as corpus:
            return exports.as_dataset(exports.rewritten_rows(self._training(corpus), self.run.document()))

    def export(self, path: str | Path) -> int:
        """Write the rows to train on as .parquet, .csv or .jsonl, `<name>.rewrite.json` beside it; how many.

        Raises UsageError when the file cannot be written.
        """
        target = Path(path)
        row_files.check_target(target)
        document = self.run.document()
        with self._corpus() as corpus:
            count = row_files.write(target, exports.rewritten_rows(self._training(corpus), document))
        files.write_json(target.with_suffix(".rewrite.json"), document)
        return count

    def _training(self, corpus: Corpus) -> TrainingRows:
        kept = self.table.filter(pl.col("text").is_not_null())["row"].to_list()
        return TrainingRows(self.run.database, corpus, kept, self.run.config.pattern)

    def _corpus(self) -> Corpus:
        return Corpus(self.home / "corpora" / f"{self.run.lineage['corpus']}.duckdb")


@contained()
def rewrite(
    source: Any,
    method: str = "asap",
    *,
    max_tokens: int | None = None,
    max_token_ratio: float | None = None,
    options: Mapping[str, Any] | None = None,
    pattern: str | None = None,
    answers: str | None = None,
    teacher: Any = None,
    mapping: Mapping[str, str] | None = None,
    model: str = DEFAULT_MODEL,
    dtype: str = "auto",
    max_length: int | None = None,
    overflow: str = "truncate",
    train_on: str = "all",
    device: str = "auto",
    token_budget: int | None = None,
    home: str | Path | None = None,
    progress: Progress | None = None,
) -> Rewrites:
    """Shorten the chains of thought of a corpus.

    Reasoning is looked for in `<think>` blocks, into which ingest folds reasoning columns, or by `pattern`:
    an RE2 pattern over the response with a group named "reasoning". `max_tokens` and `max_token_ratio` (of
    the reasoning's tokens) are ASAP's budget; `options` are the method's. `answers` names the original
    column with the right ones, `teacher` is a `datapruner.teacher.Teacher`, for methods that ask one. The
    other arguments are those of `prune`, and so are the errors raised.
    """
    budget = {"max_tokens": max_tokens, "max_token_ratio": max_token_ratio}
    given = dict(options or {}) | {name: value for name, value in budget.items() if value is not None}
    named = str(source) if isinstance(source, str | Path) and str(source) != "-" else None
    measuring = {
        "model": model,
        "dtype": dtype,
        "max_length": max_length,
        "overflow": overflow,
        "train_on": train_on,
    }
    about = {
        "source": named,
        "mapping": dict(mapping or {}),
        "measuring": measuring,
        "method": method,
        "options": given,
        "pattern": pattern,
        "answers": answers,
    }
    config, place = _config(about), settings.made_home(home)
    machine = Machine(find_devices(device), token_budget)
    return Rewrites(rewriting.execute(config, source, place, machine, progress or Silent(), teacher), place)


@contained()
def estimate_rewrite(
    source: Any,
    method: str,
    *,
    teacher: TeacherSettings,
    options: Mapping[str, Any] | None = None,
    pattern: str | None = None,
    answers: str | None = None,
    mapping: Mapping[str, str] | None = None,
    home: str | Path | None = None,
    progress: Progress | None = None,
) -> Estimate:
    """What `rewrite` with these arguments would ask of a teacher, and what that would cost; nothing is asked.

    Raises UsageError and InputError as `rewrite` does.
    """
    about = {
        "mapping": dict(mapping or {}),
        "method": method,
        "options": dict(options or {}),
        "pattern": pattern,
        "answers": answers,
    }
    return rehearse(_config(about), source, settings.made_home(home), progress or Silent(), teacher)


def _config(about: Mapping[str, Any]) -> rewriting.RewriteConfig:
    return validation.made(rewriting.RewriteConfig, **about)
