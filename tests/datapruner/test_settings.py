"""Settings: read from the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from datapruner import settings
from datapruner.errors import UsageError
from datapruner.home import home_folder, made_home


def test_every_setting_has_a_description() -> None:
    assert all(field.description for field in settings.Settings.model_fields.values())


def test_lists_are_read_as_the_table_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATAPRUNER_IMPORT_ROOTS", os.pathsep.join(["/a", "/b c"]))
    monkeypatch.setenv("DATAPRUNER_IMPORT_URLS", "s3://one/ s3://two/x/")
    found = settings.load()
    assert found.import_roots == [Path("/a"), Path("/b c")]
    assert found.import_urls == ["s3://one/", "s3://two/x/"]


def test_the_home_folder_is_the_same_for_a_process_that_starts_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATAPRUNER_HOME", "mine")
    assert settings.load().home == home_folder() == made_home("mine") == tmp_path / "mine"


def test_a_bad_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATAPRUNER_PORT", "eighty")
    with pytest.raises(UsageError, match="DATAPRUNER_PORT") as caught:
        settings.load()
    assert "eighty" not in str(caught.value)


def test_what_is_given_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATAPRUNER_PORT", "1")
    assert settings.load(port=2).port == 2


def test_the_password_of_the_database_is_in_no_text_of_the_settings() -> None:
    found = settings.Settings(database_url="postgresql://me:hidden-words@host/db", secret="hidden-words")
    assert "hidden-words" not in f"{found} {found!r}"
