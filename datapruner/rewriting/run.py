"""A rewriting run: ingest -> measure -> find the reasoning -> rewrite -> publish.

Files below the home folder: `runs/{id}/run.duckdb` with the table `rewrites`, and `runs/{id}/rewrite.json`.
The id is a hash of all that decides the result, as for pruning runs, whose own file is called `run.json`.

Notable choices:
- signals come from the cache that pruning fills: reasoning in the response is measured with it, so a corpus
  that was once scored is rewritten without the proxy model;
- a copy of a row fares as the row it copies, so that a corpus keeps its proportions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from datapruner.corpora import store
from datapruner.corpora.corpus import Corpus
from datapruner.errors import InputError, NothingSurvivedError, UsageError
from datapruner.measuring.measure import Machine, Measurement, Pass, measure, proxy_for
from datapruner.progress import Progress
from datapruner.request.config import Measuring
from datapruner.request.parts import Rewrite
from datapruner.rewriting import methods, tables
from datapruner.rewriting.asap import over_budget
from datapruner.rewriting.rows import check, rewritten
from datapruner.system import blocks, files
from datapruner.system.files import clear_unfinished, unfinished

DOCUMENT = "rewrite.json"
_PACKAGES = ("datapruner", "torch", "transformers", "tokenizers", "numpy")


class RewriteConfig(BaseModel):
    """Everything that decides a result besides the rows and the package versions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str | None = None
    mapping: dict[str, str] = {}
    measuring: Measuring = Measuring()
    method: str
    options: dict[str, Any] = {}
    pattern: str | None = None
    answers: str | None = None

    @property
    def wanted(self) -> Rewrite:
        """How to rewrite, without what is read and measured."""
        return Rewrite(method=self.method, options=self.options, pattern=self.pattern, answers=self.answers)


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the input: ingested = rewritten + original + dropped + rejected + errored.

    Tokens and steps are those of reasoning in rows whose text can be trained on. `reasons` and `levels` say
    how many rows each accounts for. `stage`: what the method did. `warnings`: where it could not do what was
    asked.
    """

    ingested: int
    rewritten: int
    original: int
    dropped: int
    rejected: int
    errored: int
    tokens_before: int
    tokens_after: int
    steps_before: int
    steps_after: int
    reasons: dict[str, int] = field(repr=False)
    levels: dict[str, int] = field(repr=False)
    stage: str = field(repr=False)
    warnings: list[str] = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True, repr=False)
class RewriteRun:
    """A published rewriting run. `measured` samples went through the proxy model for it."""

    run_id: str
    folder: Path
    config: RewriteConfig
    lineage: dict[str, Any]
    report: Report
    measured: int = 0
    seconds: float = 0.0

    def __repr__(self) -> str:
        counts = f"{self.report.rewritten:,} of {self.report.ingested:,} rows rewritten"
        return f"RewriteRun({self.run_id[:12]}, {self.config.method}: {counts})"

    @property
    def database(self) -> Path:
        """The DuckDB file with the table `rewrites`."""
        return self.folder / "run.duckdb"

    def document(self) -> dict[str, Any]:
        """What the run's JSON file says."""
        return {
            "rewrite": self.run_id,
            "config": self.config.model_dump(mode="json"),
            "lineage": self.lineage,
            "report": asdict(self.report),
        }


