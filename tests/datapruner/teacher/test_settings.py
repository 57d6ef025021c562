"""Settings of the teacher: from the environment, and the key from nowhere else."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from datapruner.errors import UsageError
from datapruner.teacher import load

KEY = "sk-secret"


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATAPRUNER_TEACHER_BASE_URL", "http://host:8000/v1/")
    monkeypatch.setenv("DATAPRUNER_TEACHER_MODEL", "big")
    monkeypatch.setenv("DATAPRUNER_TEACHER_API_KEY", f"{KEY}\n")
    monkeypatch.setenv("DATAPRUNER_TEACHER_MAX_REQUESTS", "10")
    found = load(max_requests=20)
    assert found.configured
    assert found.base_url == "http://host:8000/v1"
    assert found.api_key.get_secret_value() == KEY
    assert found.max_requests == 20


def test_without_an_address_there_is_no_teacher() -> None:
    assert not load(model="m").configured


def test_the_key_is_taken_from_no_argument() -> None:
    with pytest.raises(UsageError, match="DATAPRUNER_TEACHER_API_KEY"):
        load(api_key=KEY)


def test_the_key_is_in_no_dump(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATAPRUNER_TEACHER_API_KEY", KEY)
    found = load()
    assert "api_key" not in found.model_dump()
    assert KEY not in found.model_dump_json() + repr(found) + str(found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_key", f"{KEY} \N{SNOWMAN}"),
        ("base_url", f"http://user:{KEY}@host/v1"),
        ("base_url", f"http://host/v1?key={KEY}"),
        ("base_url", f"http://host/v1#{KEY}"),
        ("base_url", f"ftp://{KEY}"),
        ("base_url", f"http://host:{KEY}/v1"),
        ("concurrency", KEY),
        ("concurrency", "0"),
        ("max_cost", "nan"),
    ],
)
def test_a_bad_value_names_its_variable_and_not_itself(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"DATAPRUNER_TEACHER_{name.upper()}", value)
    with pytest.raises(UsageError, match=f"DATAPRUNER_TEACHER_{name.upper()}") as caught:
        load()
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("given", [{"max_cost": 1.0}, {"max_cost": 1.0, "prompt_price": 2.0}])
def test_a_limit_of_money_needs_prices(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="DATAPRUNER_TEACHER_COMPLETION_PRICE"):
        load(**given)


def test_a_name_that_is_no_setting_is_told() -> None:
    with pytest.raises(UsageError, match="max_token"):
        load(max_token=1)
