"""A scripted teacher, and a client of it that does not wait long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from datapruner.http.retries import Retries
from datapruner.teacher import Question, Teacher, load
from tests.datapruner.client.unruly import Unruly, unruly_server

QUICK = Retries(count=3, first=0.01, longest=0.02, patience=5.0)
KEY = "sk-secret/very+secret=1234567890"
Connect = Callable[..., Teacher]


@pytest.fixture
def script() -> Iterator[Unruly]:
    """A server of the test's own: no request that another has given up can come late to it."""
    with unruly_server() as server:
        yield server


@pytest.fixture
def connect(script: Unruly, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """`connect(concurrency=2)`: a teacher with these settings, and a store of this test's own."""
    monkeypatch.setenv("DATAPRUNER_TEACHER_API_KEY", KEY)

    def teacher(**given: Any) -> Teacher:
        made = Teacher(
            load(**{"base_url": f"{script.url}/v1", "model": "m"} | given), store=tmp_path / "answers.sqlite"
        )
        made.retries = QUICK
        return made

    return teacher


def question(row: str = "r1", text: str = "Why?", **more: Any) -> Question:
    given: dict[str, Any] = {"prompt": "p@1", "temperature": 0.0, "max_tokens": 50} | more
    return Question(row=row, messages=[{"role": "user", "content": text}], **given)
