"""Two runs compared by their own scores too, in Python and on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import scipy.stats

import datapruner
from datapruner.result import Result
from datapruner.runs.comparison import Compared, compare
from tests.command_line import Said
from tests.pipeline import Prune

Command = Callable[..., Said]


def of(result: Result) -> Compared:
    return Compared(result.run.run_id, result.run.database, result.report.scores)


def expected(first: Result, second: Result, one: str, other: str) -> tuple[int, float]:
    """Samples and rank correlation of two columns, by the field's own function."""
    mine, theirs = (
        result.scores.unique("sample_id", keep="first").select("sample_id", pl.col(column).alias(name))
        for result, column, name in ((first, one, "mine"), (second, other, "theirs"))
    )
    both = mine.join(theirs, on="sample_id").drop_nulls().drop_nans()
    return len(both), scipy.stats.spearmanr(both["mine"], both["theirs"]).statistic


@pytest.mark.parametrize(
    ("method", "own"),
    [
        ("donod", ["donod"]),
        ("target-cosine", ["target_cosine"]),
        ("qtuning", ["ppl", "entropy"]),  # it has no single one
        ("sfprompt", ["el2n"]),  # and the group, which is no score
        ("divprune", []),  # it picks
        ("length", ["length"]),
    ],
)
def test_a_run_says_which_scores_it_ranks_by(prune: Prune, method: str, own: list[str]) -> None:
    assert prune(method, 0.5).report.scores == own


def test_each_runs_own_score_is_compared_with_the_others(prune: Prune) -> None:
    first, second = prune("donod", 0.5), prune("ifd", 0.5)
    found = compare(of(first), of(second))
    assert "donod" not in {each.column for each in found.correlations}  # the second has none
    [own] = found.own_scores
    samples, spearman = expected(first, second, "donod", "ifd")
    assert (own.first, own.second, own.samples) == ("donod", "ifd", samples)
    assert own.spearman == pytest.approx(spearman)


def test_of_methods_with_several_scores_each_is_compared(prune: Prune, first_run: Result) -> None:
    second = prune("donod", 0.5)
    found = compare(of(first_run), of(second))
    assert [(each.first, each.second) for each in found.own_scores] == [
        ("ppl", "donod"),
        ("entropy", "donod"),
    ]
    for each in found.own_scores:
        assert each.spearman == pytest.approx(expected(first_run, second, each.first, each.second)[1])
    same = compare(of(second), of(second))
    assert [each.spearman for each in same.own_scores] == [1.0]


def test_a_run_that_scores_by_many_methods_is_compared_by_the_first_eight(
    corpus_file: Path, home: Path, options: dict[str, Any], first_run: Result
) -> None:
    methods = ["ppl", "donod", "el2n", "length", "random", "ifd", "qtuning", "ccs", "semdedup", "cot-influx"]
    scored = datapruner.score(corpus_file, methods, home=home, **options)
    assert len(scored.report.scores) > 8
    found = compare(of(scored), of(first_run))
    assert list(dict.fromkeys(each.first for each in found.own_scores)) == scored.report.scores[:8]


# On the command line


def test_the_command_shows_what_each_keeps_and_how_alike_they_rank(
    command: Command, prune: Prune, first_run: Result, home: Path
) -> None:
    second = prune("ifd", 0.25)
    said = command("compare", first_run.run.run_id[:10], second.run.run_id, "--json", home=home)
    assert said.code == 0, said.err
    assert said.json == compare(of(first_run), of(second)).model_dump(mode="json")
    shown = command("compare", first_run.run.run_id, second.run.run_id, home=home)
    assert shown.code == 0, shown.err
    assert f"{second.run.run_id}: ifd, keeping 25 % of the samples" in shown.out
    for text in (
        "by the first alone",
        "ppl and ifd",
        "entropy and ifd",
        "Scores that both have",
        "(Jaccard)",
    ):
        assert text in shown.out


def test_the_latest_run_can_be_named_so(command: Command, first_run: Result, home: Path) -> None:
    said = command("compare", "latest", first_run.run.run_id, "--json", home=home)
    assert said.code == 0, said.err
    assert said.json["second"] == first_run.run.run_id


def test_what_is_no_run_is_told(command: Command, first_run: Result, home: Path) -> None:
    said = command("compare", first_run.run.run_id, "nothing", home=home)
    assert said.code == 2
    assert "no run with an id that starts with 'nothing'" in said.err
    assert "see `datapruner runs`" in said.err
