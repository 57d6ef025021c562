"""A pytest plugin: a tiny proxy model, and a home in which it measured a corpus once for all tests."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

import datapruner
from datapruner.library import Result
from tests.tiny_model import save_tiny_model, write_corpus

Prune = partial[Result]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus of `tests.tiny_model.LINES`."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "motley.jsonl")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def options(tiny_folder: Path) -> dict[str, Any]:
    """What every call that measures with the tiny model is given."""
    return {"model": str(tiny_folder), "device": "cpu"}


@pytest.fixture(scope="session")
def first_run(corpus_file: Path, home: Path, options: dict[str, Any]) -> Result:
    """The run that measured the corpus into `home`."""
    return datapruner.prune(corpus_file, "qtuning", 0.5, home=home, **options)


@pytest.fixture(scope="session")
def prune(first_run: Result, corpus_file: Path, home: Path, options: dict[str, Any]) -> Prune:
    """`datapruner.prune` of the corpus, already measured: give the method and how much to keep."""
    return partial(datapruner.prune, corpus_file, home=home, **options)
