"""What all tests share: their order, patience with made-up examples, and the proxy model, fetched once."""

from __future__ import annotations

import gc
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from scorers.models import sources

# What is imported and collected for the tests stays: to look through all of it for garbage, again and again,
# was a third of the time.
gc.disable()

# Examples may take as long as they take, on a busy machine too.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
pytest_plugins = [
    "tests.pipeline",
    "tests.served",
    "tests.browser",
    "tests.databases",
    "tests.object_store",
    "tests.disks",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: with several processes, what starts last should be short."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # else DuckDB says on ending that what it made has leaked


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct."""
    return sources.pull("smollm2-135m", Path(os.environ.get("DATAPRUNER_HOME", Path.home() / ".datapruner")))


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2)
