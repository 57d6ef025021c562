"""Both spellings, one name or several: what is asked for is the same."""

from __future__ import annotations

from typing import Any

import pytest

from datapruner.errors import UsageError
from datapruner.request import settings as asked
from datapruner.request.config import MethodChoice
from datapruner.request.keep import Keep


@pytest.mark.parametrize("spelling", ["method", "methods"])
@pytest.mark.parametrize("given", ["ppl", ["ppl"], ("ppl",), '["ppl"]'])
def test_one_method_may_be_given_in_either_spelling_as_a_name_or_a_list(spelling: str, given: Any) -> None:
    wanted = {"method": None, "methods": None} | {spelling: given}
    assert asked.one_spelling(**wanted, default="qtuning") == ["ppl"]


def test_several_are_in_the_order_that_they_came_in() -> None:
    assert asked.one_spelling(["ppl", "length"], None) == ["ppl", "length"]


def test_without_either_it_is_the_default_if_there_is_one() -> None:
    assert asked.one_spelling(None, None, default="qtuning") == ["qtuning"]
    with pytest.raises(UsageError, match="the method is missing"):
        asked.one_spelling(None, None)


def test_both_spellings_together_are_refused() -> None:
    with pytest.raises(UsageError, match="two spellings of one setting"):
        asked.one_spelling("ppl", "ppl")


@pytest.mark.parametrize(
    "given", [[], "[]", [3], 3, {"ppl": 1}, {"ppl"}, b"ppl", ["ppl", "ppl"], ["ppl"] * 51]
)
def test_what_is_no_list_of_names_is_refused(given: Any) -> None:
    with pytest.raises(UsageError, match=r"^methods: "):
        asked.listed(given)


@pytest.mark.parametrize("options", [{"prefer": "low"}, {"ppl": {"prefer": "low"}}])
def test_options_of_one_method_are_its_own_or_under_its_name(options: dict[str, Any]) -> None:
    choices, share = asked.choices(["ppl"], options)
    assert (choices, share) == ([MethodChoice(name="ppl", options={"prefer": "low"})], None)


def test_options_of_several_are_under_their_names() -> None:
    choices, _ = asked.choices(["ppl", "length"], {"ppl": {"prefer": "low"}})
    assert [choice.options for choice in choices] == [{"prefer": "low"}, {}]
    with pytest.raises(UsageError, match="by the methods' names"):
        asked.choices(["ppl", "length"], {"prefer": "low"})


def test_options_for_a_method_that_was_not_asked_for_are_refused() -> None:
    with pytest.raises(UsageError, match="options for donod, which is not among the methods ppl"):
        asked.choices(["ppl"], {"donod": {}})


@pytest.mark.parametrize("setting", [{"token_keep": 0.5}, {"preset": "paper-25x50"}])
def test_what_belongs_to_one_method_is_refused_for_several(setting: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="does not say of which method"):
        asked.choices(["qtuning", "ppl"], {}, **setting)


def test_a_preset_says_how_much_to_keep_unless_something_else_does() -> None:
    _, share = asked.choices(["qtuning"], {}, preset="paper-25x50")
    assert asked.amount(None, None, share) == Keep(share=0.25)
    assert asked.amount("count=1", None, share) == Keep(count=1)
    assert asked.amount(None, 9, share) == Keep(tokens=9)
    assert asked.amount(None, None, None) is None
