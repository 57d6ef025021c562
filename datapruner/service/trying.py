"""What runs would keep, tried while a page waits: published ones at another ratio, and one not started yet.

The samples of the last ones are held.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datapruner.catalog import datasets, runs
from datapruner.catalog.models import Run, Version
from datapruner.errors import ConflictError, ModelError, UsageError, without_paths
from datapruner.measuring import passes
from datapruner.measuring.measure import Machine
from datapruner.measuring.signal_cache import NO_MODEL
from datapruner.request.config import RunConfig
from datapruner.request.settings import check_prunes
from datapruner.runs import published, recipes, stages
from datapruner.runs.trying import MOST_TOKENS, Trial, UnmeasuredError, wanted_of
from datapruner.schemas.runs import NewRun, RunAnswer
from datapruner.schemas.trying import Foreseen, Tried, Try
from datapruner.service import comparison_sets, results, submission
from datapruner.service.allowed_models import check_models
from datapruner.service.held import Held
from datapruner.service.instance import Service
from datapruner.service.sharing import signals_prefix
from datapruner.service.tokens import Caller
from scorers.shares import count_to_keep

_NOTHING = "nothing is measured yet"
_OF_RECIPES = ("gate", "dedup", "contamination", "filter", "combine", "coverage", "calibrate", "rewrite")
_trials: Held[Trial] = Held(MOST_TOKENS, lambda trial: int(trial.signals.lengths.sum()))


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
    trial = _trials.get(key, lambda: _read(service, row, corpus, targets))
    options = {} if asked.token_keep is None else {"token_keep": asked.token_keep}
    with results.turn():
        return trial.at(asked.share, options)


def foreseen(service: Service, caller: Caller, wanted: NewRun) -> Foreseen:
    """What a run would keep if it were started now: exactly, where all that it reads is measured.

    What is wrong with the request is a reason as well: it may not be complete yet. Raises NotFoundError and
    ConflictError for the version, BusyError, StorageError.
    """
    with service.db.read() as session:
        dataset = datasets.find(session, caller.project_id, wanted.dataset)
        version = submission.version_of(session, dataset, wanted.version)
        corpus, samples = version.key, version.accepted - version.duplicates
    about = None
    try:
        config = recipes.of_request(wanted, {}, service.sql.run)
        check_models(service.settings, config.measuring)
        check_prunes(config)
        about = _about(config, samples)
        found = _foreseen(service, caller, config, corpus)
        return Foreseen(samples=samples, found=found, about=None, why=None)
    except UnmeasuredError as error:
        some = f"{error.samples:,} sample{'s are' if error.samples > 1 else ' is'} not measured yet"
        why = some if error.samples < samples else _NOTHING
    except ModelError:
        why = _NOTHING
    except UsageError as error:
        why = without_paths(error.message if isinstance(error, ConflictError) else str(error))
    return Foreseen(samples=samples, found=None, about=about, why=why)


def _about(config: RunConfig, samples: int) -> int | None:
    keep = config.keep
    assert keep is not None, "see check_prunes()"
    if keep.share is not None:
        return count_to_keep(keep.share, samples)
    return None if keep.count is None else min(keep.count, samples)


def _foreseen(service: Service, caller: Caller, config: RunConfig, corpus: str) -> Tried:
    """Raises as `Trial.before` and `Trial.by` do, and as `comparison_sets.pinned`."""
    wanted = wanted_of(config)
    with service.db.read() as session:
        config = comparison_sets.pinned(session, caller.project_id, config)
        aims = comparison_sets.target_versions(session, caller.project_id, config)
        targets = {task: aim.key for task, aim in aims.items()}
    reads = config.measuring.model_dump_json(), config.task_column, wanted
    key = service.settings.home, corpus, tuple(sorted(targets.items())), *reads
    trial = _trials.get(key, lambda: _ahead(service, caller, config, corpus, targets))
    with results.turn():
        return trial.by(config)


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


def _ahead(
    service: Service, caller: Caller, config: RunConfig, corpus: str, targets: Mapping[str, str]
) -> Trial:
    """Of a run that is not started. Raises as `Trial.before` does."""
    storage, models = service.storage, service.settings.home
    with service.db.read() as session:
        dtypes = runs.dtypes_read_in(session, caller.project_id, config.measuring.model)
    if not dtypes:
        raise ModelError(f"no run has read rows with {config.measuring.model} yet")
    if config.measuring.dtype == "auto":
        # What workers measured in, whatever this machine would.
        dtype = next((each for each in dtypes if each != NO_MODEL), "auto")
        measuring = config.measuring.model_copy(update={"dtype": dtype})
        config = config.model_copy(update={"measuring": measuring})
    home, machine = storage.folder(f"projects/{caller.project_id}"), Machine(("cpu",), models=models)
    with results.turn():
        found = passes.passes(
            config, models, machine.devices, reads_model=stages.reads_model(config), fetch=False
        )
        for each in found.values():
            for key in filter(None, (each.key, each.fuller)):
                storage.pull(signals_prefix(caller.project_id, key))
        files = {task: storage.local(aim) for task, aim in targets.items()}
        return Trial.before(config, storage.local(corpus), files, home, machine)
