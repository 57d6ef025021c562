"""What may be asked for, and what a wrong wish is answered with."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from datapruner.errors import UsageError
from datapruner.request.config import Measuring, MethodChoice, RunConfig, find
from datapruner.request.keep import Keep
from datapruner.request.parts import Dedup, Rewrite
from scorers.methods.registry import OWN

# Methods


@pytest.mark.parametrize("method", OWN, ids=lambda method: method.name)
def test_every_preset_of_every_method_is_a_valid_choice_with_a_share(method: Any) -> None:
    for preset in method.presets:
        choice, share = MethodChoice.of(method.name, {}, preset)
        assert share is not None
        assert 0 < share <= 1
        assert "keep" not in choice.options


def test_given_options_win_over_those_of_the_preset() -> None:
    choice, share = MethodChoice.of("qtuning", {"token_keep": 0.9, "exact": True}, "paper-12.5x50")
    assert share == 0.125
    assert choice.options["token_keep"] == choice.parsed().token_keep == 0.9
    assert choice.options["exact"] is True
    assert choice.options["scope"] == "batch"


@pytest.mark.parametrize(
    ("name", "options", "preset", "message"),
    [
        (
            "nothing",
            {},
            None,
            r"unknown method 'nothing'; known are qtuning, donod.*\(see `datapruner methods`\)",
        ),
        ("donod", {"rate": 1}, None, r"method donod has no option 'rate' \(known: don_sign, .*learning_rate"),
        ("random", {"x": 1}, None, r"method random has no option 'x' \(known: none\)"),
        (
            "donod",
            {"learning_rate": 0},
            None,
            "method donod: option learning_rate is 0: allowed is a number over 0",
        ),
        ("qtuning", {"scope": "all"}, None, "option scope is 'all': allowed is one of 'corpus', 'batch'"),
        ("donod", {}, "best", r"method donod has no preset 'best' \(known: share-30\)"),
        ("length", {}, "paper", r"method length has no preset 'paper' \(known: none\)"),
        ("topsis", {"criteria": "pppl:high"}, None, "method topsis: criterion 'pppl' is no score; known are"),
    ],
)
def test_a_wrong_method_option_or_preset_is_named_with_those_there_are(
    name: str, options: dict[str, Any], preset: str | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        MethodChoice.of(name, options, preset)


def test_a_method_is_found_by_its_name() -> None:
    assert [find(method.name) for method in OWN] == list(OWN)


# A whole configuration


def test_a_configuration_survives_json() -> None:
    config = RunConfig(
        source="a.jsonl",
        mapping={"prompt": "q", "response": "a"},
        measuring=Measuring(model="m", dtype="bfloat16", max_length=10, overflow="error", train_on="last"),
        methods=[MethodChoice(name="qtuning", options={"token_keep": 0.1})],
        keep=Keep(tokens=7),
        seed=3,
    )
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"methods": []}, "name one method or several, or what to `rewrite` by"),
        ({"methods": [], "rewrite": {"method": "asap"}, "keep": {"share": 0.5}}, "this takes scores"),
        ({"methods": [], "rewrite": {"method": "asap"}, "calibrate": {}}, "this takes scores"),
        ({"methods": ["ppl"], "rewrite": {"method": "asap"}}, "for runs that prune"),
        ({"methods": ["ppl", "donod"], "keep": {"share": 0.5}}, "pruning takes exactly one method"),
        ({"methods": ["ppl"], "kep": {"share": 0.5}}, "Extra inputs are not permitted"),
        ({"methods": ["ppl"], "seed": -1}, "greater than or equal to 0"),
        ({"methods": ["ppl"], "measuring": {"train_on": "first"}}, "'all' or 'last'"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    methods = [{"name": name} for name in fields["methods"]]
    with pytest.raises(ValidationError, match=message):
        RunConfig(**{**fields, "methods": methods})


def test_scoring_takes_several_methods() -> None:
    assert RunConfig(methods=[MethodChoice(name="ppl"), MethodChoice(name="donod")]).keep is None


def test_without_methods_a_run_rewrites_and_keeps_all_that_is_left() -> None:
    config = RunConfig(rewrite=Rewrite(method="dap"))
    assert (config.has_subset, config.keeps_copies, config.title) == (True, True, "rewrite dap")
    assert RunConfig(rewrite=Rewrite(method="dap"), dedup=Dedup()).keeps_copies is False
    scoring = RunConfig(methods=[MethodChoice(name="ppl"), MethodChoice(name="donod")])
    assert (scoring.has_subset, scoring.keeps_copies, scoring.title) == (False, False, "ppl+donod")


@pytest.mark.parametrize("value", ["many", None, [0.5], 10**400, float("nan")])
def test_an_option_of_another_kind_is_wrong(value: object) -> None:
    with pytest.raises(UsageError, match="method qtuning: ") as caught:
        MethodChoice.of("qtuning", {"token_keep": value})
    assert caught.value.field == "options"
