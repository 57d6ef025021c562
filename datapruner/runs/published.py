"""Published runs: what is in their files, and how they are found again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from datapruner.errors import UsageError
from datapruner.measuring.signal_cache import ProxyKey
from datapruner.request.config import RunConfig, find
from datapruner.runs import folders
from datapruner.validation import first_problem


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the input: ingested = kept + pruned + rejected + errored (scored counts as kept).

    `duplicates` are exact copies of other rows, `reasons` says how many rows each reason accounts for. Tokens
    are response tokens, 0 where nothing was measured; `kept_tokens` those trained on in what is exported, 0
    without methods, which count them. `stages`: counts of a recipe's stages and of rewriting, by stage and
    name; of each, `dropped` are the rows that it took away. `scores`: columns that the methods rank by.
    `warnings`: what to mind of the result (`datapruner.runs.cautions`).
    `truncated_sources`: those that broke off, with where and why; their other rows are missing.
    """

    ingested: int
    kept: int
    pruned: int
    rejected: int
    errored: int
    duplicates: int
    response_tokens: int
    kept_tokens: int
    truncated_tokens: int
    shapes: dict[str, int] = field(repr=False)
    reasons: dict[str, int] = field(repr=False)
    quadrants: dict[str, int] = field(repr=False)
    thresholds: dict[str, float] = field(repr=False)
    stages: dict[str, dict[str, int]] = field(default_factory=dict, repr=False)
    scores: list[str] = field(default_factory=list, repr=False)
    warnings: list[str] = field(default_factory=list, repr=False)
    truncated_sources: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, repr=False)
class Run:
    """A published run and what it took. `measured` samples went through the proxy model for it."""

    run_id: str
    folder: Path
    config: RunConfig
    lineage: dict[str, Any]
    report: Report
    measured: int
    seconds: float

    def __repr__(self) -> str:
        what = "kept" if self.config.has_subset else "scored"
        counts = f"{self.report.kept:,} of {self.report.ingested:,} rows {what}"
        return f"Run({self.run_id[:12]}, {self.config.title}: {counts})"

    @property
    def database(self) -> Path:
        """The DuckDB file with sample_scores, masks, scored and, where it rewrote, rewrites."""
        return folders.database(self.folder)

    @property
    def tokens(self) -> Path:
        """The Parquet file with token_scores."""
        return folders.tokens(self.folder)


def load(run_id: str, home: Path) -> Run:
    """A published run by its id, or by the start of it. Raises UsageError."""
    return read(folders.find(run_id, home))


def latest(home: Path) -> Run:
    """The run published last. Raises UsageError when there is none."""
    return read(folders.latest(home))


def history(home: Path) -> Iterable[Run]:
    """Published runs, the newest first."""
    return map(read, folders.newest_first(home))


def read(folder: Path) -> Run:
    """The run published in `folder`."""
    document = folders.read_document(folder / "run.json")
    return Run(
        run_id=document["run"],
        folder=folder,
        config=RunConfig(**document["config"]),
        lineage=document["lineage"],
        report=Report(**document["report"]),
        measured=0,
        seconds=0.0,
    )


def corpus_path(run: Run, home: Path) -> Path:
    """The corpus that a run read."""
    return folders.corpus(run.lineage, home)


def signal_folders(lineage: Mapping[str, Any]) -> set[str]:
    """Names of the folders of the signals that a run read, those of its views, embeddings and rewards among
    them."""
    proxies = [lineage.get("proxy"), lineage.get("embedder"), lineage.get("reward_model")]
    proxies += [view["proxy"] for view in lineage.get("views", {}).values()]
    return {ProxyKey(**proxy).digest() for proxy in proxies if proxy is not None}


def replayed(document: Mapping[str, Any]) -> RunConfig:
    """The configuration in a run file. Raises UsageError when it, or a method in it, is not known here."""
    try:
        config = RunConfig(**document["config"])
    except ValidationError as error:
        wrong = first_problem(error, "config")
        raise UsageError(f"run file, {wrong.message}", remedy=wrong.remedy) from error
    for choice in config.methods:
        find(choice.name)
        choice.parsed()
    return config
