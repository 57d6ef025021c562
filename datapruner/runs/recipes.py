"""Recipes: everything that a run does, in one YAML file, checked before anything is read.

    data, mapping, target, measuring, seed, engine  what is read, and how and where it is measured
    gate, dedup, contamination                      rows dropped before they are measured
    gate, filter                                    samples dropped after that
    methods, combine, coverage, keep                scores, one out of several, and what is kept by it
    calibrate, rewrite, export                      what becomes of the kept samples
    evaluate                                        whether they are better to train on than others
    log_to                                          where the run is logged

Stages run in this order, whatever the order in the file. A recipe without `data`, `export`, `evaluate` and
`log_to` is a run's configuration (`config.RunConfig`), and is stored as such with the run; a service is given
it like that, and what to evaluate by.

Notable choices:
- a problem is told with line and column, all of them at once, before any data is touched;
- of YAML only plain values, lists and mappings are taken: no tags, anchors or aliases, no key twice, no key
  without a value, so that no text can unfold into a huge document or mean something that it does not show;
- relative paths are looked for beside the recipe, so that it works from every folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel, Field, ValidationError

from datapruner import validation
from datapruner.errors import InputError, UsageError
from datapruner.query.sandbox import run_sql
from datapruner.request.config import TUNED, EngineField, Measuring, RunConfig
from datapruner.request.evaluating import EvaluationSettings, check_evaluated
from datapruner.request.keep import DESCRIPTION, Amount
from datapruner.request.parts import Name, Part, Place, Seed, Stages, Tracker
from datapruner.request.settings import MOST_METHODS, Asked, RefusedError, assembled, run_config
from datapruner.request.targets import Targets
from datapruner.rows import row_files
from datapruner.rows.formats import FILES, listed
from datapruner.runs import stages
from datapruner.runs.filters import Ask
from datapruner.schemas.runs import RunRequest
from scorers.models.sources import ALIASES

MAX_CHARACTERS = 1 << 16
_MAX_DEPTH = 12
_SHOWN_PROBLEMS = 8
_OPTION = re.compile(r"option '?(\w+)")
_OPENING = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
_STRANGE = {yaml.AnchorToken: "an anchor", yaml.AliasToken: "an alias", yaml.TagToken: "a tag"}
_STRING = "tag:yaml.org,2002:str"
_PLAIN = "leave it out: recipes have plain values, lists and mappings only"


class Export(Part):
    """Files to write at the end, each with what replays the run beside it."""

    subset: Place | None = Field(None, description=f"with scores and masks: {listed(FILES)}")
    plain: Place | None = Field(None, description=f"the rows to train on alone: {listed(FILES)}")
    scores: Place | None = Field(None, description=f"the score table: {listed(FILES)}")

    def files(self) -> dict[str, Path]:
        """The files to write, by what they are."""
        return {what: Path(path) for what, path in self if path is not None}


_MODEL_SETTINGS = ("model", "reference", "embedder", "reward_model")


class Document(Stages):
    """A recipe as it is written."""

    data: Place | None = Field(None, description="rows: file, folder or Hub name; none at a service")
    mapping: dict[str, str] = Field({}, description="columns by their roles, as in {prompt: q, response: a}")
    target: Targets = Field(
        None,
        description="rows to select towards, for methods that read them; several sets by their tasks, as in "
        "{maths: FILE, code: FILE}",
    )
    task_column: Name | None = Field(
        None,
        description="column of the target set that names each row's task, as in the rows themselves",
    )
    measuring: Measuring = Measuring()
    seed: Seed = 0
    engine: EngineField = None
    methods: list[Asked] = Field([], max_length=MOST_METHODS)
    keep: Amount | None = Field(None, description=DESCRIPTION)
    export: Export = Export()
    evaluate: EvaluationSettings | None = None
    log_to: list[Tracker] = Field([], description="where the run is logged, by the trackers' own settings")


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    """The models in the annotation of a field."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe that was read and checked. `data`: where its rows are, None when it does not say. `evaluate`:
    how the run is to be evaluated, if it is. `log_to`: trackers."""

    config: RunConfig
    data: str | None
    export: Export
    evaluate: EvaluationSettings | None
    log_to: list[Tracker]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with the setting at the dotted path `where`; `key`: with its name, not its value."""

    where: str
    text: str
    key: bool = False


