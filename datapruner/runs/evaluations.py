"""Evaluations of a run, beside it: `runs/<run>/evaluations/<evaluation>.json`, each whole or not at all."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from datapruner.errors import InputError, UsageError
from datapruner.schemas.evaluations import Evaluation, Verdict
from datapruner.system.files import is_unfinished, publishing
from datapruner.validation import first_problem


def write(folder: Path, evaluation: Evaluation) -> Path:
    """Store an evaluation of the run in `folder`; one with its id is replaced. Raises OSError."""
    path = folder / "evaluations" / f"{evaluation.id}.json"
    path.parent.mkdir(exist_ok=True)
    with publishing(path) as file:
        file.write(evaluation.model_dump_json(indent=2).encode() + b"\n")
    return path


def read(path: Path) -> Evaluation:
    """A stored evaluation. Raises InputError when it is not one."""
    try:
        return Evaluation.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        why = first_problem(error, "document").message if isinstance(error, ValidationError) else str(error)
        raise InputError(
            f"{path}: not an evaluation: {why}", remedy="remove it and evaluate the run again"
        ) from error


def of(folder: Path) -> list[Evaluation]:
    """All evaluations of the run in `folder`, the newest first. Raises InputError."""
    paths = (folder / "evaluations").glob("*.json")
    found = [read(path) for path in paths if not is_unfinished(path)]
    return sorted(found, key=lambda each: (each.created_at, each.id), reverse=True)


def latest(folder: Path) -> Evaluation | None:
    """The newest evaluation of the run in `folder` that came to a verdict, else the newest of all; None when
    there is none. Raises InputError."""
    found = of(folder)
    return next((each for each in found if each.verdict is not None), next(iter(found), None))


def require(folder: Path, verdict: Verdict) -> None:
    """Raise UsageError unless this is the verdict of the `latest` evaluation of the run in `folder`."""
    last = latest(folder)
    if last is None:
        raise UsageError(
            f"run {folder.name} was not evaluated, so it is not known to be {verdict}",
            remedy=f"datapruner evaluate {folder.name} --held-out FILE",
        )
    if last.verdict != verdict:
        raise UsageError(
            f"the last evaluation of run {folder.name}, {last.id}, does not say {verdict}: {last.said}",
            remedy="keep other rows, or export without --require-verdict",
        )
