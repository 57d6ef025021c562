"""A run as events of OpenLineage: it started, and it completed, failed or was stopped.

Where events go says the official client's own configuration: OPENLINEAGE_URL, or openlineage.yml. Jobs are in
OPENLINEAGE_NAMESPACE, by default `datapruner`; OPENLINEAGE_PARENT_ID, as in `namespace/job/run-id`, names the
run that ours is part of, as it does for other tools. Names of datasets follow the specification's rules
(openlineage.io/docs/spec/naming); of the Hub, for which it has none, hf://datasets and the repository's name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import duckdb
import pyarrow.parquet as pq

from datapruner.corpora.corpus import Corpus
from datapruner.reporting.dotted import flat
from datapruner.request.config import RunConfig
from datapruner.runs.columns import COLUMNS
from datapruner.runs.published import Run

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, RunState
    from openlineage.client.facet_v2 import DatasetFacet, RunFacet

NAMESPACE = "datapruner"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_LIKE_S3 = ("s3a", "s3n")
_LONGEST = 2000


@dataclass(frozen=True, slots=True)
class Places:
    """Where rows come from and go to as others know it, where that is not what the run says: `source` of its
    rows, `scores` of its tables; `rows`: what they are called."""

    source: str | None = None
    scores: str | None = None
    rows: str | None = None


def dataset_name(place: str) -> tuple[str, str]:
    """Namespace and name of the rows at a path, an object store's address, or under a name on the Hub."""
    scheme, colon, _ = place.partition("://")
    if colon and scheme != "file":
        parts = urlsplit(place)
        kind = "s3" if scheme in _LIKE_S3 else scheme
        name = parts.path.strip("/")
        user, _, host = parts.netloc.rpartition("@")
        host = host if ":" in user else parts.netloc  # without a password
        return f"{kind}://{host}", name if scheme in ("hf", "s3", "gs", *_LIKE_S3) else f"/{name}"
    path = Path(urlsplit(place).path if colon else place)
    if not colon and _HUB_NAME.fullmatch(place) and not path.exists():
        return "hf://datasets", place
    return "file", path.absolute().as_posix()