def execute(
    config: RewriteConfig, rows: Any, home: Path, machine: Machine, progress: Progress, teacher: Any = None
) -> RewriteRun:
    """Do what `config` says to `rows` (a path, Hub name, table or iterable of rows) and publish it.

    `teacher` is for methods that ask one: an asynchronous context manager as in `datapruner.teacher`. Raises
    DataprunerError: InputError, ModelError, UsageError, NothingSurvivedError, WorkerError, or what stops a
    teacher; a row that fails is in the table with its reason.
    """
    method = methods.find(config.method)
    check(config.wanted)
    if method.asks_teacher and teacher is None:
        raise UsageError(f"method {method.name} asks a teacher, and none is given", field="teacher")
    path = store.ingest_to(rows, config.mapping, home, progress)
    with Corpus(path) as corpus:
        counts = corpus.counts()
        progress.stage("finding the proxy model", None, "steps")
        proxy = proxy_for(config.measuring, machine.models or home, machine.devices)
        lineage = _lineage(corpus, proxy)
        measurement: Measurement | None = None
        if method.asks_teacher:
            lineage["teacher"] = teacher.settings.model
        else:
            measurement = measure(corpus, proxy, home, machine, progress=progress)
        lines = rewritten(
            corpus, config.wanted, proxy.proxy, progress, measurement=measurement, teacher=teacher
        )
        document = {"config": config.model_dump(mode="json"), "lineage": lineage, "rewrite": True}
        run_id = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
        folder = home / "runs" / run_id
        folder.mkdir(parents=True, exist_ok=True)
        clear_unfinished(folder)
        temporary = unfinished(folder / "run.duckdb")
        try:
            index = corpus.sample_index()
            blocks.create(temporary, index)
            tables.write(temporary, lines, index, corpus.rejects())
            report = _report(temporary, counts.rows, method.stage)
            temporary.replace(folder / "run.duckdb")
        finally:
            temporary.unlink(missing_ok=True)
    run = RewriteRun(
        run_id,
        folder,
        config,
        lineage,
        report,
        measured=0 if measurement is None else measurement.measured,
        seconds=0.0 if measurement is None else measurement.seconds,
    )
    files.write_json(folder / DOCUMENT, run.document())
    if report.rewritten + report.original == 0:
        raise NothingSurvivedError(
            f"nothing survived: {report.ingested} rows in, none left to train on",
            remedy=f"mostly: {next(iter(report.reasons), 'there were no rows')}",
        )
    return run


def _report(database: Path, ingested: int, stage: str) -> Report:
    counts = dict(_pairs(database, "status"))
    assert sum(counts.values()) == ingested, f"{ingested} rows in, {sum(counts.values())} accounted for"
    [totals] = tables.read(
        database,
        "SELECT sum(tokens_before) AS tokens_before, sum(tokens_after) AS tokens_after, "
        "sum(len(steps)) AS steps_before, sum(len(list_filter(steps, lambda s: s.kept))) AS steps_after "
        "FROM rewrites WHERE text IS NOT NULL",
    ).to_pylist()
    return Report(
        ingested=ingested,
        rewritten=counts.get("rewritten", 0),
        original=counts.get("original", 0),
        dropped=counts.get("dropped", 0),
        rejected=counts.get("rejected", 0),
        errored=counts.get("error", 0),
        reasons=dict(_pairs(database, "reason")),
        levels=dict(_pairs(database, "level")),
        stage=stage,
        warnings=list(over_budget(database)),
        **{name: int(value or 0) for name, value in totals.items()},
    )


def _pairs(database: Path, column: str) -> Iterator[tuple[str, int]]:
    """How often each value of a column occurs, the commonest first."""
    found = tables.read(
        database,
        f"SELECT {column} AS value, count(*) AS rows FROM rewrites "  # noqa: S608 (one of our columns)
        "WHERE value IS NOT NULL GROUP BY value ORDER BY rows DESC, value LIMIT 30",
    )
    return zip(found["value"].to_pylist(), found["rows"].to_pylist(), strict=True)


def _lineage(corpus: Corpus, proxy: Pass) -> dict[str, Any]:
    return {
        "corpus": corpus.path.stem,
        "corpus_hash": corpus.provenance.corpus_hash,
        "sources": corpus.provenance.sources,
        "proxy": asdict(proxy.key),
        "proxy_source": proxy.proxy.source,
        "packages": {name: version(name) for name in _PACKAGES},
    }


def load(run_id: str, home: Path) -> RewriteRun | None:
    """The rewriting run whose id starts so; None when there is none. Raises UsageError for more than one."""
    found = [path for path in (home / "runs").glob(f"*/{DOCUMENT}") if path.parent.name.startswith(run_id)]
    if len(found) > 1:
        raise UsageError(f"{len(found)} rewriting runs have ids that start with {run_id!r}")
    return read(found[0]) if found else None


def read(path: Path) -> RewriteRun:
    """The rewriting run that a `rewrite.json` describes. Raises InputError when it is none."""
    try:
        document: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return RewriteRun(
            document["rewrite"],
            path.parent,
            RewriteConfig(**document["config"]),
            document["lineage"],
            Report(**document["report"]),
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not the file of a rewriting run: {error}") from error
