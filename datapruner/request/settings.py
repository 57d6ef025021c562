"""What may be set of a run, and how it becomes the run's configuration: once, for every door that asks.

    command line, form    texts, the settings of measuring beside the others    `beside`
    Python                values, likewise
    JSON                  values, the settings of measuring in an object of their own
    recipe                methods with their options each, and stages           `datapruner.runs.recipes`

Notable choices:
- a setting's name, bounds, default and what it is for stand here, in fields; options of commands, fields of
  forms and the documented schema are made of them;
- whatever the door, an error names a setting by its place in the JSON body, such as `measuring.max_length`;
- `method` and `methods` are two spellings of one setting, a name or a list of names. What says how much to
  keep prunes, with one method; what does not say so scores, by one method or several.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, PlainSerializer, TypeAdapter, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from datapruner import validation
from datapruner.errors import UsageError
from datapruner.input.shapes.columns import mapped_columns
from datapruner.request import needs
from datapruner.request.config import DEFAULT_METHOD, EngineField, Measuring, MethodChoice, RunConfig, find
from datapruner.request.keep import DESCRIPTION, Amount, Keep, parse_keep
from datapruner.request.parts import LARGEST, Name, Part, Seed, is_none
from datapruner.request.targets import Targets

MOST_METHODS = 50
_ABOUT = ("measuring", "target", "task_column", "seed", "engine")


def _names(given: Any) -> list[str]:
    """A name, or several, as a list; a text may hold a JSON list, as in a form."""
    if isinstance(given, str) and given.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):  # else it is the name of no method
            given = json.loads(given)
    names = [given] if isinstance(given, str) else given
    try:
        if not isinstance(names, Sequence) or isinstance(names, str | bytes):
            raise TypeError
        return _LISTED.validate_python(list(names), strict=True)
    except (TypeError, ValidationError):
        said = {"remedy": 'such as "donod" or ["donod", "ppl"]'}
        raise PydanticCustomError(
            "methods", "must be the name of a method, or a list of names", said
        ) from None


def methods_given(method: Any, methods: Any) -> dict[str, Any]:
    """What is given in the two spellings, by default the method that is taken when none is named."""
    return {"method": DEFAULT_METHOD if method is None and methods is None else method, "methods": methods}


_LISTED: TypeAdapter[list[str]] = TypeAdapter(
    Annotated[list[Name], Field(min_length=1, max_length=MOST_METHODS)]
)
_NAME = {"type": "string", "minLength": 1, "maxLength": 200}
Names = Annotated[
    list[str],
    BeforeValidator(_names),
    PlainSerializer(lambda names: names[0] if len(names) == 1 else names, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                _NAME,
                {
                    "type": "array",
                    "items": _NAME,
                    "minItems": 1,
                    "maxItems": MOST_METHODS,
                    "uniqueItems": True,
                },
            ]
        }
    ),
]
"""The field of a request that names methods."""


class RunSettings(Part):
    """What may be set of a run, besides the rows and a recipe's stages."""

    method: Names | None = Field(None, description="name of a method, or a list of them")
    methods: Names | None = Field(None, description="another spelling of `method`")
    keep: Amount | None = Field(None, description=DESCRIPTION)
    keep_tokens: int | None = Field(None, ge=1, le=LARGEST, description="or: a budget of trained tokens")
    token_keep: float | None = Field(None, description="share of the response tokens to keep")
    preset: Name | None = Field(
        None, description="published settings of the method; may say how much to keep"
    )
    options: dict[str, Any] = Field({}, description="of the method; of several: by method name")
    measuring: Measuring = Measuring()
    target: Targets = Field(
        None,
        description="for methods that select towards other rows: a file or Hub name or, at a service, a "
        "dataset of the project, by name or id, at its latest version or, as in name@3, at another; several "
        "sets by the names of their tasks",
    )
    task_column: Name | None = Field(
        None,
        exclude_if=is_none,
        description="column of the target set that names each row's task, as in the rows themselves",
    )
    seed: Seed = 0
    engine: EngineField = None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """These settings, those of measuring beside the others or in an object. Raises UsageError."""
        return validation.made(cls, **beside(settings))


