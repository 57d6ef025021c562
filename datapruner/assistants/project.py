"""A project of a service, as assistants look at it: each call is one of the service's own, for the caller."""

from __future__ import annotations

from typing import Any

import orjson

from datapruner.assistants.source import Dataset, DatasetLine, RunDetail, RunLine, SqlRows
from datapruner.errors import BusyError, DeniedError, UsageError
from datapruner.request.config import RunConfig
from datapruner.schemas.datasets import DatasetAnswer
from datapruner.schemas.ranking import RankedRows, Ranking
from datapruner.schemas.runs import RunAnswer
from datapruner.schemas.sql import SqlRequest
from datapruner.service import datasets, run_pages, runs, sql
from datapruner.service.instance import Service
from datapruner.service.tokens import Caller


class ProjectSource:
    """The project of `caller`, whose token has the scope `read`; SQL needs `sql` as well."""

    sql_tables = (
        "each dataset is a schema: samples, turns, rejects, originals of its latest version; sample_scores, "
        'token_scores, masks of its latest run; "RUN" is a schema of that run; datasets and runs list them'
    )

    def __init__(self, service: Service, caller: Caller) -> None:
        self._service, self._caller = service, caller
        self._statements: list[sql.Statement] = []
        self._ended = False

    def end(self) -> None:
        """End what is asked by SQL, now and later: nobody waits for it. May come from another thread."""
        self._ended = True
        for statement in list(self._statements):
            statement.end()

    def datasets(self, limit: int, after: str | None) -> list[DatasetLine]:
        before = None if after is None else datasets.show(self._service, self._caller, after).id
        found = datasets.listing(self._service, self._caller, limit=limit, before=before)
        return [DatasetLine(**_dataset(each)) for each in found]

    def dataset(self, name: str) -> Dataset:
        found = datasets.show(self._service, self._caller, name)
        report = {} if found.latest is None else found.latest.report
        return Dataset(
            **_dataset(found),
            shapes=report.get("shapes", {}),
            columns=report.get("columns", {}),
            rejects=report.get("rejects", {}),
        )

    def runs(self, dataset: str | None, limit: int, after: str | None) -> list[RunLine]:
        found = runs.listing(self._service, self._caller, limit=limit, before=after, dataset=dataset)
        return [RunLine(**_run(each)) for each in found]

    def run(self, run: str) -> RunDetail:
        found = runs.show(self._service, self._caller, run)
        report = found.report or {}
        return RunDetail(
            **_run(found),
            config=found.config,
            lineage=found.lineage or {},
            report=report,
            scores=report.get("scores", []),
            measured=found.measured,
        )

    def ranked(self, run: str, asked: Ranking) -> RankedRows:
        return run_pages.ranked(self._service, self._caller, run, asked)

    def explain(self, run: str, sample: str) -> dict[str, Any]:
        return runs.explain(self._service, self._caller, run, sample.removeprefix("row:")).model_dump()

    def sql(self, query: str, run: str | None, rows: int) -> SqlRows:
        if "sql" not in self._caller.scopes:
            raise DeniedError("the token lacks the scope sql", remedy="use a token with the scope sql")
        if run is not None:
            raise UsageError(
                "a service's statements name their run", remedy=f'as in "{run}".sample_scores', field="run"
            )
        wanted = SqlRequest(sql=query, max_rows=rows)
        statement = sql.Statement(self._service, self._caller, wanted, "json")
        self._statements.append(statement)
        if self._ended:  # before `end` could know of it
            statement.end()
        found = statement.run()
        if found is None:
            raise BusyError("nobody waits for the answer of the statement any more")
        return SqlRows.model_validate(orjson.loads(bytes(found.content)))


def _dataset(found: DatasetAnswer) -> dict[str, Any]:
    latest = found.latest
    return {
        "name": found.name,
        "source": None if found.source is None else orjson.dumps(found.source).decode(),
        "rows": latest and latest.rows,
        "accepted": latest and latest.accepted,
        "rejected": latest and latest.rejected,
        "duplicates": latest and latest.duplicates,
        "version": latest and latest.number,
    }


def _run(found: RunAnswer) -> dict[str, Any]:
    report = found.report or {}
    return {
        "run": found.id,
        "title": RunConfig(**found.config).title,
        "dataset": found.dataset,
        "state": found.state,
        "published_at": found.published_at,
        "ingested": report.get("ingested"),
        "kept": report.get("kept"),
        "verdict": found.verdict,
    }
