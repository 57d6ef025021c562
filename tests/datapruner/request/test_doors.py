"""Every door builds the same configuration of the same request, and refuses the same in the same words.

A door is given what it is given in life: texts, values or JSON. What is looked at is what it builds, and the
error as it tells it; that each of them is wired up is tested where it is (`tests/api`, `tests/.../test_cli`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import typer
import yaml  # type: ignore[import-untyped]

from api.problems import answer
from api.uploads import valid
from datapruner.client._request import checked
from datapruner.commands import options, settings
from datapruner.errors import UsageError
from datapruner.request.config import Measuring, RunConfig
from datapruner.request.settings import RunSettings, beside, check_prunes, config_for
from datapruner.runs import recipes
from datapruner.schemas.forms import PruneForm
from datapruner.schemas.prune import NewPrune
from datapruner.schemas.runs import NewRun, RunRequest

Settings = Mapping[str, Any]
Told = tuple[str | None, str]
"""The field that an error names, and its message."""
NAN = float("nan")
HUGE = 2**63


def text(value: Any) -> str:
    """A value as whoever has texts only writes it."""
    return json.dumps(value) if isinstance(value, dict) else str(value)


# Doors: each makes the configuration of a run that prunes, of settings with those of measuring beside others


def python(asked: Settings) -> RunConfig:
    config = config_for(None, asked, target=asked.get("target"))
    check_prunes(config)
    return config


def command_line(asked: Settings) -> RunConfig:
    read: dict[str, Any] = {}
    app = typer.Typer()

    @app.command(cls=settings.of_pruning())
    def prune(context: typer.Context, method: options.Method = None, option: options.Option = None) -> None:
        read.update(options.pruning(context, method, option))

    plain = {name: each for name, each in asked.items() if name != "options"}
    if isinstance(sets := plain.get("target"), dict):
        del plain["target"]
    words = [f"--{name.replace('_', '-')}={text(each)}" for name, each in plain.items()]
    words += [f"--target={task}={place}" for task, place in sets.items()] if isinstance(sets, dict) else []
    words += [f"--option={name}={value}" for name, value in asked.get("options", {}).items()]
    typer.main.get_command(app).main(words, standalone_mode=False)
    return python(read)


def form(asked: Settings) -> RunConfig:
    return requested(valid(PruneForm, {name: text(value) for name, value in asked.items()}))


def body(asked: Settings) -> RunConfig:
    return requested(valid(NewPrune, {**beside(asked), "rows": [{"q": "x"}]}))


def run_body(asked: Settings) -> RunConfig:
    return requested(valid(NewRun, {**beside(asked), "dataset": "sums"}))


def client(asked: Settings) -> RunConfig:
    return requested(valid(RunRequest, checked(RunRequest, **beside(asked))))


def requested(request: RunRequest) -> RunConfig:
    config = recipes.of_request(request, {})
    check_prunes(config)
    return config


def recipe(asked: Settings) -> RunConfig:
    document = beside(asked)
    method = {"name": document.pop("method")}
    method |= {"options": {**document.pop("options", {})}}
    if "token_keep" in document:
        method["options"]["token_keep"] = document.pop("token_keep")
    if "preset" in document:
        method["preset"] = document.pop("preset")
    if "keep_tokens" in document:
        document["keep"] = {"tokens": document.pop("keep_tokens")}
    config = recipes.of_recipe(yaml.safe_dump({"methods": [method], **document}), {})
    check_prunes(config)
    return config


DOORS: dict[str, Callable[[Settings], RunConfig]] = {
    each.__name__: each for each in (body, run_body, python, command_line, form, client, recipe)
}


def in_recipe(message: str) -> Told:
    """The place in a recipe that a message names, and the rest of it."""
    found = re.fullmatch(r"recipe:\d+:\d+: ([\w.]+): (.*)", message, re.DOTALL)
    assert found is not None, message
    return found[1], found[2]


def told(door: str, asked: Settings) -> Told:
    """What is said of a request that is wrong."""
    try:
        config = DOORS[door](asked)
    except UsageError as error:
        if error.field != "recipe":
            return error.field, error.message
        return in_recipe(error.message)
    except Exception as error:  # as the service answers it
        problem = json.loads(answer(error, "request").body)
        return problem["field"], problem["detail"]
    raise AssertionError(f"{door} takes {asked} for {config}")


QTUNING = {"method": "qtuning", "keep": 0.5}
LITERAL = "must be 'auto', 'float32', 'bfloat16' or 'float16'"
NAMES = "must be the name of a method, or a list of names"
KEEP = "a share over 0 and at most 1, as in 0.25 or 25%, or a count of samples, as in 500, not "


@pytest.mark.parametrize(
    ("wrong", "field", "words"),
    [
        ({"seed": -1}, "seed", "must be at least 0"),
        ({"seed": HUGE}, "seed", "must be at most 9,223,372,036,854,775,807"),
        ({"seed": 10**40}, "seed", "must be at most 9,223,372,036,854,775,807"),
        ({"seed": "many"}, "seed", "must be a whole number"),
        ({"seed": ""}, "seed", "must be a whole number"),
        ({"seed": 1.5}, "seed", "must be a whole number"),
        ({"max_length": 1}, "measuring.max_length", "must be at least 2"),
        ({"max_length": 2**31}, "measuring.max_length", "must be at most 2,147,483,647"),
        ({"max_length": "long"}, "measuring.max_length", "must be a whole number"),
        ({"dtype": "int8"}, "measuring.dtype", LITERAL),
        ({"dtype": ""}, "measuring.dtype", LITERAL),
        ({"overflow": "wrap"}, "measuring.overflow", "must be 'truncate' or 'error'"),
        ({"train_on": "first"}, "measuring.train_on", "must be 'all' or 'last'"),
        ({"engine": "spark"}, "engine", "must be 'local' or 'ray'"),
        ({"model": ""}, "measuring.model", "must not be empty"),
        ({"model": "m" * 5000}, "measuring.model", "must have at most 4,096 characters"),
        ({"reference": ""}, "measuring.reference", "must not be empty"),
        ({"embedder": ""}, "measuring.embedder", "must not be empty"),
        ({"reward_model": "x"}, "measuring.reward_model", "no reward is read by qtuning"),
        ({"embedder": "x"}, "measuring.embedder", "no sentence embedding is read by qtuning"),
        ({"reference": "x"}, "measuring.reference", "no reference is read by qtuning"),
        ({"method": "rho"}, "measuring.reference", "method rho needs a reference"),
        ({"target": ""}, "target", "must not be empty"),
        ({"target": "t" * 5000}, "target", "must have at most 4,096 characters"),
        ({"target": "x"}, "target", "no target is read by qtuning"),
        ({"target": {"a": "x", "b": "y"}}, "target", "no target is read by qtuning"),
        ({"target": {"a": "t" * 5000}}, "target.a", "must have at most 4,096 characters"),
        ({"task_column": "kind"}, "task_column", "no target is given whose rows have tasks"),
        ({"method": "target-cosine"}, "target", "method target-cosine needs a target"),
        ({"keep": 0}, "keep", KEEP + "0"),
        ({"keep": 1}, "keep", "1 may mean one sample or all of them"),
        ({"keep": 1.5}, "keep", KEEP + "1.5"),
        ({"keep": HUGE}, "keep", KEEP + "so large a number"),
        ({"keep": "lots"}, "keep", KEEP + "'lots'"),
        ({"keep": ""}, "keep", KEEP + "''"),
        ({"keep": {"size": 2}}, "keep", "by name, one of share, count and tokens, not 'size'"),
        ({"preset": ""}, "preset", "must not be empty"),
        ({"preset": "p" * 201}, "preset", "must have at most 200 characters"),
        ({"preset": "magic"}, "preset", "method qtuning has no preset 'magic'"),
        ({"method": "magic"}, "method", "unknown method 'magic'; known are "),
        ({"options": {"nope": 1}}, "options", "method qtuning has no option 'nope'"),
        ({"options": {"token_keep": 7}}, "options", "method qtuning: option token_keep is 7"),
        (
            {"options": {"scope": "all"}},
            "options",
            "method qtuning: option scope is 'all': allowed is one of",
        ),
        ({"method": "ppl", "token_keep": 0.5}, "options", "method ppl has no option 'token_keep'"),
        ({"token_keep": 7}, "options", "method qtuning: option token_keep is 7"),
    ],
)
def test_what_is_wrong_is_told_alike_at_every_door(wrong: Settings, field: str, words: str) -> None:
    """Of the value at fault, services say nothing; the others add it."""
    said = {door: told(door, QTUNING | wrong) for door in DOORS}
    inner = {"method": "methods.0.name", "preset": "methods.0.preset", "options": "methods.0.options"}
    places = {place for door, (place, _) in said.items() if door != "recipe"}
    assert places == {field}
    assert (said["recipe"][0] or "").startswith(inner.get(field, field.split(".", maxsplit=1)[0]))
    texts = {door: (message or "").removeprefix(f"{field}: ") for door, (_, message) in said.items()}
    assert texts["body"].startswith(words)
    for door, message in texts.items():
        assert message.startswith(texts["body"].split(", not ")[0].split(" is 7")[0]), (door, message)


@pytest.mark.parametrize(
    ("wrong", "field", "words"),
    [
        ({"keep": 0.5, "keep_tokens": 5}, "keep", "a share or count, or a token budget, not both"),
        ({"keep_tokens": 0}, "keep_tokens", "must be at least 1"),
        ({"keep_tokens": HUGE}, "keep_tokens", "must be at most 9,223,372,036,854,775,807"),
        ({"keep_tokens": "few"}, "keep_tokens", "must be a whole number"),
        ({"token_keep": NAN, "keep": 0.5}, "token_keep", "must be a finite number"),
        ({"token_keep": "half", "keep": 0.5}, "token_keep", "must be a number"),
        ({"method": "", "keep": 0.5}, "method", NAMES),
        ({}, "keep", "how much to keep is missing"),
        ({"method": "ppl"}, "keep", "how much to keep is missing"),
    ],
)
def test_what_a_recipe_writes_otherwise_is_told_alike_at_the_other_doors(
    wrong: Settings, field: str, words: str
) -> None:
    said = {door: told(door, {"method": "qtuning"} | wrong) for door in DOORS if door != "recipe"}
    assert {place for place, _ in said.values()} == {field}
    for door, (_, message) in said.items():
        assert message.removeprefix(f"{field}: ").startswith(words), (door, message)


@pytest.mark.parametrize("door", ["python", "form", "body", "run_body", "client", "recipe"])
def test_a_setting_that_there_is_not_is_refused(door: str) -> None:
    field, message = told(door, QTUNING | {"modle": "x"})
    assert field == "modle"
    assert message.removeprefix("modle: ").startswith("there is no such setting")


def test_a_form_and_a_body_are_documented_with_every_setting() -> None:
    """A form has those of measuring beside the others."""
    of_form = set(PruneForm.model_json_schema()["properties"])
    of_body = set(NewPrune.model_json_schema()["properties"])
    assert of_form - {"sha256"} == of_body - {"rows", "measuring"} | set(Measuring.model_fields)
    assert set(RunSettings.model_fields) <= of_body


MEASURED = {
    "seed": 7,
    "model": "tiny",
    "dtype": "bfloat16",
    "max_length": 64,
    "overflow": "error",
    "train_on": "last",
}


@pytest.mark.parametrize(
    "asked",
    [
        {"method": "qtuning", "keep": 0.25},
        {"method": "qtuning", "keep": "25%", "token_keep": 0.75, **MEASURED},
        {"method": "qtuning", "preset": "paper-25x50", "options": {"exact": True, "scope": "batch"}},
        {"method": "length", "keep": 3},
        {"method": "length", "keep": 3, "engine": "ray"},
        {"method": "ppl", "keep_tokens": 9, "options": {"prefer": "low"}},
        {"method": "donod", "keep": {"count": 1}, "options": {"learning_rate": 0.001}},
        {"method": "rho", "keep": 1.0, "reference": "other", "seed": HUGE - 1},
        {"method": "target-cosine", "keep": 0.5, "target": "aims"},
        {"method": "rds", "keep": 0.5, "target": {"maths": "sums", "code": "loops"}, "task_column": "kind"},
        {
            "method": "divprune",
            "keep": 0.5,
            "options": {"embedding": "sentence_embedding"},
            "embedder": "all-minilm-l6-v2",
        },
        {"method": "judge", "keep": 0.5, "options": {"rubric": "deita", "at_least": 12.0}},
        {"method": "reward", "keep": 0.5, "options": {"label": "good"}, "reward_model": "org/name"},
    ],
    ids=lambda asked: f"{asked['method']}-{len(asked)}",
)
def test_the_same_request_is_the_same_configuration_at_every_door(asked: Settings) -> None:
    """And so the same run: its id is a hash of the configuration and of what the rows and models are."""
    found = {name: door(asked) for name, door in DOORS.items()}
    expected = found["python"]
    assert expected.keep is not None
    assert expected.measuring.model == asked.get("model", "smollm2-135m")
    assert {name for name, config in found.items() if config != expected} == set()
    documents = {json.dumps(config.model_dump(mode="json"), sort_keys=True) for config in found.values()}
    assert len(documents) == 1