class Events:
    """The events of one run. `about`: tags."""

    def __init__(self, config: RunConfig, about: Mapping[str, str], places: Places) -> None:
        self._config, self._about, self._places = config, about, places
        self._source = places.source or config.source
        self._producer = f"pkg:pypi/datapruner@{version('datapruner')}"

    def started(self) -> None:
        """Raises what the client does, and ValueError where it has not been told where events go, or what is
        told of the run around this one cannot be read."""
        from openlineage.client.event_v2 import RunState

        self._emit(RunState.START, {}, self._inputs(None), [])

    def completed(self, run: Run, corpus: Path, written: Iterable[tuple[Path, int]]) -> None:
        """`written`: files or folders that came of it, with their rows. Raises as `started`."""
        from openlineage.client.event_v2 import RunState

        with Corpus(corpus) as read:
            inputs = self._inputs(read)
        made = [self._scores(run), *(self._output(path, rows) for path, rows in written)]
        self._emit(RunState.COMPLETE, self._tags(run), inputs, made)

    def failed(self, error: BaseException, *, stopped: bool) -> None:
        """Raises as `started`."""
        from openlineage.client.event_v2 import RunState
        from openlineage.client.facet_v2 import error_message_run

        said = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
        facets: dict[str, RunFacet] = {
            "errorMessage": error_message_run.ErrorMessageRunFacet(said, "python", producer=self._producer)
        }
        state = RunState.ABORT if stopped else RunState.FAIL
        self._emit(state, {} if stopped else facets, self._inputs(None), [])

    @cached_property
    def _client(self) -> OpenLineageClient:
        from openlineage.client import OpenLineageClient

        client = OpenLineageClient()
        if client.transport.kind == "console" and not (client.config.transport or {}).get("type"):
            raise ValueError("it is not said where events go: set OPENLINEAGE_URL, or write openlineage.yml")
        return client

    @cached_property
    def _run_id(self) -> str:
        from openlineage.client.uuid import generate_new_uuid

        return str(generate_new_uuid())

    def _emit(
        self,
        state: RunState,
        facets: Mapping[str, RunFacet],
        inputs: list[InputDataset],
        outputs: list[OutputDataset],
    ) -> None:
        from openlineage.client import event_v2

        self._client.emit(
            event_v2.RunEvent(
                eventType=state,
                eventTime=datetime.now(UTC).isoformat(),
                run=event_v2.Run(self._run_id, {**self._facets(), **facets}),
                job=self._job(),
                inputs=inputs,
                outputs=outputs,
                producer=self._producer,
            )
        )

    def _job(self) -> Job:
        from openlineage.client import event_v2
        from openlineage.client.facet_v2 import documentation_job, job_type_job

        config = self._config
        verb = "prune" if config.keep is not None else "rewrite" if config.rewrite is not None else "score"
        of = self._places.rows or (PurePath(self._source).name if self._source else "rows")
        kind = job_type_job.JobTypeJobFacet(
            "BATCH", "DATAPRUNER", jobType=verb.upper(), producer=self._producer
        )
        said = documentation_job.DocumentationJobFacet(config.title, producer=self._producer)
        namespace = os.environ.get("OPENLINEAGE_NAMESPACE") or NAMESPACE
        return event_v2.Job(namespace, f"{verb}.{of}", {"jobType": kind, "documentation": said})

    def _facets(self) -> dict[str, RunFacet]:
        from openlineage.client.facet_v2 import execution_parameters_run, parent_run, processing_engine_run

        wanted = flat(self._config.model_dump(mode="json", exclude_none=True))
        parameters = [
            execution_parameters_run.ExecutionParameter(key=key, value=value[:_LONGEST])
            for key, value in wanted
        ]
        found: dict[str, RunFacet] = {
            "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
                version("datapruner"), "datapruner", version("openlineage-python"), producer=self._producer
            ),
            "executionParameters": execution_parameters_run.ExecutionParametersRunFacet(
                parameters, producer=self._producer
            ),
        }
        if around := os.environ.get("OPENLINEAGE_PARENT_ID"):
            if around.count("/") < 2:
                raise ValueError("OPENLINEAGE_PARENT_ID is not of the form namespace/job/run-id")
            namespace, job, run = around.rsplit("/", 2)
            found["parent"] = parent_run.ParentRunFacet(
                parent_run.Run(run), parent_run.Job(namespace, job), producer=self._producer
            )
        return found

    def _tags(self, run: Run) -> dict[str, RunFacet]:
        from openlineage.client.facet_v2 import tags_run

        tags = {"datapruner.run": run.run_id, **self._about} | dict(flat(run.lineage, "lineage"))
        fields = [
            tags_run.TagsRunFacetFields(name, value[:_LONGEST], "DATAPRUNER") for name, value in tags.items()
        ]
        return {"tags": tags_run.TagsRunFacet(fields, producer=self._producer)}

    def _inputs(self, corpus: Corpus | None) -> list[InputDataset]:
        """What the run reads; of its rows, how many there are, once they were read."""
        from openlineage.client import event_v2
        from openlineage.client.facet_v2 import (
            data_quality_metrics_input_dataset,
            dataset_version_dataset,
            input_statistics_input_dataset,
        )

        place = self._source or (None if corpus is None else str(corpus.path))
        target = self._config.target
        aims = [target] if isinstance(target, str) else list((target or {}).values())
        found = [event_v2.InputDataset(*dataset_name(aim)) for aim in aims]
        if place is None:
            return found
        rows = event_v2.InputDataset(*dataset_name(place))
        if corpus is not None:
            about, counts = corpus.provenance, corpus.counts()
            sizes = [each["size"] for each in about.sources if "size" in each]
            size = sum(sizes) if sizes else None
            files = len(about.sources)
            schema = about.schema
            rows.facets = {
                "version": dataset_version_dataset.DatasetVersionDatasetFacet(
                    about.corpus_hash, producer=self._producer
                ),
            }
            if schema is not None:
                rows.facets |= self._schema({each.name: str(each.type) for each in schema})
            rows.inputFacets = {
                "inputStatistics": input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
                    counts.rows, size, files, producer=self._producer
                ),
                "dataQualityMetrics": data_quality_metrics_input_dataset.DataQualityMetricsInputDatasetFacet(
                    {}, counts.rows, size, files, producer=self._producer
                ),
            }
        return [rows, *found]

    def _scores(self, run: Run) -> OutputDataset:
        """The table with a line for every row that the run read."""
        with duckdb.connect(str(run.database), read_only=True) as connection:
            columns = dict(
                connection.execute("SELECT column_name, column_type FROM (DESCRIBE sample_scores)").fetchall()
            )
        place = self._places.scores or str(run.database)
        return self._dataset(place, columns, run.report.ingested, run.database)

    def _output(self, path: Path, rows: int) -> OutputDataset:
        columns = {}
        if path.suffix == ".parquet" and path.is_file():
            columns = {each.name: str(each.type) for each in pq.read_schema(path)}
        return self._dataset(str(path), columns, rows, path)

    def _dataset(self, place: str, columns: Mapping[str, str], rows: int, path: Path) -> OutputDataset:
        from openlineage.client import event_v2
        from openlineage.client.facet_v2 import output_statistics_output_dataset

        files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
        size = sum(each.stat().st_size for each in files)
        made = event_v2.OutputDataset(*dataset_name(place))
        made.facets = self._schema(columns) if columns else {}
        made.outputFacets = {
            "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                rows, size, len(files), producer=self._producer
            )
        }
        return made

    def _schema(self, columns: Mapping[str, str]) -> dict[str, DatasetFacet]:
        from openlineage.client.facet_v2 import schema_dataset

        known = {name: column.meaning for name, column in COLUMNS.items()}
        fields = [
            schema_dataset.SchemaDatasetFacetFields(name, kind, known.get(name), ordinal_position=place)
            for place, (name, kind) in enumerate(columns.items(), 1)
        ]
        return {"schema": schema_dataset.SchemaDatasetFacet(fields, producer=self._producer)}
