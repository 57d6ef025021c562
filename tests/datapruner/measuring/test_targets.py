"""Which rows are selected towards, and what is said of those that cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from datapruner.corpora import store
from datapruner.corpora.corpus import Corpus
from datapruner.errors import NothingSurvivedError, UsageError
from datapruner.measuring.targets import TargetSet, check_column, target_rows
from datapruner.progress import Silent

Made = Callable[..., TargetSet]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    """Makes a set of rows, each a question and what else it has."""
    with ExitStack() as stack:

        def make(*rows: dict[str, Any], task: str = "") -> TargetSet:
            whole = [{"output": "yes", **row} for row in rows]
            path = store.ingest_to(whole, {}, tmp_path, Silent())
            return TargetSet(task, stack.enter_context(Corpus(path)))

        yield make


def row(question: str, **columns: Any) -> dict[str, Any]:
    return {"instruction": question, **columns}


def lines(found: Any) -> list[tuple[int, int, str]]:
    return found.lines.select("set", "row", "task").rows()  # type: ignore[no-any-return]


def test_sets_are_tasks_and_a_sample_counts_once_in_each(made: Made) -> None:
    sets = [made(row("a"), row("b"), row("a"), task="x"), made(row("b"), row("c"), task="y")]
    found = target_rows(sets, None, [{}, {}])
    assert lines(found) == [(0, 0, "x"), (0, 1, "x"), (1, 0, "y"), (1, 1, "y")]
    assert found.rows.tolist() == [0, 1, 0, 1]
    assert found.tasks is not None
    assert found.tasks.tolist() == ["x", "x", "y", "y"]


def test_one_set_without_a_name_has_no_tasks(made: Made) -> None:
    found = target_rows([made(row("a"), row("b"))], None, [{}])
    assert (found.tasks, len(found.ids)) == (None, 2)


def test_a_column_names_tasks_across_sets(made: Made) -> None:
    sets = [
        made(row("a", kind=" x "), row("b", kind="y"), row("a", kind="y"), row("a", kind="x")),
        made(row("a", kind="x"), row("c", kind="y")),
    ]
    assert lines(target_rows(sets, "kind", [{}, {}])) == [
        (0, 0, "x"),
        (0, 1, "y"),
        (0, 2, "y"),
        (1, 1, "y"),
    ]


def test_tasks_may_be_numbers(made: Made) -> None:
    found = target_rows([made(row("a", kind=1), row("b", kind=2))], "kind", [{}])
    assert lines(found) == [(0, 0, "1"), (0, 1, "2")]


def test_a_column_that_is_not_there_is_named_with_those_that_are(made: Made) -> None:
    each = made(row("a", kind="x"), task="maths")
    with pytest.raises(UsageError, match=r"set maths has no column 'knd'.*columns are .*kind") as refused:
        check_column(each, "knd")
    assert refused.value.field == "task_column"


@pytest.mark.parametrize("value", [None, "  ", "two\nlines", "x" * 201])
def test_a_row_without_a_task_is_named(made: Made, value: str | None) -> None:
    sets = [made(row("a", kind="x"), row("b", kind=value))]
    with pytest.raises(UsageError, match="the target set, row 1: column 'kind' names no task"):
        target_rows(sets, "kind", [{}])


def test_what_could_not_be_measured_is_left_out_and_told(made: Made) -> None:
    one = made(row("a"), row("b"), task="x")
    ids = one.corpus.sample_index()["sample_id"].to_list()
    found = target_rows([one], None, [{ids[0]: "too long"}])
    assert found.ids == ids[1:]
    [told] = found.warnings()
    assert told == "1 of 2 samples of the target set are left out: too long"


def test_a_task_of_which_nothing_is_left_is_refused(made: Made) -> None:
    one = made(row("a", kind="x"), row("b", kind="y"))
    ids = one.corpus.sample_index()["sample_id"].to_list()
    with pytest.raises(NothingSurvivedError, match=r"nothing of task y of .*the first: too long"):
        target_rows([one], "kind", [{ids[1]: "too long"}])
