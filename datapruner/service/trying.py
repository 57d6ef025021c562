"""Other keep ratios of published runs, tried while a page waits: the samples of the last runs are held."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from datapruner.catalog import runs
from datapruner.catalog.models import Run, Version
from datapruner.measuring.measure import Machine
from datapruner.request.config import RunConfig
from datapruner.runs import published
from datapruner.runs.trying import Trial
from datapruner.schemas.runs import RunAnswer
from datapruner.schemas.trying import Tried, Try
from datapruner.service import comparison_sets, results
from datapruner.service.instance import Service
from datapruner.service.tokens import Caller

_HELD = 2
_OF_RECIPES = ("gate", "dedup", "contamination", "filter", "combine", "coverage", "calibrate", "rewrite")
_trials: OrderedDict[tuple[Path, str], Trial] = OrderedDict()
_lock = Lock()


def tried(service: Service, caller: Caller, run: str, asked: Try) -> Tried:
    """What a run would keep at another ratio.

    Raises NotFoundError, ConflictError where that cannot be tried, UsageError, BusyError, StorageError.
    """
    with service.db.read() as session:
        row = runs.find_published(session, caller.project_id, run)
        corpus = session.get_one(Version, row.version_id).key
        aims = comparison_sets.target_versions(session, caller.project_id, RunConfig(**row.config))
        targets = {task: aim.key for task, aim in aims.items()}
    key = service.settings.home, row.id
    with _lock:
        trial = _trials.get(key)
        if trial is not None:
            _trials.move_to_end(key)
    if trial is None:
        trial = _read(service, row, corpus, targets)
        with _lock:
            _trials[key] = trial
            while len(_trials) > _HELD:
                _trials.popitem(last=False)
    return trial.at(asked.share, {} if asked.token_keep is None else {"token_keep": asked.token_keep})


def offered(run: RunAnswer) -> bool:
    """Whether another ratio of a run means something: it selects by methods, and keeps what it selected."""
    config = RunConfig(**run.config)
    changed = config.rewrite is not None or config.calibrate is not None
    return config.keep is not None and bool(config.methods) and not changed


def token_keep(run: RunAnswer) -> float | None:
    """The share of tokens that a run's method keeps; None for methods without that option."""
    methods = RunConfig(**run.config).methods
    value = getattr(methods[0].parsed(), "token_keep", None) if len(methods) == 1 else None
    return float(value) if isinstance(value, float) else None


def settings_of(run: RunAnswer) -> dict[str, Any] | None:
    """What to ask for to have the run again, but for how much to keep; None for one that a recipe says."""
    config = RunConfig(**run.config)
    if len(config.methods) != 1 or any(getattr(config, part) is not None for part in _OF_RECIPES):
        return None
    [choice] = config.methods
    asked: dict[str, Any] = {"dataset": run.dataset_id, "version": run.version, "method": choice.name}
    asked |= {"options": dict(choice.options), "seed": config.seed}
    asked |= {"measuring": config.measuring.model_dump(mode="json")}
    towards = {"target": config.target, "task_column": config.task_column}
    return asked | {name: value for name, value in towards.items() if value is not None}


def _read(service: Service, row: Run, corpus: str, targets: Mapping[str, str]) -> Trial:
    storage = service.storage
    home = storage.folder(f"projects/{row.project_id}")
    machine = Machine(("cpu",), models=service.settings.home)

    def look(found: published.Run, corpus_file: Path) -> Trial:
        for name in published.signal_folders(found.lineage):
            storage.pull(f"projects/{row.project_id}/signals/{name}")
        files = {task: storage.local(aim) for task, aim in targets.items()}
        return Trial.of(found, corpus_file, files, home, machine)

    return results.looked_into(storage, row, corpus, look)
