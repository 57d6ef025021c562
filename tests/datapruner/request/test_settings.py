"""Both spellings, one name or several, texts or values: what is asked for is the same configuration."""

from __future__ import annotations

from typing import Any

import pytest

from datapruner.errors import UsageError
from datapruner.request.config import (
    Measuring,
    MeasuringSettings,
    MethodChoice,
    Reading,
    ReadingSettings,
    RunConfig,
)
from datapruner.request.keep import Keep
from datapruner.request.settings import Asked, RefusedError, assembled, beside, check_prunes, config_for


def configured(**settings: Any) -> RunConfig:
    return config_for(None, settings)


@pytest.mark.parametrize("spelling", ["method", "methods"])
@pytest.mark.parametrize("given", ["ppl", ["ppl"], ("ppl",), '["ppl"]'])
def test_one_method_may_be_given_in_either_spelling_as_a_name_or_a_list(spelling: str, given: Any) -> None:
    assert configured(**{spelling: given}).methods == [MethodChoice(name="ppl")]


def test_several_are_in_the_order_that_they_came_in() -> None:
    assert [choice.name for choice in configured(methods=["ppl", "length"]).methods] == ["ppl", "length"]


@pytest.mark.parametrize("given", [[], "[]", [3], 3, {"ppl": 1}, {"ppl"}, b"ppl", [""], ["ppl"] * 51])
def test_what_is_no_list_of_names_is_refused(given: Any) -> None:
    with pytest.raises(UsageError, match=r"^methods: must be the name of a method, or a list of names"):
        configured(methods=given)


@pytest.mark.parametrize("options", [{"prefer": "low"}, {"ppl": {"prefer": "low"}}])
def test_options_of_one_method_are_its_own_or_under_its_name(options: dict[str, Any]) -> None:
    found = configured(method="ppl", options=options)
    assert found.methods == [MethodChoice(name="ppl", options={"prefer": "low"})]


def test_options_of_several_are_under_their_names() -> None:
    found = configured(methods=["ppl", "length"], options={"ppl": {"prefer": "low"}})
    assert [choice.options for choice in found.methods] == [{"prefer": "low"}, {}]


@pytest.mark.parametrize(
    ("settings", "field", "message"),
    [
        ({}, "method", "the method is missing"),
        ({"method": "ppl", "methods": "ppl"}, "methods", "method and methods are two spellings"),
        ({"methods": ["ppl", "ppl"]}, "methods", "method ppl comes twice"),
        ({"methods": ["ppl", "length"], "options": {"prefer": "low"}}, "options", "by the methods' names"),
        ({"method": "ppl", "options": {"donod": {}}}, "options", "options for donod, which is not among"),
        ({"methods": ["qtuning", "ppl"], "token_keep": 0.5}, "token_keep", "does not say of which method"),
        ({"methods": ["qtuning", "ppl"], "preset": "paper-25x50"}, "preset", "does not say of which method"),
        ({"methods": ["ppl", "length"], "keep": 0.5}, "methods", "pruning takes exactly one method"),
        ({"method": "qtuning", "token_keep": 0.5}, "keep", "how much to keep is missing"),
    ],
)
def test_what_does_not_fit_together_is_told_of_its_setting(
    settings: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        configured(**settings)
    assert caught.value.field == field


def test_a_preset_says_how_much_to_keep_unless_something_else_does() -> None:
    preset = {"method": "qtuning", "preset": "paper-25x50"}
    assert configured(**preset).keep == Keep(share=0.25)
    assert configured(**preset, keep="count=1").keep == Keep(count=1)
    assert configured(**preset, keep_tokens=9).keep == Keep(tokens=9)
    assert configured(method="qtuning").keep is None


def test_what_is_to_prune_says_how_much_or_is_told_the_presets_that_do() -> None:
    check_prunes(configured(method="ppl", keep=0.5))
    with pytest.raises(UsageError, match=r"how much to keep is missing .*a preset that says.*paper-25x50"):
        check_prunes(configured(method="qtuning"))


def test_all_that_is_wrong_with_several_methods_is_known_at_once() -> None:
    with pytest.raises(RefusedError, match="unknown method 'magic'") as caught:
        assembled([Asked(name="ppl"), Asked(name="magic"), Asked(name="donod", preset="best")], None)
    assert [(at, error.field) for at, error in caught.value.problems] == [(1, "method"), (2, "preset")]


def test_settings_of_measuring_may_stand_beside_the_others() -> None:
    nested = {"method": "ppl", "measuring": {"model": "m", "max_length": 64}}
    assert beside({"method": "ppl", "model": "m", "max_length": 64}) == nested
    assert beside(nested) == nested
    assert beside({"method": "ppl"}) == {"method": "ppl"}


@pytest.mark.parametrize(("arguments", "model"), [(ReadingSettings, Reading), (MeasuringSettings, Measuring)])
def test_keyword_arguments_are_the_fields_of_the_model(arguments: Any, model: Any) -> None:
    assert list(arguments.__annotations__) == list(model.model_fields)[-len(arguments.__annotations__) :]
    assert arguments.__total__ is False
    assert set(arguments.__optional_keys__) == set(model.model_fields)
