"""The Python API before anything is run: which recipe to `recommend`, what a run will take (`plan`), and what
a teacher would be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from datapruner import validation
from datapruner.corpora.corpus import Corpus
from datapruner.corpora.store import ingest_to
from datapruner.errors import UsageError
from datapruner.home import made_home
from datapruner.measuring.devices import find_devices
from datapruner.measuring.measure import Machine
from datapruner.progress import Progress, Silent
from datapruner.request.config import Engine, MeasuringSettings, RunConfig
from datapruner.request.keep import Keep, parse_keep
from datapruner.request.parts import Rewrite
from datapruner.request.settings import config_for, methods_given, name_of
from datapruner.request.targets import by_task
from datapruner.runs import forecasts, judged, stages
from datapruner.system.files import check_file
from datapruner.system.panics import contained

if TYPE_CHECKING:
    from datapruner.runs.recommend import Recommendation
    from datapruner.schemas.plans import Plan
    from datapruner.teacher import Estimate, TeacherSettings


@contained()
def estimate_rewrite(
    source: Any,
    method: str,
    *,
    teacher: TeacherSettings,
    options: Mapping[str, Any] | None = None,
    pattern: str | None = None,
    answers: str | None = None,
    mapping: Mapping[str, str] | None = None,
    home: str | Path | None = None,
    progress: Progress | None = None,
) -> Estimate:
    """What `rewrite` with these arguments would ask of a teacher, and what that would cost; nothing is asked.

    Raises UsageError and InputError as `rewrite` does.
    """
    from datapruner.rewriting.rehearsal import rehearse  # few calls do, and its libraries take time

    given = {"method": method, "options": dict(options or {}), "pattern": pattern, "answers": answers}
    wanted, place = validation.made(Rewrite, **given), made_home(home)
    return rehearse(wanted, source, mapping or {}, place, progress or Silent(), teacher)


@contained()
def estimate_ratings(
    config: RunConfig,
    source: Any,
    *,
    teacher: TeacherSettings,
    home: str | Path | None = None,
    progress: Progress | None = None,
) -> Estimate:
    """What rating these rows as the methods of a configuration ask would ask of a teacher, and what that
    would cost; nothing is asked, and no model is needed.

    Raises UsageError where no method asks one, and InputError as `prune` does.
    """
    from datapruner.judging.rehearsal import rehearse  # few calls do, and its libraries take time

    if not (wanted := judged.asked(config)):
        raise UsageError(f"{config.title} asks no teacher", remedy="leave out the dry run")
    return rehearse(wanted, source, config.mapping, made_home(home), progress or Silent(), teacher)


def recommend(
    source: Any,
    *,
    target: Any = None,
    keep_tokens: int | None = None,
    mapping: Mapping[str, str] | None = None,
    out: str | Path | None = None,
    home: str | Path | None = None,
    progress: Progress | None = None,
) -> Recommendation:
    """A recipe for these rows, with a comment that says why beside each choice; no model is read.

    `source`, `target` and `mapping` are those of `prune`; `keep_tokens` is a budget of trained tokens. `out`:
    a file to write it to, for `run_recipe`; rows that are in no file are given to that again. Raises
    UsageError and InputError.
    """
    from datapruner.runs import corpus_facts, recommend

    if keep_tokens is not None:
        parse_keep(tokens=keep_tokens)
    place, listener, path = made_home(home), progress or Silent(), None if out is None else Path(out)
    if path is not None:
        check_file(path)
    if target is not None and name_of(target) is None:
        raise UsageError(
            "a recipe has to name the rows to select towards", remedy="write them to a file", field="target"
        )
    samples = 0
    if target is not None:
        with Corpus(ingest_to(target, {}, place, listener)) as aim:
            samples = aim.counts().unique
    with Corpus(ingest_to(source, mapping or {}, place, listener)) as corpus:
        found = corpus_facts.facts(corpus, listener)
    made = recommend.recommendation(
        found,
        data=recommend.named_beside(name_of(source), path),
        target=recommend.named_beside(name_of(target), path),
        target_samples=samples,
        mapping=mapping,
        keep_tokens=keep_tokens,
    )
    if path is not None:
        made.write(path)
    return made


@contained()
def plan(
    source: Any = None,
    method: str | Sequence[str] | None = None,
    keep: float | int | str | Mapping[str, float] | Keep | None = None,
    *,
    recipe: str | Path | None = None,
    methods: str | Sequence[str] | None = None,
    keep_tokens: int | None = None,
    token_keep: float | None = None,
    preset: str | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    mapping: Mapping[str, str] | None = None,
    target: Any = None,
    task_column: str | None = None,
    gpus: str | int | None = None,
    utilisation: float = 0.3,
    price_per_gpu_hour: float | None = None,
    train_model_size: str | int | None = None,
    epochs: float = 1.0,
    train_tokens_per_second: float | None = None,
    device: str = "auto",
    engine: Engine | None = None,
    token_budget: int | None = None,
    home: str | Path | None = None,
    progress: Progress | None = None,
    **measuring: Unpack[MeasuringSettings],
) -> Plan:
    """What `prune` with the same arguments, or `score` without `keep`, will read, take and leave; a few
    hundred rows are measured to tell, and not kept. The run of that request then says how far this was off.

    `recipe`: a file that says all of the run in place of these arguments, as for `run_recipe`; `source` is
    then rows to use instead of those it names. Its stages are counted where they have a model or a teacher
    read rows; what is not is named in the notes.
    `gpus`: "8xH100", or a number of those of this machine, that hours are told for as well: by published
    peaks, of which the part `utilisation` is assumed. `price_per_gpu_hour` is in any currency; without one
    there are hours only. `train_model_size` ("7B", or a count of parameters) and `epochs` are of the training
    that what is kept is for, which is compared with one on everything, by operations or, with
    `train_tokens_per_second` as measured, by seconds. The other arguments are those of `prune`, and so are
    the errors raised.
    """
    from datapruner.planning.forecast import Wishes, forecast

    settings = {
        "keep": keep,
        "keep_tokens": keep_tokens,
        "token_keep": token_keep,
        "preset": preset,
        "options": options or None,
        "seed": seed or None,
        "task_column": task_column,
        "engine": engine,
    }
    given = measuring | {name: value for name, value in settings.items() if value is not None}
    besides: list[str] = []
    if recipe is not None:
        if given or any(each is not None for each in (method, methods, mapping, target)):
            raise UsageError(
                "a recipe says all of the run", remedy="leave out the other settings", field="recipe"
            )
        config, source, besides = _of_recipe(recipe, source)
        target = config.target
    elif source is None:
        raise UsageError("no rows are given", remedy="name them, or a recipe that does", field="source")
    else:
        given |= methods_given(method, methods)
        config = config_for(source, given, mapping=mapping, target=target)
        stages.check(config, has_target=target is not None)
    wishes = Wishes(
        gpus=None if gpus is None else str(gpus),
        utilisation=utilisation,
        price=price_per_gpu_hour,
        train_model_size=None if train_model_size is None else str(train_model_size),
        epochs=epochs,
        train_rate=train_tokens_per_second,
    )
    place, listener = made_home(home), progress or Silent()
    machine = Machine(find_devices(device), token_budget)
    sets = {} if target is None else by_task(target)
    aims = [ingest_to(each, {}, place, listener) for each in sets.values()]
    with ExitStack() as stack:
        corpus = stack.enter_context(Corpus(ingest_to(source, config.mapping, place, listener)))
        targets = [stack.enter_context(Corpus(aim)) for aim in aims]
        made = forecast(corpus, targets, config, place, machine, wishes, listener)
    made = made.model_copy(update={"notes": [*made.notes, *besides]})
    forecasts.keep(made, place)
    return made


def _of_recipe(recipe: str | Path, source: Any) -> tuple[RunConfig, Any, list[str]]:
    """The run that a recipe says, its rows or those given instead, and what of the recipe is no part of the
    run. Raises UsageError and InputError."""
    from datapruner.runs import recipes  # which needs more libraries than the rest

    wanted = recipes.read(recipe)
    rows = wanted.data if source is None else source
    if rows is None:
        raise UsageError("the recipe names no data", remedy="add data: FILE, or give the rows", field="data")
    besides = [] if wanted.evaluate is None else ["evaluating is not forecast: its trainings come on top"]
    return wanted.config.model_copy(update={"source": name_of(rows)}), rows, besides