def beside(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a door that has those of measuring beside the others, as they are in a JSON body."""
    if "measuring" in settings:
        return dict(settings)
    measuring = {name: value for name, value in settings.items() if name in Measuring.model_fields}
    others = {name: value for name, value in settings.items() if name not in measuring}
    return others | ({"measuring": measuring} if measuring else {})


class Asked(Part):
    """A method as it is asked for."""

    name: Name = Field(description="name of a method")
    options: dict[str, Any] = Field({}, description="its options")
    preset: Name | None = Field(None, description="its published settings; may say how much to keep")


class RefusedError(UsageError):
    """What is wrong with the methods that are asked for: of each its place in the list, and the error."""

    def __init__(self, problems: Sequence[tuple[int, UsageError]]) -> None:
        super().__init__("; ".join(str(error) for _, error in problems), field="methods")
        self.problems = problems


def run_config(
    settings: RunSettings,
    *,
    mapping: Mapping[str, str],
    source: str | None = None,
    has_target: bool | None = None,
) -> RunConfig:
    """The configuration of the run that is asked for. `has_target`: that there are rows to select towards, by
    default when `settings` names them.

    Raises UsageError, naming the setting, for all that can be known to be wrong before anything is read.
    """
    about = {name: getattr(settings, name) for name in _ABOUT}
    try:
        config = assembled(_asked(settings), _amount(settings), source=source, mapping=mapping, **about)
    except RefusedError as error:
        raise error.problems[0][1] from None
    if settings.token_keep is not None or "keep" in settings.model_fields_set:
        check_prunes(config)
    needs.check(config, has_target=settings.target is not None if has_target is None else has_target)
    return config


def config_for(
    source: Any, settings: Mapping[str, Any], *, mapping: Mapping[str, str] | None = None, target: Any = None
) -> RunConfig:
    """`run_config` of a door that has the rows at hand, and those to select towards. Raises UsageError."""
    wanted = RunSettings.of({**settings, "target": names_of(target)})
    return run_config(wanted, mapping=mapping or {}, source=name_of(source), has_target=target is not None)


def name_of(rows: Any) -> str | None:
    """The path or Hub name that rows are found by, None when they come from Python or standard input."""
    return str(rows) if isinstance(rows, str | Path) and str(rows) != "-" else None


def names_of(targets: Any) -> str | dict[str, str] | None:
    """`name_of` of the rows to select towards, or of several sets by their tasks; None when one has none."""
    if not isinstance(targets, Mapping):
        return name_of(targets)
    names = {task: name_of(rows) for task, rows in targets.items()}
    found = {task: name for task, name in names.items() if name is not None}
    return found if len(found) == len(names) else None


def _amount(settings: RunSettings) -> Keep | None:
    """How much to keep as far as it is said. Raises UsageError when it is said twice."""
    if settings.keep is None and settings.keep_tokens is None:
        return None
    return parse_keep(settings.keep, tokens=settings.keep_tokens)


def _asked(settings: RunSettings) -> list[Asked]:
    """The methods with their options. Raises UsageError for what does not say of which method it is."""
    if settings.method is not None and settings.methods is not None:
        raise UsageError(
            "method and methods are two spellings of one setting", remedy="give one of them", field="methods"
        )
    names = settings.method or settings.methods
    if names is None:
        raise UsageError("the method is missing", remedy="see the list of methods", field="method")
    options = settings.options
    by_name = bool(options) and all(isinstance(each, Mapping) for each in options.values())
    if by_name and (stray := sorted(options.keys() - set(names))):
        raise UsageError(
            f"options for {', '.join(stray)}, which is not among the methods {', '.join(names)}",
            field="options",
        )
    if len(names) == 1:
        [name] = names
        own = dict(options[name] if by_name else options)
        own |= {} if settings.token_keep is None else {"token_keep": settings.token_keep}
        return [Asked(name=name, options=own, preset=settings.preset)]
    for setting in ("token_keep", "preset"):
        if getattr(settings, setting) is not None:
            raise UsageError(
                f"{setting} does not say of which method", remedy="name one method", field=setting
            )
    if options and not by_name:
        raise UsageError(
            "with several methods, options are given by the methods' names",
            remedy=f'such as {{"{names[0]}": {{...}}}}',
            field="options",
        )
    return [Asked(name=name, options=dict(options.get(name, {}))) for name in names]


def assembled(asked: Sequence[Asked], keep: Keep | None, **settings: Any) -> RunConfig:
    """The configuration of methods as they are asked for, and the other `settings` of `RunConfig`. One
    method's preset says how much to keep where `keep` does not.

    Raises RefusedError for methods, presets and options, and UsageError for what does not fit together.
    """
    choices: list[MethodChoice] = []
    share: float | None = None
    problems: list[tuple[int, UsageError]] = []
    for index, each in enumerate(asked):
        try:
            if any(each.name == other.name for other in asked[:index]):
                raise UsageError(f"method {each.name} comes twice", remedy="leave one out", field="methods")
            choice, share = MethodChoice.of(each.name, each.options, each.preset)
            choices.append(choice)
        except UsageError as error:
            problems.append((index, error))
    if problems:
        raise RefusedError(problems)
    if keep is None and share is not None and len(asked) == 1:
        keep = Keep(share=share)
    config = validation.made(RunConfig, methods=choices, keep=keep, **settings)
    if config.mapping:
        mapped_columns(config.mapping)
    return config


def check_prunes(config: RunConfig) -> None:
    """Raise UsageError when a run that is to prune does not say how much to keep."""
    if not config.has_subset:
        presets = [name for choice in config.methods for name in find(choice.name).presets]
        known = f" ({', '.join(presets)})" if presets else ""
        raise UsageError(
            "how much to keep is missing",
            remedy=f"give keep (0.25, 25% or 500), keep_tokens, or a preset that says{known}",
            field="keep",
        )
