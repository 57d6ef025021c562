"""The commands that work on this machine or, with --url, at a service: what they do there.

Notable choices:
- a job goes on at the service when the one who waits is interrupted; the command says how to end it;
- what is shown and written is what the local command shows and writes, as far as it can be known from here.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.console import RenderableType

from datapruner.client import Client, RunOptions, SubsetFormat
from datapruner.commands import answers, display, ending, sets, verdicts
from datapruner.commands.display import Output
from datapruner.errors import NotFoundError, UsageError
from datapruner.explaining.explanation import Explanation
from datapruner.progress import Progress
from datapruner.query.results import QueryResult
from datapruner.request.config import RunConfig
from datapruner.rows.formats import ExportFormat, export_with
from datapruner.runs import folders, published
from datapruner.schemas.evaluations import Evaluation
from datapruner.schemas.jobs import JobAnswer
from datapruner.schemas.reports import RunReport
from datapruner.schemas.runs import Comparison, RunAnswer
from datapruner.system import files

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")  # of a dataset, or its id
_REJECTS = 5


def only_here(**given: bool) -> None:
    """Refuse options that a service has no use for. Raises UsageError."""
    for name, is_given in given.items():
        if is_given:
            raise UsageError(
                f"--{name.replace('_', '-')} is not for a service",
                remedy="leave it out, or do it here without --url",
                field=name,
            )


def prune(
    url: str,
    source: str,
    mapping: dict[str, str],
    wanted: RunOptions,
    out: Path | None,
    plain: Path | None,
    output: Output,
) -> None:
    """Prune a file or a dataset of the service, and fetch what --out and --plain ask for."""
    formats: dict[str, tuple[Path, ExportFormat]] = {}
    if out is not None:
        formats["subset"] = (out, export_with(out.suffix, plain=False))
    if plain is not None:
        formats["plain rows"] = (plain, export_with(plain.suffix, plain=True))
    is_dataset = bool(_NAME.fullmatch(source)) and not Path(source).exists()
    only_here(map=is_dataset and bool(mapping))
    exports: dict[ExportFormat, str] = {}
    with (
        Client(url) as client,
        sending(None if is_dataset else source) as file,
        output.progress() as progress,
    ):
        wanted = sets.brought(client, wanted, lambda job: wait(client, job, progress, output))
        if file is not None:
            first: SubsetFormat = (
                "plain-jsonl" if [*formats.values()][:1] == [(plain, "plain-jsonl")] else "parquet"
            )
            progress.stage("sending", None, "bytes")
            job = client.start_prune(file, mapping=mapping, export=first, **wanted)
            done = wait(client, job, progress, output)
            exports[first] = came(done, "export_id")
        else:
            done = wait(client, client.runs.start_create(source, **wanted), progress, output)
        run = client.runs.get(came(done, "run_id"))
        written: dict[str, tuple[Path, int]] = {}
        for what, (path, format_) in formats.items():
            if format_ not in exports:
                job = client.exports.start_create(run.id, format_)
                exports[format_] = came(wait(client, job, progress, output), "export_id")
            written[what] = (path, fetch(client, exports[format_], path, progress))
        evaluated = _evaluation(client, done) if done.result and done.result.evaluation_id else None
        _finish(client, output, run, written, evaluated)


def score(url: str, source: str, wanted: RunOptions, output: Output) -> None:
    """Score a dataset of the service."""
    if not _NAME.fullmatch(source) or Path(source).exists():
        remedy = f"send it first: datapruner datasets create NAME {source}"
        raise UsageError(f"{source}: a service scores its own datasets", remedy=remedy)
    with Client(url) as client, output.progress() as progress:
        wanted = sets.brought(client, wanted, lambda job: wait(client, job, progress, output))
        done = wait(client, client.runs.start_create(source, **wanted), progress, output)
        _finish(client, output, client.runs.get(came(done, "run_id")), {})


def evaluate(
    url: str, runs: Sequence[str], held_out: Mapping[str, str], output: Output, **settings: Any
) -> None:
    """Evaluate runs of the service one after another; held-out rows that are files here are sent first."""
    with Client(url) as client, output.progress() as progress:

        def finish(job: JobAnswer) -> JobAnswer:
            return wait(client, job, progress, output)

        there = sets.held_out(client, held_out, finish)
        found = []
        for run in runs:
            run_id = _latest(client).id if run == "latest" else run
            job = client.evaluations.start_create(run_id, held_out=there, **settings)
            found.append(_evaluation(client, finish(job)))
    verdicts.show(output, found)


def _evaluation(client: Client, job: JobAnswer) -> Evaluation:
    """What came of an evaluation's job."""
    shown = client.evaluations.get(came(job, "run_id"), came(job, "evaluation_id")).evaluation
    assert shown is not None, job.id
    return shown


