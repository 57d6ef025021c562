"""The Python API: `prune`, `score`, `rewrite`, `run_recipe` and `replay`, which return a `Result`; whether
that was worth it: `evaluate`, and all that came of it: `report`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from datapruner import validation
from datapruner.corpora.store import ingest_to
from datapruner.errors import UsageError
from datapruner.home import made_home
from datapruner.measuring import engine as engines
from datapruner.measuring.devices import find_devices
from datapruner.measuring.measure import Machine
from datapruner.planning.clock import PassClock
from datapruner.progress import Progress, Silent
from datapruner.request.config import Engine, MeasuringSettings, ReadingSettings, RunConfig
from datapruner.request.evaluating import EvaluationSettings
from datapruner.request.keep import Keep
from datapruner.request.settings import assembled, check_prunes, config_for, methods_given, name_of
from datapruner.result import Result
from datapruner.runs import (
    evaluations,
    folders,
    forecasts,
    named,
    pipeline,
    published,
)
from datapruner.system.panics import contained
from datapruner.tracking import following

if TYPE_CHECKING:
    from datapruner.schemas.evaluations import Evaluation
    from datapruner.schemas.reports import RunReport


def prune(
    source: Any,
    method: str | Sequence[str] | None = None,
    keep: float | int | str | Mapping[str, float] | Keep | None = None,
    *,
    methods: str | Sequence[str] | None = None,
    keep_tokens: int | None = None,
    token_keep: float | None = None,
    preset: str | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    mapping: Mapping[str, str] | None = None,
    target: Any = None,
    task_column: str | None = None,
    device: str = "auto",
    engine: Engine | None = None,
    ray_address: str | None = None,
    token_budget: int | None = None,
    home: str | Path | None = None,
    progress: Progress | None = None,
    log_to: Sequence[str] = (),
    teacher: Any = None,
    **measuring: Unpack[MeasuringSettings],
) -> Result:
    """Keep the part of a corpus worth training on.

    `source`: path, folder, Hub name, "-", `datasets.Dataset`, table or iterable of rows. `method`, also
    spelled `methods`, is by default "qtuning". `keep`: a share (0.25, 1.0, "25%") of the measured samples,
    rounded up, or a count of them (500; one is {"count": 1}, for a plain 1 may mean either and is refused);
    or `keep_tokens`, a budget of trained tokens; a `preset` brings its own.
    `token_keep` and `options` are the method's options. `mapping` names the columns, such as
    `{"prompt": "q", "response": "a"}`, when they are not recognised. `target` is rows to select towards (as
    `source`, their columns recognised), for methods that read them, or a mapping of several such sets by the
    names of their tasks; `task_column` is a column of theirs that names each row's task. `device` is "auto",
    "cpu", "cuda:0" or a list of them; `token_budget` bounds a batch (padded tokens). `engine` "ray" measures
    on a Ray cluster: the one at `ray_address` ("auto" or "HOST:PORT"), or one that is started on this machine
    for as long as it takes. `home` is where models, signals and runs are kept. `log_to`: trackers to log the
    run to, of "mlflow", "wandb", "trackio" and "openlineage", each by its own settings; one that fails is
    warned of, and the run stands. `teacher` is as for `rewrite`, for methods that ask one. `measuring`:
    `model`, `max_length` and the other fields of
    `datapruner.request.config.Measuring`.

    Raises UsageError, InputError, ModelError, NothingSurvivedError or WorkerError (`datapruner.errors`).
    """
    given = {
        **measuring,
        **methods_given(method, methods),
        "keep": keep,
        "keep_tokens": keep_tokens,
        "token_keep": token_keep,
        "preset": preset,
        "options": options or {},
        "seed": seed,
        "task_column": task_column,
        "engine": engine,
    }
    config = config_for(source, given, mapping=mapping, target=target)
    check_prunes(config)
    return run(
        config,
        source,
        target,
        device=device,
        ray_address=ray_address,
        token_budget=token_budget,
        home=home,
        progress=progress,
        log_to=log_to,
        teacher=teacher,
    )


def score(
    source: Any,
    methods: str | Sequence[str] | None = None,
    *,
    method: str | Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    mapping: Mapping[str, str] | None = None,
    target: Any = None,
    task_column: str | None = None,
    device: str = "auto",
    engine: Engine | None = None,
    ray_address: str | None = None,
    token_budget: int | None = None,
    home: str | Path | None = None,
    progress: Progress | None = None,
    log_to: Sequence[str] = (),
    teacher: Any = None,
    **measuring: Unpack[MeasuringSettings],
) -> Result:
    """Score every sample by one or more methods, by default "qtuning", pruning nothing.

    `options` are those of the one method or, of several, by method name. The other arguments are those of
    `prune`, and so are the errors raised.
    """
    given = {
        **measuring,
        **methods_given(method, methods),
        "options": options or {},
        "seed": seed,
        "task_column": task_column,
        "engine": engine,
    }
    config = config_for(source, given, mapping=mapping, target=target)
    return run(
        config,
        source,
        target,
        device=device,
        ray_address=ray_address,
        token_budget=token_budget,
        home=home,
        progress=progress,
        log_to=log_to,
        teacher=teacher,
    )


def rewrite(
    source: Any,
    method: str = "asap",
    *,
    max_tokens: int | None = None,
    max_token_ratio: float | None = None,
    options: Mapping[str, Any] | None = None,
    pattern: str | None = None,
    answers: str | None = None,
    teacher: Any = None,
    mapping: Mapping[str, str] | None = None,
    device: str = "auto",
    engine: Engine | None = None,
    ray_address: str | None = None,
    token_budget: int | None = None,
    home: str | Path | None = None,
    progress: Progress | None = None,
    **measuring: Unpack[ReadingSettings],
) -> Result:
    """Shorten the chains of thought of a corpus, and keep all of it.

    Reasoning is looked for in `<think>` blocks, into which ingest folds reasoning columns, or by `pattern`:
    an RE2 pattern over the response with a group named "reasoning". `max_tokens` and `max_token_ratio` (of
    the reasoning's tokens) are ASAP's budget; `options` are the method's. `answers` names the original
    column with the right ones. `teacher` is a `datapruner.teacher.Teacher` for methods that ask one, by
    default that of the environment; such methods measure nothing. The other arguments are those of `prune`,
    and so are the errors raised.
    """
    budget = {"max_tokens": max_tokens, "max_token_ratio": max_token_ratio}
    given = dict(options or {}) | {name: value for name, value in budget.items() if value is not None}
    wanted = {"method": method, "options": given, "pattern": pattern, "answers": answers}
    config = assembled(
        [],
        None,
        source=name_of(source),
        mapping=mapping or {},
        measuring=measuring,
        rewrite=wanted,
        engine=engine,
    )
    return run(
        config,
        source,
        device=device,
        ray_address=ray_address,
        token_budget=token_budget,
        home=home,
        progress=progress,
        teacher=teacher,
    )


def run_recipe(
    recipe: str | Path,
    source: Any = None,
    *,
    device: str = "auto",
    engine: Engine | None = None,
    ray_address: str | None = None,
    token_budget: int | None = None,
    home: str | Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Do what a recipe says (`datapruner.runs.recipes`), write the files that its `export` names, log to what
    `log_to` names, and do what it says under `evaluate`, as `evaluate` does.

    `source`: rows to use instead of those it names, as for `prune`; the other arguments are those of `prune`.
    A teacher is that of the environment. Raises UsageError naming line and column of what is wrong with the
    recipe, and as `prune` does.
    """
    from datapruner.runs import recipes  # which needs more libraries than the rest

    wanted = recipes.read(recipe)
    rows = source if source is not None else wanted.data
    if rows is None:
        raise UsageError("the recipe names no data", remedy="add data: FILE, or give the rows", field="data")
    config = wanted.config.model_copy(update={"source": name_of(rows)})
    listener = progress or Silent()
    with following.following(wanted.log_to, config, listener, _warn) as followed:
        result = run(
            config,
            rows,
            config.target,
            device=device,
            engine=engine,
            ray_address=ray_address,
            token_budget=token_budget,
            home=home,
            progress=followed.progress,
        )
        files = wanted.export.files()
        counts = result.write(files)
        written = [(files[what], count) for what, count in counts.items()]
        followed.done(result.run, result.corpus_file, written)
    if wanted.evaluate is not None:
        asked = wanted.evaluate.model_dump()
        asked |= {"device": device, "token_budget": token_budget, "home": home, "progress": progress}
        evaluate(result, **asked, log_to=wanted.log_to)
        result.write_cards(files, counts)
    return result


def replay(
    run_file: str | Path,
    source: Any = None,
    *,
    target: Any = None,
    device: str = "auto",
    engine: Engine | None = None,
    ray_address: str | None = None,
    token_budget: int | None = None,
    home: str | Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Do again what a `.run.json` says, on the source and target it names or on those given.

    Raises as `prune` does.
    """
    document = folders.read_document(Path(run_file))
    config = published.replayed(document)
    rows = source if source is not None else config.source
    if rows is None:
        raise UsageError(
            f"{run_file} does not name a source: its rows came from Python or standard input",
            remedy="give the source",
        )
    aims = target if target is not None else config.target
    if aims is None and "target" in document["lineage"]:
        raise UsageError(
            f"{run_file} does not name its target set: the rows came from Python", remedy="give the target"
        )
    return run(
        config,
        rows,
        aims,
        device=device,
        engine=engine,
        ray_address=ray_address,
        token_budget=token_budget,
        home=home,
        progress=progress,
    )


@contained()
def evaluate(
    runs: Result | str | Path | Sequence[Result | str | Path],
    held_out: Any,
    *,
    model: str | None = None,
    tuning: str = "lora",
    seeds: int = 3,
    seconds: float | None = None,
    seed: int = 0,
    lm_eval: Sequence[str] = (),
    device: str = "auto",
    token_budget: int | None = None,
    home: str | Path | None = None,
    progress: Progress | None = None,
    log_to: Sequence[str] = (),
) -> list[Evaluation]:
    """Whether what runs kept is worth training on: models are trained on it and on other rows of the corpus,
    as many tokens of each, and read on held-out rows. One document a run, in their order; each is stored with
    its run.

    `runs`: results, ids, "latest", or files that a run wrote; of one corpus. `held_out`: rows as for `prune`,
    or several sets of them by name. `model` is trained, by default the runs' proxy model; `tuning` is "lora"
    or "full". `seconds` bounds all of it; what was not reached is said, and asking again goes on. `lm_eval`:
    tasks of that package (the extra `eval`), by name or YAML file, that each model does besides; they may run
    code and fetch data, as they say. `home` must be that of the runs. The others are as for `prune`.

    Raises UsageError, InputError, ModelError, NothingSurvivedError or WorkerError.
    """
    from datapruner.evaluation.evaluate import evaluate as train_and_read  # which needs torch

    following.check(log_to)
    place, listener = made_home(home), progress or Silent()
    named_runs = [runs] if isinstance(runs, Result | str | Path) else list(runs)
    found = [each.run if isinstance(each, Result) else named.find(str(each), place) for each in named_runs]
    if not found:
        raise UsageError("no run is named", remedy="give one or several")
    sets = dict(held_out) if isinstance(held_out, Mapping) else {"held out": held_out}
    sources = {name: name_of(rows) or "rows" for name, rows in sets.items()}
    settings = validation.made(
        EvaluationSettings,
        held_out=sources,
        model=model,
        tuning=tuning,
        seeds=seeds,
        seconds=seconds,
        seed=seed,
    )
    corpora = {name: (sources[name], ingest_to(rows, {}, place, listener)) for name, rows in sets.items()}
    machine = Machine(find_devices(device), token_budget)
    corpus = published.corpus_path(found[0], place)
    made = train_and_read(found, corpus, corpora, settings, place, machine, listener, lm_eval)
    for run, evaluation in zip(found, made, strict=True):
        evaluations.write(run.folder, evaluation)
    following.log_evaluations(log_to, made, _warn)
    return made


@contained()
def report(
    run: str | Path | Result = "latest",
    out: str | Path | None = None,
    *,
    home: str | Path | None = None,
) -> RunReport:
    """Everything that came of a run as one document, and with `out` as an HTML page that needs nothing else.

    `run`: a result, a run id or enough of its start, "latest", or a file that a run wrote. `home` is where
    runs are kept, by default that of the result. Raises UsageError and InputError.
    """
    from datapruner.reporting import document, page  # few calls do, and its libraries take time

    if out is not None:
        page.check_target(Path(out))
    if isinstance(run, Result):
        made = document.report(run.run.run_id, made_home(home or run.home))
    else:
        made = document.report(str(run), made_home(home))
    if out is not None:
        page.write(Path(out), made)
    return made


@contained()
def run(
    config: RunConfig,
    source: Any,
    target: Any = None,
    *,
    device: str = "auto",
    engine: Engine | None = None,
    ray_address: str | None = None,
    token_budget: int | None = None,
    home: str | Path | None = None,
    progress: Progress | None = None,
    log_to: Sequence[str] = (),
    teacher: Any = None,
) -> Result:
    """Do what a configuration says to these rows, and towards these; the arguments are those of `prune` and
    `rewrite`. `engine` is by default the configuration's."""
    place, clock, chosen = made_home(home), PassClock(progress or Silent()), engine or config.engine
    engines.asked(chosen, ray_address)
    machine = engines.machine_on(device, chosen, ray_address, token_budget=token_budget)
    with following.following(log_to, config, clock, _warn) as followed:
        made = pipeline.run(config, source, place, machine, followed.progress, target, teacher)
        followed.done(made, published.corpus_path(made, place))
    with suppress(OSError):  # a full disk, say: the run is done all the same
        forecasts.settle(made, place, clock.seconds, machine)
    return Result(made, place)


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)