@dataclass(frozen=True, slots=True)
class _Lines:
    """Where in a text each setting stands, as dotted path -> (line, column), both from 1. Empty for JSON."""

    name: str
    keys: Mapping[str, tuple[int, int]]
    values: Mapping[str, tuple[int, int]]

    def also(self, old: str, new: str) -> _Lines:
        """With what stands at `old` and below it known as `new`, too."""

        def moved(places: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
            below = {path: at for path, at in places.items() if f"{path}.".startswith(f"{old}.")}
            return {**places, **{new + path.removeprefix(old): at for path, at in below.items()}}

        return _Lines(self.name, moved(self.keys), moved(self.values))

    def refusal(self, problems: Iterable[Problem]) -> UsageError:
        told = list(dict.fromkeys(map(self._told, problems)))
        more = len(told) - _SHOWN_PROBLEMS
        text = "; ".join(told[:_SHOWN_PROBLEMS]) + (f"; and {more} more problems" if more > 0 else "")
        return UsageError(text, field="recipe")

    def _told(self, problem: Problem) -> str:
        shown = f"{problem.where}: {problem.text}" if problem.where else problem.text
        place = self._place(problem)
        return f"{self.name}: {shown}" if place is None else f"{self.name}:{place[0]}:{place[1]}: {shown}"

    def _place(self, problem: Problem) -> tuple[int, int] | None:
        """Of the setting, or of the innermost one around it that is in the text."""
        if problem.key and problem.where in self.keys:
            return self.keys[problem.where]
        where = problem.where
        while where and where not in self.values:
            where = where.rpartition(".")[0]
        return self.values.get(where)


def read(path: str | Path, data: str | Path | None = None) -> Recipe:
    """The recipe in a file, its paths made to work from here; `data` instead of what it names.

    Raises UsageError naming line, column and remedy of every problem, InputError for a file that is none.
    """
    place = Path(path)
    try:
        with place.open(encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"{place}: cannot read the recipe: {reason}") from error
    document, lines = _parsed(text, str(place))
    plain, lines = _document(document, lines)
    found = _beside(plain, place.parent)
    if data is not None:
        found = found.model_copy(update={"data": str(data)})
    problems: list[Problem] = []
    files = found.export.files()
    for what, target in files.items():
        try:
            row_files.check_target(target)
        except UsageError as error:
            problems.append(Problem(f"export.{what}", str(error)))
        if any(target == files[other] for other in list(files)[: list(files).index(what)]):
            problems.append(Problem(f"export.{what}", "another of the files has this name (name two)"))
    config = _config(found, lines, problems, run_sql)
    return Recipe(config, found.data, found.export, found.evaluate, found.log_to)


def of_request(request: RunRequest, mapping: Mapping[str, str], ask: Ask | None = None) -> RunConfig:
    """The configuration of what a service is asked for, by settings or by a recipe, for a dataset with this
    mapping; `ask` is who parses a recipe's filter. Raises UsageError naming what is wrong."""
    if request.recipe is None:
        config = run_config(request, mapping=mapping)
        stages.check(config, has_target=config.target is not None, ask=ask or run_sql)
        return config
    return of_recipe(request.recipe, mapping, ask)


def of_recipe(
    recipe: str | Mapping[str, Any], mapping: Mapping[str, str], ask: Ask | None = None
) -> RunConfig:
    """The configuration that a service is asked for, as YAML text or as the same fields, for a dataset
    with this mapping. `target` and the evaluation sets are names of datasets; `ask` parses the filter.

    Raises UsageError as `read` does.
    """
    document, lines = _given(recipe)
    refused = [
        Problem(name, "a service's dataset brings its own (leave it out)", key=True)
        for name in ("data", "mapping", "export")
        if name in document
    ]
    if "log_to" in document:
        refused.append(
            Problem("log_to", "a service logs where its own settings say (leave it out)", key=True)
        )
    if refused:
        raise lines.refusal(refused)
    found, lines = _document(document, lines)
    return _config(found.model_copy(update={"mapping": dict(mapping)}), lines, [], ask or run_sql)


def evaluation_of(request: RunRequest) -> EvaluationSettings | None:
    """How a service is asked to evaluate the run, by a recipe. Raises UsageError as `read` does."""
    return None if request.recipe is None else _document(*_given(request.recipe))[0].evaluate


def as_request(config: RunConfig, evaluate: EvaluationSettings | None = None) -> dict[str, Any]:
    """The recipe that a service is asked for, of a configuration and what the run is to be evaluated by:
    `of_recipe` and `evaluation_of` make these of it again."""
    recipe = config.model_dump(mode="json", exclude={"source", "mapping"}, exclude_none=True)
    return recipe if evaluate is None else recipe | {"evaluate": evaluate.model_dump(mode="json")}


def _given(recipe: str | Mapping[str, Any]) -> tuple[Mapping[str, Any], _Lines]:
    """The document of a recipe as text or as fields, and where its settings stand. Raises UsageError."""
    return _parsed(recipe, "recipe") if isinstance(recipe, str) else (recipe, _Lines("recipe", {}, {}))


# From text to a document


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML's plain values, without dates, and with 1e-3 as the number that it looks like."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _parsed(text: str, name: str) -> tuple[dict[str, Any], _Lines]:
    """The document in a text, and where its settings stand. Raises UsageError."""
    nowhere = _Lines(name, {}, {})
    if len(text) > MAX_CHARACTERS:
        raise nowhere.refusal([Problem("", f"longer than {MAX_CHARACTERS:,} characters, so not a recipe")])
    try:
        _check_tokens(text, name)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None or not isinstance(node, yaml.MappingNode):
            what = "it is empty" if node is None else "it is no mapping of settings"
            raise nowhere.refusal([Problem("", f"{what} (begin with methods: and keep:)")])
        lines = _Lines(name, {}, {})
        keys: dict[str, tuple[int, int]] = {}
        values = {"": _position(node.start_mark)}
        problems = list(_walk(node, "", keys, values))
        lines = _Lines(name, keys, values)
        if problems:
            raise lines.refusal(problems)
        document: dict[str, Any] = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (1, 1) if mark is None else _position(mark)
        said = ", ".join(part for part in (error.problem, error.context) if part)
        raise UsageError(f"{name}:{line}:{column}: not YAML: {said}", field="recipe") from error
    except ValueError as error:  # of integers only, which Python reads up to a length
        raise UsageError(f"{name}: a number in it has too many digits", field="recipe") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{name}: not YAML: {error}", field="recipe") from error
    empty = [
        Problem(key, "there is no value (write {} for its defaults, or leave it out)", key=True)
        for key, value in document.items()
        if value is None
    ]
    if empty:
        raise lines.refusal(empty)
    return document, lines


def _check_tokens(text: str, name: str) -> None:
    """Refuse what unfolds and what nests, before anything is built of it. Raises UsageError, YAMLError."""
    depth = 0
    for token in yaml.scan(text, Loader=_Loader):
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        what = _STRANGE.get(type(token))
        if depth > _MAX_DEPTH:
            what = f"more than {_MAX_DEPTH} levels"
        if what is not None:
            line, column = _position(token.start_mark)
            raise UsageError(f"{name}:{line}:{column}: there is {what} in it", remedy=_PLAIN, field="recipe")


def _walk(
    node: Any, where: str, keys: dict[str, tuple[int, int]], values: dict[str, tuple[int, int]]
) -> Iterator[Problem]:
    """Note where everything below a node stands; the problems with its keys."""
    children: list[tuple[str, Any]] = []
    if isinstance(node, yaml.SequenceNode):
        children = [(str(index), child) for index, child in enumerate(node.value)]
    elif isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            path = f"{where}.{key.value}".lstrip(".")
            if key.tag != _STRING:
                keys[path] = values[path] = _position(key.start_mark)
                yield Problem(path, "this name is read as something else than text (put it in quotes)", True)
                continue
            if path in keys:
                yield Problem(path, f"this stands in line {keys[path][0]} already (leave one out)", True)
                keys[path] = _position(key.start_mark)
                continue
            keys[path] = _position(key.start_mark)
            children.append((str(key.value), child))
    for name, child in children:
        path = f"{where}.{name}".lstrip(".")
        values[path] = _position(child.start_mark)
        yield from _walk(child, path, keys, values)


def _position(mark: Any) -> tuple[int, int]:
    return mark.line + 1, mark.column + 1


# From a document to a configuration


def _document(document: Mapping[str, Any], lines: _Lines) -> tuple[Document, _Lines]:
    """The settings, each checked on its own, and where they stand. Raises UsageError."""
    document = dict(document)
    if "method" in document:
        if "methods" in document:
            said = "this and methods are two spellings of one setting (leave one out)"
            raise lines.refusal([Problem("method", said, key=True)])
        document["methods"] = document.pop("method")
        lines = lines.also("method", "methods")
    if "methods" in document:
        methods = document["methods"]
        if not isinstance(methods, list):
            methods = [methods]
            lines = lines.also("methods", "methods.0")
        # A bare name is a method without options.
        document["methods"] = [{"name": each} if isinstance(each, str) else each for each in methods]
    try:
        return Document.model_validate(document), lines
    except ValidationError as error:
        raise lines.refusal(map(_problem, error.errors(include_url=False))) from error


def _problem(error: Any) -> Problem:
    where = validation.place(error)
    path = where.split(".")
    if error["type"] == "extra_forbidden":
        inside: type[BaseModel] = Document
        if len(path) > 1:
            inside = next(_models(Document.model_fields[path[0]].annotation))
        close = get_close_matches(path[-1], inside.model_fields, n=1)
        guess = f"did you mean {close[0]}? " if close else ""
        known = ", ".join(inside.model_fields)
        return Problem(where, f"there is no such setting ({guess}known: {known})", key=True)
    remedy = error.get("ctx", {}).get("remedy")
    text = validation.wording(error) + validation.value(error)
    return Problem(where, f"{text} ({remedy})" if remedy else text)


def _config(found: Document, lines: _Lines, problems: list[Problem], ask: Ask) -> RunConfig:
    """The configuration, checked as a whole. Raises UsageError with the `problems` that are known already."""
    given = {name: getattr(found, name) for name in RunConfig.model_fields.keys() & Document.model_fields}
    given |= {"source": None if found.data == "-" else found.data}  # rows from standard input have no name
    try:
        config = assembled(given.pop("methods"), given.pop("keep"), **given)
        if not problems:
            stages.check(config, has_target=config.target is not None, ask=ask)
            if found.evaluate is not None:
                check_evaluated(config)
    except RefusedError as error:
        problems += [_of_method(index, each) for index, each in error.problems]
    except UsageError as error:
        where = error.field or ""
        problems.append(Problem(where, str(error).removeprefix(f"{where}: ")))
    if problems:
        raise lines.refusal(problems)
    return config


def _of_method(index: int, error: UsageError) -> Problem:
    """What is wrong with a method of the list, at its name, its preset or the option at fault."""
    inner = {"method": ".name", "preset": ".preset", "options": ".options"}.get(error.field or "", "")
    option = _OPTION.search(error.message)
    if inner == ".options" and option is not None:
        inner += f".{option[1]}"
    return Problem(f"methods.{index}{inner}", str(error))


def _beside(found: Document, folder: Path) -> Document:
    """The document with its relative paths made to begin at the folder of the recipe."""

    def place(name: str | None) -> str | None:
        if name is None or name == "-":
            return name
        beside = folder / Path(name).expanduser()
        try:
            return str(beside) if beside.exists() else name
        except OSError:  # a name too long for a file
            return name

    def model(name: str | None) -> str | None:
        return name if name in ALIASES or name == TUNED else place(name)

    models: dict[str, Any] = {name: model(getattr(found.measuring, name)) for name in _MODEL_SETTINGS}
    measuring = found.measuring.model_copy(update=models)
    written = {
        what: None if target is None else str(folder / Path(target).expanduser())
        for what, target in found.export.model_dump().items()
    }
    update: dict[str, Any] = {
        "data": place(found.data),
        "target": {task: place(name) for task, name in found.target.items()}
        if isinstance(found.target, dict)
        else place(found.target),
        "measuring": measuring,
        "export": Export(**written),
    }
    if found.contamination is not None:
        against = {name: place(where) for name, where in found.contamination.against.items()}
        update["contamination"] = found.contamination.model_copy(update={"against": against})
    if found.evaluate is not None:
        held_out = {name: place(where) for name, where in found.evaluate.held_out.items()}
        changed = {"held_out": held_out, "model": model(found.evaluate.model)}
        update["evaluate"] = found.evaluate.model_copy(update=changed)
    return found.model_copy(update=update)