def sql(url: str, query: str, rows: int) -> QueryResult:
    """The rows of a statement."""
    with Client(url) as client:
        found = client.sql(query, max_rows=rows)
    return QueryResult(found.table, found.truncated, found.seconds, found.types)


def explain(url: str, target: str, sample: str) -> Explanation:
    """What the service knows of a sample; `sample` is the start of its id, or `row:12`."""
    kind, _, row = sample.partition(":")
    with Client(url) as client:
        run = _latest(client).id if target == "latest" else target
        found = client.runs.explain(run, int(row) if kind == "row" and row.isdecimal() else sample)
    return TypeAdapter(Explanation).validate_python(found.model_dump())


def report(url: str, target: str, out: Path | None) -> RunReport:
    """The report of a run of the service; its page goes to `out`, if that is given."""
    from datapruner.reporting import page  # few calls do, and its libraries take time

    if out is not None:
        page.check_target(out)
    with Client(url) as client:
        found = client.runs.full_report(_latest(client).id if target == "latest" else target)
    if out is not None:
        page.write(out, found)
    return found


def compare(url: str, first: str, second: str) -> tuple[Comparison, list[RunConfig]]:
    """What two runs of the service make of their samples, and what each was asked to do."""
    with Client(url) as client:
        one, other = (_latest(client) if run == "latest" else client.runs.get(run) for run in (first, second))
        found = client.runs.compare(one.id, other.id)
    return found, [RunConfig.model_validate(run.config) for run in (one, other)]


def _latest(client: Client) -> RunAnswer:
    run = next((run for run in client.runs.list() if run.published_at is not None), None)
    if run is None:
        raise NotFoundError(
            f"there is no run at {client.url} yet", remedy="start one with `datapruner prune`"
        )
    return run


def list_runs(url: str, limit: int, output: Output) -> None:
    """The runs of the service."""
    with Client(url) as client:
        answers.listing(
            output,
            "runs",
            client.runs.list(),
            limit,
            {
                "run": lambda run: run.id,
                "when": lambda run: run.created_at,
                "dataset": lambda run: (
                    run.dataset if run.version is None else f"{run.dataset} v{run.version}"
                ),
                "method": lambda run: RunConfig.model_validate(run.config).title,
                "state": lambda run: run.state,
                "rows": lambda run: run.report and run.report["ingested"],
                "kept": lambda run: (
                    run.report and RunConfig.model_validate(run.config).has_subset and run.report["kept"]
                ),
                "verdict": lambda run: run.verdict,
            },
        )


# Following jobs


