"""Exports: what there is, their files, and their end. How they come about is in `service.submission`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from datapruner.catalog import exports, runs
from datapruner.catalog.datasets import find as find_dataset
from datapruner.catalog.models import Dataset
from datapruner.outputs.trainers.registry import TRAINERS, file_of
from datapruner.rows.formats import is_plain
from datapruner.runs import folders
from datapruner.schemas.datasets import Deleted
from datapruner.schemas.exports import ExportAnswer
from datapruner.service import retention
from datapruner.service import runs as service_runs
from datapruner.service.instance import Service
from datapruner.service.tokens import Caller


@dataclass(frozen=True, slots=True)
class ExportFile:
    """The file of a published export: where it is here, and what a download says of it.

    `sha256` in hex, `modified` in UTC without a zone.
    """

    path: Path
    sha256: str
    modified: datetime
    dataset: str
    suffix: str
    media_type: str


def listing(
    service: Service,
    caller: Caller,
    *,
    limit: int,
    before: str | None = None,
    run: str | None = None,
    dataset: str | None = None,
) -> list[ExportAnswer]:
    """The newest `limit` exports, those older than the id `before`, those of a run and those of a dataset's
    runs if these are given.

    Raises NotFoundError when there is no such run or dataset.
    """
    project = caller.project_id
    with service.db.read() as session:
        of_run = None if run is None else runs.find(session, project, run).id
        of_dataset = None if dataset is None else find_dataset(session, project, dataset).id
        found = exports.listing(
            session, project, limit=limit, before=before, run_id=of_run, dataset_id=of_dataset
        )
    return [_answer(shown) for shown in found]


def show(service: Service, caller: Caller, export: str) -> ExportAnswer:
    """Raises NotFoundError."""
    with service.db.read() as session:
        return _answer(exports.show(session, caller.project_id, export))


def delete(service: Service, caller: Caller, export: str) -> Deleted:
    """Delete an export and its file. Raises NotFoundError, ConflictError while its job is at work."""
    with service.db.write() as session:
        keys = exports.delete(session, exports.find(session, caller.project_id, export))
    retention.delete_files(service.storage, keys)
    return Deleted.of({}, done=True)


def file(service: Service, caller: Caller, export: str) -> ExportFile:
    """Raises NotFoundError, ConflictError when the export is not published, StorageError."""
    with service.db.read() as session:
        row = exports.find_published(session, caller.project_id, export)
        run = runs.find(session, caller.project_id, row.run_id)
        dataset = session.get_one(Dataset, run.dataset_id).name
    suffix, media_type = file_of(row.format)
    assert row.key is not None, row.id
    assert row.sha256 is not None, row.id
    assert row.published_at is not None, row.id
    return ExportFile(
        path=service.storage.local(row.key),
        sha256=row.sha256,
        modified=row.published_at,
        dataset=dataset,
        suffix=suffix,
        media_type=media_type,
    )


def card(
    service: Service,
    caller: Caller,
    export: str,
    license: str | None,  # noqa: A002
    file_name: str | None = None,
) -> tuple[str, bytes]:
    """The card of an export (`datapruner.reporting.card`), as it is now: the name of its folder, and a tar
    archive of that, to be unpacked beside the file. `file_name`: what that is called there.

    Raises NotFoundError, ConflictError when the export is not published, BusyError, StorageError.
    """
    from datapruner.reporting import card as cards  # with libraries that few requests need
    from datapruner.reporting.croissant import Described

    found = file(service, caller, export)
    with service.db.read() as session:
        row = exports.find_published(session, caller.project_id, export)
        key = runs.find_published(session, caller.project_id, row.run_id).key
    assert row.rows is not None, row.id
    document = folders.read_document(service.storage.local(f"{key}/{folders.DOCUMENT}"))
    name = file_name or f"{found.dataset}-{export}{found.suffix}"
    trainer, plain = (row.format, False) if row.format in TRAINERS else (None, is_plain(row.format))
    made = cards.made(
        cards.Exported(
            report=service_runs.full_report(service, caller, row.run_id),
            document=document,
            files={f"../{name}": Described(found.path, found.sha256)},
            rows=row.rows,
            form=cards.form(trainer, plain=plain, rewritten="rewrite" in document["config"]),
            license=license,
        )
    )
    folder = cards.place(Path(name)).name
    return folder, cards.packed(made, folder, found.modified.replace(tzinfo=UTC))


def _answer(shown: exports.Shown) -> ExportAnswer:
    export = shown.export
    published = export.published_at is not None
    return ExportAnswer.model_validate(
        {name: getattr(export, name) for name in ExportAnswer.model_fields if hasattr(export, name)}
        | {"state": shown.state, "download": f"/v1/exports/{export.id}/file" if published else None}
        | {"card": f"/v1/exports/{export.id}/card" if published else None}
    )
