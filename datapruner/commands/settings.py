"""Options of commands that are made of fields: one for each setting of a run, or of a part of one.

Name, default and what it is for stand in the field, and so do the bounds: the text that is given goes to the
model as it is, so that the command line refuses in the words of every other door. Such options are made when
a command is called or its help wanted, as the fields need libraries that `datapruner --help` does without.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

import typer
from typer.core import TyperCommand

from datapruner.commands.named import targets

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

Fields = Mapping[str, "FieldInfo"]
_METAVARS = {"keep": "SHARE|COUNT", "token_keep": "SHARE", "target": "[TASK=]DATA"}
_REPEATABLE = {"target": targets}
"""Settings that are given once for each set, and what makes their value."""
_ENDLESS = 2**31 - 1


class SettingsCommand(TyperCommand):
    """A command with an option for each of some fields; its function finds what was given in `given`."""

    fields: ClassVar[Callable[[SettingsCommand], Fields]]
    _own: list[Any]

    @cached_property
    def _settings(self) -> list[Any]:
        return _options(self.fields())

    @cached_property
    def _all(self) -> list[Any]:
        return [*self._own, *self._settings]

    @property
    def params(self) -> list[Any]:
        """The parameters of the function, and the settings: one list, as --help is added to it."""
        return self._all

    @params.setter
    def params(self, own: list[Any]) -> None:
        self._own = own

    def invoke(self, ctx: Any) -> Any:
        """Call the function, with the settings that were given in the context."""
        values = {each.name: ctx.params.pop(each.name) for each in self._settings}
        values |= {name: made(values[name]) for name, made in _REPEATABLE.items() if name in values}
        ctx.obj = {name: value for name, value in values.items() if value is not None}
        return super().invoke(ctx)


def given(context: typer.Context) -> dict[str, Any]:
    """The settings that were given to a command, as texts that their models read."""
    return dict(context.obj)


def of_run(*names: str) -> type[SettingsCommand]:
    """For commands with these settings of a run, and all those of measuring."""

    def fields(_: SettingsCommand) -> Fields:
        from datapruner.request.config import Measuring
        from datapruner.request.settings import RunSettings

        return {name: RunSettings.model_fields[name] for name in names} | Measuring.model_fields

    return _command(fields)


def of_pruning() -> type[SettingsCommand]:
    """For commands that prune by one method."""
    return of_run("keep", "keep_tokens", "token_keep", "preset", "seed", "target", "task_column", "engine")


def of_reading(*names: str) -> type[SettingsCommand]:
    """For commands that measure with the proxy model alone: all settings of it, or these."""

    def fields(_: SettingsCommand) -> Fields:
        from datapruner.request.config import Reading

        return {name: field for name, field in Reading.model_fields.items() if not names or name in names}

    return _command(fields)


def of_gate() -> type[SettingsCommand]:
    """For the command that drops rows whose text shows a defect."""

    def fields(_: SettingsCommand) -> Fields:
        from datapruner.request.parts import Gate

        return {name: Gate.model_fields[name] for name in Gate.OF_TEXT}

    return _command(fields)


def of_dedup() -> type[SettingsCommand]:
    """For the command that drops near duplicates."""

    def fields(_: SettingsCommand) -> Fields:
        from datapruner.request.parts import Dedup

        return Dedup.model_fields

    return _command(fields)


def of_calibration() -> type[SettingsCommand]:
    """For the command that chooses a batch to calibrate compression with."""

    def fields(_: SettingsCommand) -> Fields:
        from datapruner.curation.calibration import Draw
        from datapruner.request.config import Reading

        return Draw.model_fields | Reading.model_fields

    return _command(fields)


def _command(fields: Callable[[SettingsCommand], Fields]) -> type[SettingsCommand]:
    return type("SettingsCommand", (SettingsCommand,), {"fields": fields})


def _options(fields: Fields) -> list[Any]:
    """Options that take texts, None where nothing is given."""

    def command() -> None: ...

    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                list[str] | None if name in _REPEATABLE else str | None,
                typer.Option(
                    metavar=_METAVARS.get(name) or _metavar(field),
                    help=_help(field) + (" Repeatable." if name in _REPEATABLE else ""),
                    show_default=False if field.default is None else str(field.default),
                    rich_help_panel="Settings",
                ),
            ],
        )
        for name, field in fields.items()
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    app = typer.Typer(add_completion=False)
    app.command()(command)
    return list(typer.main.get_command(app).params)


def _help(field: FieldInfo) -> str:
    """What a field is for, as a sentence."""
    assert field.description, field
    return f"{field.description[0].upper()}{field.description[1:]}."


def _metavar(field: FieldInfo) -> str:
    """What a value looks like: its choices, a number and its bounds, or a text."""
    kinds = _kinds(field.annotation)
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    if choices:
        return f"<{'|'.join(choices)}>"
    name = next((kind.__name__ for kind in (float, int) if kind in kinds), "str")
    return f"<{name}>{_bounds(field)}"


def _bounds(field: FieldInfo) -> str:
    """Such as ` [x>=2]`; without bounds that are only what a file can hold."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = {name: getattr(each, name) for each in field.metadata for name in signs if hasattr(each, name)}
    told = [f"x{signs[name]}{bound}" for name, bound in found.items() if bound < _ENDLESS]
    return f" [{', '.join(told)}]" if told else ""


def _kinds(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