class Shown:
    """Draws a job's progress as it is told."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stage: str | None = None
        self._notes = 0

    def __call__(self, job: JobAnswer) -> None:
        at = job.progress
        stage = "waiting for a worker" if job.state == "queued" or at is None else at.stage
        if stage != self._stage:
            self._progress.stage(stage, at.total if at else None, at.unit if at else "")
            self._stage = stage
        if at is None:
            return
        for note in at.notes[self._notes :]:
            self._progress.note(note)
        self._notes = len(at.notes)
        rate = f"{at.tokens_per_second:,.0f} tokens/s" if at.tokens_per_second else ""
        self._progress.at(at.done, at.total, rate)


def wait(client: Client, job: JobAnswer, progress: Progress, output: Output) -> JobAnswer:
    """The job when it has succeeded. Raises what it failed with."""
    try:
        return client.jobs.wait(job.id, progress=Shown(progress))
    except KeyboardInterrupt:
        output.note(f"{job.id} goes on at {client.url}; to end it: datapruner jobs cancel {job.id}")
        raise


def fetch(client: Client, export: str, path: Path, progress: Progress) -> int:
    """Download an export, and write what replays its run and its card beside it; the number of rows."""
    from datapruner.reporting import card as cards  # few commands fetch, and its libraries take time

    progress.stage("fetching", None, "bytes")
    client.exports.download(export, path, progress=progress.at)
    about = client.exports.get(export)
    replays = client.runs.report(about.run_id).model_dump(mode="json")
    files.write_json(folders.beside(path), {**replays, "run": replays.pop("content_id")})
    cards.write(cards.place(path), cards.unpacked(client.exports.card(export, file=path.name)))
    return about.rows or 0


# What is said at the end


def _finish(
    client: Client,
    output: Output,
    run: RunAnswer,
    written: ending.Written,
    evaluation: Evaluation | None = None,
) -> None:
    evaluated = {} if evaluation is None else verdicts.document([evaluation])
    output.document(
        {
            "run": run.id,
            "url": client.url,
            "dataset": run.dataset,
            "version": run.version,
            "config": run.config,
            "lineage": run.lineage,
            "report": run.report,
            "measured": run.measured,
            "seconds": run.seconds,
            "written": {what: {"path": str(path), "rows": rows} for what, (path, rows) in written.items()},
            **evaluated,
        }
    )
    if not (output.as_json or output.quiet):
        for section in _sections(client, run, written):
            output.show(section, "")
        for section in () if evaluation is None else verdicts.sections(evaluation):
            output.show(section, "")


def _sections(client: Client, run: RunAnswer, written: ending.Written) -> Iterator[RenderableType]:
    assert run.report is not None, run
    counts = published.Report(**run.report)
    config = RunConfig.model_validate(run.config)
    # Why what the command line here, or another project, has measured already was measured again.
    measured = (
        f"{display.plural(run.measured or 0, 'sample')} measured; a project uses no signals but its own"
    )
    yield display.pairs(
        {
            "Dataset": f"{run.dataset}, version {run.version}, at {client.url}",
            "Signals": measured if run.measured else "all there already, nothing measured",
            **ending.asked(config),
            "Run": run.id,
        }
    )
    yield ending.balance(counts, config)
    if counts.warnings:
        yield display.warnings(counts.warnings)
    if counts.truncated_sources:
        yield ending.truncated(counts.truncated_sources)
    if config.has_subset:
        if config.methods:
            yield ending.tokens(counts)
        if counts.stages:
            yield ending.stages(counts)
        yield ending.reasons(counts)
    if counts.rejected and run.version is not None:
        rejects = display.table("row", "reason", title="Rejected rows", right=("row",))
        for reject in islice(client.datasets.rejects(run.dataset_id, run.version), _REJECTS):
            rejects.add_row(f"{reject.row:,}", display.clean(f"{reject.reason} ({reject.remedy})"))
        yield rejects
    if written:
        yield ending.listed("Written", ending.files(written))
    ask = f'datapruner sql "from {run.dataset}.sample_scores limit 9"'
    yield ending.listed("Next", [f"datapruner explain {run.id} row:0", ask])


# Sources


@contextmanager
def sending(source: str | None) -> Iterator[Path | None]:
    """The file to send, while the block runs; standard input is written to one first. None for no file."""
    if source == "-":
        with tempfile.TemporaryDirectory(prefix="datapruner-") as folder:
            path = Path(folder, "stdin")
            with path.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
            yield path
        return
    if source is not None and Path(source).is_dir():
        raise UsageError(f"{source}: a folder cannot be sent to a service", remedy="send one file")
    yield None if source is None else Path(source)


def came(job: JobAnswer, name: str) -> str:
    """The id of what came of a job."""
    found = getattr(job.result, name, None)
    assert found is not None, (job.id, name)
    return str(found)
