"""A dry run: the questions that would be asked, counted and priced, with no teacher anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datapruner.beforehand import estimate_rewrite
from datapruner.errors import UsageError
from datapruner.teacher import TeacherSettings
from tests.command_line import Said

ROWS: list[dict[str, Any]] = [
    {"question": "What is 2+2?", "thinking": "Let me see.\n\nTwo and two.\n\nFour.", "answer": "4"},
    {"question": "What is 3+2?", "thinking": "Hm.\n\nThree and two.\n\nFive.", "answer": "5"},
    {"question": "What is 3+2?", "thinking": "Hm.\n\nThree and two.\n\nFive.", "answer": "5"},
    {"question": "No thoughts?", "answer": "7"},
]


@pytest.mark.parametrize(
    ("method", "options", "a_row"),
    [("dap", {}, 1), ("dap", {"mode": "two_call"}, 2), ("anchor", {}, 2)],
)
def test_each_row_with_reasoning_is_asked_about_once_a_step_and_copies_never(
    tmp_path: Path, method: str, options: dict[str, Any], a_row: int
) -> None:
    found = estimate_rewrite(ROWS, method, teacher=TeacherSettings(), options=options, home=tmp_path)
    assert (found.questions, found.requests, found.stored) == (2 * a_row, 2 * a_row, 0)
    assert found.prompt_tokens > sum(len(row.get("thinking", "")) for row in ROWS[:2]) / 5
    assert found.cost is None


def test_with_prices_it_says_the_cost_and_which_limit_would_stop_the_job(tmp_path: Path) -> None:
    teacher = TeacherSettings(prompt_price=1, completion_price=3, max_requests=1)
    found = estimate_rewrite(ROWS, "dap", teacher=teacher, options={"max_tokens": 1000}, home=tmp_path)
    assert found.completion_tokens == 2000
    assert found.cost == pytest.approx((found.prompt_tokens + 3 * 2000) / 1e6)
    assert found.exceeds == ("DATAPRUNER_TEACHER_MAX_REQUESTS",)


def test_a_method_without_a_teacher_has_nothing_to_rehearse(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="asap asks no teacher"):
        estimate_rewrite(ROWS, "asap", teacher=TeacherSettings(), home=tmp_path)


def test_the_command_prints_the_estimate(command: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "2+2?", "thinking": "Two.\\n\\nTwo.", "answer": "4"}\n')
    said: Said = command("rewrite", "dap", path, "--dry-run", home=tmp_path / "home")
    assert said.code == 0, said.err
    assert "1 requests to make" in said.out
