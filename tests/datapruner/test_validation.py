"""What the validation finds is told in people's words, of every field that somebody can set."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

import datapruner.rewriting
import datapruner.schemas
from datapruner import settings, validation
from datapruner.request import config, parts
from datapruner.rewriting.rewriters import Settings as RewriterOptions
from datapruner.runs import recipes
from datapruner.schemas import forms
from datapruner.schemas.common import Request
from datapruner.teacher import TeacherSettings

#: The validation's own manner of speaking.
JARGON = re.compile(
    r"\b(should|input|extra|valid \w+, unable|str|int|float|dict\w*|tuple|none|bool|pydantic|literal|instance"
    r"|pattern|field required|value error|finite_number|union|tag|discriminator)\b",
    re.IGNORECASE,
)
WRONG: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    1.5,
    2**70,
    1e300,
    float("nan"),
    "",
    "x" * 5000,
    "A b",
    "[",
    b"\xff",
]
WRONG += [
    [],
    [1],
    [[]],
    {},
    {"kind": "ftp"},
    {"kind": "hub"},
    {"kind": "hub", "name": "x"},
    {"x": -1},
    {1: 1},
]
WRONG += [{"name": "x", "method": "y"}, {"a": {"direction": "up", "weight": -1}}, {"against": {}}, object()]


def models() -> Iterator[type[BaseModel]]:
    """Every model that checks what somebody sends, writes in a recipe, or sets."""
    for package in (datapruner.schemas, datapruner.rewriting):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(found.name)
    modules = (config, parts, recipes, forms)
    found = {each for module in modules for each in vars(module).values() if isinstance(each, type)}
    bases = (Request, parts.Part, RewriterOptions)
    own = {each for each in found if issubclass(each, bases)}
    waiting = [*bases]
    while waiting:
        for each in waiting.pop().__subclasses__():
            own.add(each)
            waiting.append(each)
    yield from sorted(own | {settings.Settings, TeacherSettings}, key=lambda each: each.__qualname__)


@pytest.mark.parametrize("model", list(models()), ids=lambda model: model.__qualname__)
def test_every_field_of_every_model_is_refused_in_plain_words(model: type[BaseModel]) -> None:
    told = 0
    for name in [*model.model_fields, "strange"]:
        for value in WRONG:
            try:
                model.model_validate({name: value})
            except ValidationError as error:
                for each in error.errors(include_url=False):
                    text = validation.wording(each).replace("str(", "")
                    assert not JARGON.search(text), (model.__qualname__, name, value, each["type"], text)
                    assert "[" not in validation.place(each), (model.__qualname__, name, value, each["loc"])
                    told += 1
    assert told


def test_the_first_problem_names_the_place_what_is_needed_and_what_was_given() -> None:
    with pytest.raises(ValidationError) as caught:
        parts.Dedup(threshold=2)
    told = validation.first_problem(caught.value)
    assert (str(told), told.field) == ("threshold: must be at most 1, not 2", "threshold")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"dtype": "int8"}, "dtype: must be 'auto', 'float32', 'bfloat16' or 'float16', not 'int8'"),
        ({"max_length": 1}, "max_length: must be at least 2, not 1"),
        ({"max_length": "long"}, "max_length: must be a whole number, not 'long'"),
        ({"max_length": 10**5000}, "max_length: must be at most 2,147,483,647, not so large a number"),
        ({"model": None}, "model: must be text, not None"),
        ({"modle": "x"}, "modle: there is no such setting"),
    ],
)
def test_settings_that_are_wrong_are_usage_errors(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(config.UsageError) as caught:
        validation.made(config.Measuring, **settings)
    assert str(caught.value) == told
