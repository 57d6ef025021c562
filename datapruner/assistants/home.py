"""The runs of a home folder, as assistants look at them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from io import BytesIO
from itertools import dropwhile, islice
from pathlib import Path
from typing import Any, TypeVar

import orjson

from datapruner.assistants.source import Dataset, DatasetLine, RunDetail, RunLine, SqlRows
from datapruner.corpora.corpus import Corpus
from datapruner.errors import NotFoundError, UsageError
from datapruner.explaining import explain
from datapruner.query import results
from datapruner.query.sandbox import QueryLimits, run_sql
from datapruner.reporting.ranking import ranked
from datapruner.runs import evaluations, folders, named, published
from datapruner.runs.published import Run
from datapruner.schemas.ranking import RankedRows, Ranking

T = TypeVar("T")
_SECONDS = 10.0


class HomeSource:
    """`home`: the folder. Datasets are the corpora that its runs read, by the start of their hashes."""

    sql_tables = (
        "sample_scores (one line per input row), masks and token_scores of the run, and its corpus as "
        "corpus.samples, corpus.turns, corpus.rejects and corpus.originals"
    )

    def __init__(self, home: Path) -> None:
        self._home = home

    def datasets(self, limit: int, after: str | None) -> list[DatasetLine]:
        found = {run.lineage["corpus"]: run for run in published.history(self._home)}
        lines = (self._dataset(run) for run in found.values())
        return list(islice(_after(lines, after, lambda line: line.name), limit))

    def dataset(self, name: str) -> Dataset:
        runs = [run for run in published.history(self._home) if run.lineage["corpus"].startswith(name)]
        if len({run.lineage["corpus"] for run in runs}) > 1:
            raise UsageError(f"several datasets begin with {name}", remedy="list_datasets has their names")
        path = None if not runs else published.corpus_path(runs[0], self._home)
        if path is None or not path.is_file():
            raise NotFoundError(f"there is no dataset {name}", remedy="list_datasets has their names")
        with Corpus(path) as corpus:
            about = corpus.provenance
            codes = Counter(corpus.rejects()["code"].to_list())
        line = self._dataset(runs[0]).model_dump()
        return Dataset(**line, shapes=about.shapes, columns=about.columns, rejects=dict(codes))

    def runs(self, dataset: str | None, limit: int, after: str | None) -> list[RunLine]:
        found = (
            run
            for run in published.history(self._home)
            if dataset is None or run.lineage["corpus"].startswith(dataset)
        )
        return [_line(run) for run in islice(_after(found, after, lambda run: run.run_id), limit)]

    def run(self, run: str) -> RunDetail:
        found = named.find(run, self._home)
        return RunDetail(
            **_line(found).model_dump(),
            config=found.config.model_dump(mode="json", exclude_none=True),
            lineage=found.lineage,
            report=asdict(found.report),
            scores=found.report.scores,
            measured=None,
        )

    def ranked(self, run: str, asked: Ranking) -> RankedRows:
        found = named.find(run, self._home)
        return ranked(found, published.corpus_path(found, self._home), asked)

    def explain(self, run: str, sample: str) -> dict[str, Any]:
        wanted = f"row:{sample}" if sample.isascii() and sample.isdecimal() else sample
        return asdict(explain.explain(run, wanted, self._home))

    def sql(self, query: str, run: str | None, rows: int) -> SqlRows:
        found = named.find(run or "latest", self._home)
        corpus = published.corpus_path(found, self._home)
        databases = {"": [found.database, folders.tokens(found.folder)]}
        databases |= {"corpus": [corpus]} if corpus.is_file() else {}
        limits = QueryLimits(rows=rows, seconds=_SECONDS)
        result = run_sql(query, databases, limits=limits)
        with BytesIO() as file:
            results.write_to(file, result, "json")
            return SqlRows.model_validate(orjson.loads(file.getvalue()) | {"truncated": result.truncated})

    def _dataset(self, run: Run) -> DatasetLine:
        said = run.report
        return DatasetLine(
            name=run.lineage["corpus"][:16],
            source=run.config.source,
            rows=said.ingested,
            accepted=said.ingested - said.rejected,
            rejected=said.rejected,
            duplicates=said.duplicates,
        )


def _line(run: Run) -> RunLine:
    last = evaluations.latest(run.folder)
    moment = (run.folder / folders.DOCUMENT).stat().st_mtime
    return RunLine(
        run=run.run_id,
        title=run.config.title,
        dataset=run.lineage["corpus"][:16],
        state="succeeded",
        published_at=datetime.fromtimestamp(moment, UTC),
        ingested=run.report.ingested,
        kept=run.report.kept,
        verdict=None if last is None else last.verdict,
    )


def _after(items: Iterable[T], after: str | None, name: Any) -> Iterator[T]:
    """Those after the one of this name."""
    if after is None:
        return iter(items)
    return islice(dropwhile(lambda item: name(item) != after, items), 1, None)
