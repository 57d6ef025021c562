"""Options that are made of fields: which there are, what they say of themselves, and what comes of them."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer

from datapruner import cli
from datapruner.commands import settings
from datapruner.request.config import DEFAULT_METHOD, Measuring, Reading
from datapruner.request.settings import RunSettings


def found(*words: str) -> Any:
    """A command, by the words that call it."""
    command = typer.main.get_command(cli.app)
    for word in words:
        command = command.commands[word]  # type: ignore[attr-defined]
    return command


def option_names(*words: str) -> set[str]:
    return {each.name for each in found(*words).params}


@pytest.mark.parametrize("words", [("prune",), ("schedules", "create")])
def test_a_command_that_prunes_has_every_setting_of_a_run(words: tuple[str, ...]) -> None:
    of_doors = {"methods", "options", "measuring"}  # --option and --method are read by the commands
    assert set(RunSettings.model_fields) - of_doors | set(Measuring.model_fields) <= option_names(*words)


@pytest.mark.parametrize("words", [("score",), ("calibrate",), ("rewrite", "asap")])
def test_a_command_that_measures_has_every_setting_of_the_proxy_model(words: tuple[str, ...]) -> None:
    assert set(Reading.model_fields) <= option_names(*words)


def test_every_field_says_what_it_is_for() -> None:
    fields = RunSettings.model_fields | Measuring.model_fields
    assert {name for name, field in fields.items() if not field.description} <= {"measuring"}


def test_help_says_what_a_value_may_be(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["prune", "--help"])
    shown = " ".join(re.sub("[│╭╰─╮╯]", " ", capsys.readouterr().out).split())
    for told in ("--max-length <int> [x>=2]", "--overflow <truncate|error>", "--keep SHARE|COUNT"):
        assert told in shown
    assert f"({DEFAULT_METHOD})" in shown


def test_a_command_finds_what_was_given_and_no_more() -> None:
    app = typer.Typer()
    seen: dict[str, Any] = {}

    @app.command(cls=settings.of_dedup())
    def dedup(context: typer.Context) -> None:
        seen.update(settings.given(context))

    typer.main.get_command(app).main(["--threshold", "0.5", "--part="], standalone_mode=False)
    assert seen == {"threshold": "0.5", "part": ""}
