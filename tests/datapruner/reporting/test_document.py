"""The numbers of a report, each against slow plain Python over the rows that the run exports."""

from __future__ import annotations

import json
import math
import random
import shutil
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

import datapruner
from datapruner.errors import InputError, UsageError
from datapruner.reporting import distributions, examples
from datapruner.result import Result
from datapruner.runs import evaluations
from datapruner.schemas.reports import TEXT_CHARACTERS, Distribution, RunReport, Summary
from tests.command_line import Said
from tests.evaluations import evaluation
from tests.pipeline import Prune
from tests.tiny_model import COPIES, LINES, REJECTED, messages_of

Row = dict[str, Any]
Command = Callable[..., Said]


@pytest.fixture(scope="module")
def found(first_run: Result) -> RunReport:
    return datapruner.report(first_run)


@pytest.fixture(scope="module")
def rows(first_run: Result) -> list[Row]:
    return first_run.scores.to_dicts()


def of(report: RunReport, column: str) -> Distribution:
    assert report.distributions is not None
    return {each.column: each for each in report.distributions}[column]


def finite(rows: Iterable[Row], column: str) -> list[float]:
    return [row[column] for row in rows if row[column] is not None and math.isfinite(row[column])]


def counted(values: Iterable[float], edges: list[float]) -> list[int]:
    """How many values are in each bin: above its lower edge and at most its upper one."""
    counts = [0] * (len(edges) - 1)
    for value in values:
        for at in range(len(counts)):
            if edges[at] < value <= edges[at + 1] or (at == 0 and value == edges[0]):
                counts[at] += 1
    return counts


def summed(values: list[float]) -> dict[str, float]:
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return {
        "rows": len(values),
        "mean": statistics.fmean(values),
        "minimum": min(values),
        "lower_quartile": lower,
        "median": median,
        "upper_quartile": upper,
        "maximum": max(values),
    }


# What adds up


def test_random_rows_are_shown_beside_those_kept(found: RunReport, rows: list[Row]) -> None:
    once = {row["sample_id"]: row for row in reversed(rows) if row["n_response_tokens"] is not None}
    kept = [row for row in once.values() if row["status"] == "kept"]
    lengths = [row["n_response_tokens"] for row in once.values()]
    chance = found.at_random
    assert chance is not None
    assert (chance.samples, chance.kept) == (len(once), len(kept))
    drawn = random.Random(1)
    shared = [
        len({row["sample_id"] for row in kept} & set(drawn.sample(sorted(once), len(kept))))
        for _ in range(2000)
    ]
    assert chance.shared == pytest.approx(statistics.fmean(shared), rel=0.05)
    assert chance.tokens == pytest.approx(statistics.fmean(row["n_response_tokens"] for row in kept))
    assert chance.tokens_at_random == pytest.approx(statistics.fmean(lengths))
    trained = sum(row["n_kept_tokens"] for row in kept)
    assert chance.rows == pytest.approx(trained / statistics.fmean(lengths))


def test_where_nothing_is_kept_or_pruned_there_are_no_random_rows(
    corpus_file: Path, home: Path, options: dict[str, Any], first_run: Result
) -> None:
    assert datapruner.report(datapruner.score(corpus_file, "ppl", home=home, **options)).at_random is None


def test_the_counts_are_those_of_the_rows_and_add_up(found: RunReport, rows: list[Row]) -> None:
    by_status, counts = Counter(row["status"] for row in rows), found.counts
    assert (counts.kept, counts.pruned) == (by_status["kept"], by_status["pruned"])
    assert (counts.rejected, counts.errored) == (by_status["rejected"], by_status["error"])
    assert counts.ingested == counts.kept + counts.pruned + counts.rejected + counts.errored == len(LINES)
    assert counts.duplicates == len(COPIES)
    assert found.tokens is not None
    assert found.tokens.before == sum(row["n_response_tokens"] or 0 for row in rows)
    assert found.tokens.kept == sum(row["n_kept_tokens"] for row in rows)


def test_the_funnel_leads_from_all_rows_to_the_kept_ones_with_every_reason(
    found: RunReport, rows: list[Row]
) -> None:
    left = found.funnel.ingested
    for step in found.funnel.steps:
        assert step.removed == sum(each.rows for each in step.reasons) + step.other_rows
        left -= step.removed
        assert step.left == left
    assert left == found.counts.kept == sum(each.rows for each in found.funnel.kept)
    by_step = {step.step: step for step in found.funnel.steps}
    assert list(by_step) == ["read", "exact duplicates", "measure", "select"]
    assert by_step["read"].removed == len(REJECTED)
    told = Counter(row["reason"] for row in rows if row["status"] == "pruned")
    copies = sum(count for reason, count in told.items() if reason.startswith("exact duplicate"))
    [reason] = by_step["exact duplicates"].reasons
    assert (reason.reason, reason.rows) == ("exact duplicate", copies)
    assert {each.reason: each.rows for each in by_step["select"].reasons} == {
        reason: count for reason, count in told.items() if not reason.startswith("exact duplicate")
    }


def test_the_stages_of_a_recipe_are_steps_that_take_as_many_rows_as_the_run_counted(
    home: Path, options: dict[str, Any], corpus_file: Path, tmp_path: Path
) -> None:
    held = tmp_path / "quiz.jsonl"
    held.write_text(json.dumps({"instruction": "?", "output": LINES[27]["instruction"]}))  # type: ignore[index]
    recipe = {
        "data": str(corpus_file),
        "measuring": {"model": options["model"]},
        "gate": {"gibberish_ppl": 2, "endings": False},
        "dedup": {"threshold": 0.5},
        "contamination": {"against": {"quiz": str(held)}},
        "filter": "n_response_tokens < 15",
        "methods": ["ppl"],
        "keep": 0.5,
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    made = datapruner.run_recipe(path, device="cpu", home=home)
    by_step = {step.step: step.removed for step in datapruner.report(made).funnel.steps}
    dropped = {stage: counts["dropped"] for stage, counts in made.report.stages.items()}
    copies = by_step["exact duplicates"]
    assert by_step["contamination"] == dropped["contamination"] > 0
    assert by_step["gate"] == dropped["gate"] > 0
    assert by_step["filter"] == dropped["filter"] > 0
    assert by_step.get("near duplicates", 0) + copies == dropped["dedup"]
    assert sum(by_step.values()) == made.report.ingested - made.report.kept


# Distributions


def test_histograms_and_summaries_are_those_of_the_rows(found: RunReport, rows: list[Row]) -> None:
    kept = [row for row in rows if row["status"] == "kept"]
    for column in ("n_prompt_tokens", "n_response_tokens", "ppl", "entropy", "el2n", "head_grad_norm"):
        made = of(found, column)
        assert made.edges == sorted(set(made.edges))
        assert made.before == counted(finite(rows, column), made.edges), column
        assert made.after == counted(finite(kept, column), made.edges), column
        assert made.unplaced == 0
        assert sum(made.before) == made.summary_before.rows
        assert made.summary_before.model_dump() == pytest.approx(summed(finite(rows, column)))
        assert made.summary_after is not None
        assert made.summary_after.model_dump() == pytest.approx(summed(finite(kept, column)))
    trained = of(found, "n_kept_tokens")
    assert trained.summary_before.model_dump() == pytest.approx(summed(finite(kept, "n_kept_tokens")))
    assert trained.after is None
    characters = of(found, "n_chars").summary_before.maximum
    lines = [line for line in LINES if isinstance(line, dict) and line.get("output") not in ("", None)]
    assert characters >= max(len(line["instruction"]) + len(line["output"]) for line in lines)


def test_thresholds_stand_with_the_column_that_they_cut(found: RunReport, first_run: Result) -> None:
    cuts = first_run.report.thresholds
    assert of(found, "ppl").thresholds == {name: cuts[name] for name in ("ppl_low", "ppl_high")}
    assert found.thresholds == cuts


@pytest.mark.parametrize(
    ("values", "whole", "scale"),
    [
        ([1.0, 2.0, 4.0, 8.0, 1000.0], False, "log"),
        ([0.0, 1.0, 1.0, 3.0, 500.0], False, "log"),
        ([0.0, 0.0, 0.0, 3.0, 500.0], True, "linear"),  # the median is zero
        ([-1.0, 1.0, 2.0, 900.0], False, "linear"),
        ([1, 1, 2, 3, 5000], True, "log"),
        ([7.0, 7.0, 7.0], False, "linear"),
        ([0.1, 0.2, 0.3], False, "linear"),
    ],
)
def test_bins_hold_every_number_that_their_scale_has_a_place_for(
    values: list[float], whole: bool, scale: str
) -> None:
    numbers = Summary(**summed(values))  # type: ignore[arg-type]
    assert distributions.scale_of(numbers.minimum, numbers.median, numbers.maximum) == scale
    placed = [value for value in values if scale == "linear" or value > 0]
    edges = distributions.edges_of(numbers, min(placed), scale, whole=whole)  # type: ignore[arg-type]
    assert edges == sorted(set(edges))
    assert len(edges) <= distributions.BINS + 1
    assert sum(counted(placed, edges)) == len(placed)
    assert not whole or all(edge % 1 == 0.5 for edge in edges)


# The plane, groups and examples


def test_the_plane_holds_every_measured_sample_once(
    found: RunReport, first_run: Result, rows: list[Row]
) -> None:
    plane = found.plane
    assert plane is not None
    firsts = [row for row in rows if row["ppl"] is not None and row["row"] not in COPIES]
    assert sum(map(sum, plane.samples)) == len(firsts)
    assert plane.kept is not None
    assert sum(map(sum, plane.kept)) == found.counts.kept
    columns = [counted([row["entropy"] for row in firsts], plane.x_edges)]
    assert [sum(cells) for cells in zip(*plane.samples, strict=True)] == columns[0]
    assert [sum(cells) for cells in plane.samples] == counted([r["ppl"] for r in firsts], plane.y_edges)
    quadrants = Counter(row["quadrant"] for row in firsts)
    assert plane.quadrants is not None
    assert {each.name: each.samples for each in plane.quadrants} == quadrants
    fill = {
        each.name for each in plane.quadrants if each.meaning.endswith("kept are fill, to reach the target")
    }
    assert fill == {row["quadrant"] for row in firsts if row["status"] == "kept"} - {"Q2", "Q4"}
    kept = Counter(row["quadrant"] for row in firsts if row["status"] == "kept")
    assert {each.name: each.kept for each in plane.quadrants if each.kept} == kept
    assert plane.thresholds.keys() == {"ppl_low", "ppl_high", "entropy_low", "entropy_high"}
    assert plane.thresholds.items() <= first_run.report.thresholds.items()


def test_rows_are_counted_by_source_shape_and_length(found: RunReport, rows: list[Row]) -> None:
    assert found.by_source is not None
    [source] = found.by_source.groups
    assert (source.name, source.rows, source.kept) == ("motley.jsonl", len(LINES), found.counts.kept)
    assert source.rows == source.kept + source.pruned + source.rejected + source.errored
    assert source.tokens_kept == sum(row["n_kept_tokens"] for row in rows)
    assert found.by_shape is not None
    assert sum(group.rows for group in found.by_shape.groups) == len(LINES) - len(REJECTED)
    assert found.by_length is not None
    lengths = {row["row"]: row["n_response_tokens"] for row in rows if row["n_response_tokens"] is not None}
    for group in found.by_length.groups:
        inside = [row for row, length in lengths.items() if group.low <= length <= group.high]
        assert group.rows == len(inside)
        assert group.kept == sum(rows[row]["status"] == "kept" for row in inside)
    assert sum(group.rows for group in found.by_length.groups) == len(lengths)


def test_examples_are_the_middle_the_ends_and_those_next_to_a_threshold(
    found: RunReport, rows: list[Row]
) -> None:
    measured = sorted(
        (row for row in rows if row["ppl"] is not None and row["row"] not in COPIES),
        key=lambda row: (row["ppl"], row["row"]),
    )
    assert found.examples is not None
    groups = {(each.column, each.kind, each.threshold): each for each in found.examples}
    shown: Mapping[Any, list[int]] = {
        key: [each.row for each in group.examples] for key, group in groups.items()
    }
    numbers = [row["row"] for row in measured]
    assert shown["ppl", "lowest", None] == numbers[: examples.EXAMPLES]
    assert shown["ppl", "highest", None] == numbers[: -examples.EXAMPLES - 1 : -1]
    typical, border = [], []
    cut = groups["ppl", "borderline", "ppl_high"].at
    assert cut is not None
    for status in ("kept", "pruned"):
        same = [row for row in measured if row["status"] == status]
        middle = (len(same) - 1) / 2
        places = sorted(range(len(same)), key=lambda place: (abs(place - middle), place))
        typical += [same[place]["row"] for place in places[: examples.EXAMPLES]]
        nearest = sorted(same, key=lambda row: (abs(row["ppl"] - cut), row["row"]))
        border += [row["row"] for row in nearest[: examples.EXAMPLES]]
    assert shown["ppl", "typical", None] == typical
    assert shown["ppl", "borderline", "ppl_high"] == border
    for group in groups.values():
        for each in group.examples:
            messages = messages_of(LINES[each.row])  # type: ignore[arg-type]
            assert each.turns is not None
            assert each.n_turns == len(messages)
            for turn, message in zip(each.turns, messages, strict=False):
                assert turn.text == message["content"][:TEXT_CHARACTERS]
                assert turn.characters == len(message["content"])


# What was refused, what is not there


def test_rejected_failed_and_repeated_rows_are_shown(found: RunReport, rows: list[Row]) -> None:
    assert found.rejects is not None
    assert sum(each.rows for each in found.rejects) == len(REJECTED)
    assert {row.row for each in found.rejects for row in each.examples} == set(REJECTED)
    assert found.failures is not None
    failed = [row["row"] for row in rows if row["status"] == "error"]
    assert [row for each in found.failures for row in each.first] == failed
    assert found.duplicates is not None
    assert {row: each.row for each in found.duplicates.most for row in each.rows} == COPIES
    assert found.duplicates.rows == len(COPIES)


def test_a_run_that_only_scored_has_no_after_and_no_masks(
    corpus_file: Path, home: Path, options: dict[str, Any]
) -> None:
    said = datapruner.report(datapruner.score(corpus_file, "ppl", home=home, **options))
    document = said.model_dump(mode="json")
    assert not document["counts"]["selected"]
    assert not {"thresholds", "evaluations", "rewriting", "stages"} & document.keys()
    assert all("after" not in each for each in document["distributions"])
    assert "kept" not in document["plane"]
    assert {step.step for step in said.funnel.steps} == {"read", "measure"}


def test_without_the_corpus_what_hangs_on_it_is_absent_and_a_note_says_so(
    first_run: Result, home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / first_run.run.run_id
    shutil.copytree(first_run.run.folder, folder)
    document = datapruner.report(folder / "run.json", home=tmp_path).model_dump(mode="json")
    assert not {"by_source", "by_shape", "rejects", "duplicates"} & document.keys()
    assert "no such corpus" in document["notes"][0]
    assert all("turns" not in each for group in document["examples"] for each in group["examples"])
    assert document["plane"] == datapruner.report(first_run).model_dump(mode="json")["plane"]
    (folder / "run.duckdb").unlink()
    with pytest.raises(InputError, match="is not in"):
        datapruner.report(folder / "run.json", home=tmp_path)


def test_a_subset_names_its_run_and_the_replay_command_brings_it_back(
    first_run: Result, home: Path, tmp_path: Path, command: Command
) -> None:
    first_run.export(tmp_path / "subset.parquet")
    first_run.export(tmp_path / "subset.csv", plain=True)
    for target in ("subset.parquet", "subset.csv", "subset.run.json"):
        found = datapruner.report(tmp_path / target, home=home)
        assert found.run == first_run.run.run_id
    (tmp_path / "bare.csv").write_text("a,b\n")
    with pytest.raises(InputError, match="does not say which run"):
        datapruner.report(tmp_path / "bare.csv", home=home)
    with pytest.raises(UsageError, match="no run with an id"):
        datapruner.report("nothing-like-it", home=home)
    said = command(*found.replay.split()[1:], "--json", home=home)
    assert said.json["run"] == found.run, said.err


def test_evaluations_of_the_run_are_in_its_report(prune: Prune) -> None:
    made = prune("length", 0.3)
    stored = evaluation(run=made.run.run_id)
    evaluations.write(made.run.folder, stored)
    assert datapruner.report(made).evaluations == [stored]


def test_reasoning_is_told_by_outcome_with_its_tokens_before_and_after(
    home: Path, options: dict[str, Any]
) -> None:
    turned = ["As above, it is seen.", "As above, two rivers: the Rhine, the Nile.", "As above, 42?"]
    steps = "\n\n".join(turned)
    given = [
        {"question": "Why?", "answer": f"<think>\n{steps}\n</think>\nBlue."},
        {"question": "Why?", "answer": "<think>\n" + "\n\n".join(reversed(turned)) + "\n</think>\nBlue."},
        {"question": "Why not?", "answer": "Green."},
        {"question": "One?", "answer": "<think>A single step.</think>Yes."},
    ]
    made = datapruner.rewrite(given, max_token_ratio=0.5, home=home, **options)
    lines, told = made.rewrites.to_dicts(), datapruner.report(made).rewriting
    assert told is not None
    assert told.outcomes == Counter(line["status"] for line in lines)
    assert told.accepted == told.outcomes["rewritten"] / len(lines) > 0
    assert sum(each.rows for each in told.reasons) == told.rows == len(lines)
    for name in ("tokens_before", "tokens_after"):
        assert getattr(told, name) == sum(line[name] or 0 for line in lines)
    hanging = Counter[str]()
    for name in ("dangling_references", "dangling_colons", "broken_blocks"):
        hanging[name] += sum(line[name] or 0 for line in lines)
    assert told.flaws == +hanging
    assert told.flaws
    assert told.tokens is not None
    before, after = (
        [line[name] for line in lines if line[name] is not None] for name in ("tokens_before", "tokens_after")
    )
    assert told.tokens.before == counted(before, told.tokens.edges)
    assert told.tokens.after == counted(after, told.tokens.edges)


# The command


def test_the_command_shows_the_funnel_and_prints_the_document(
    first_run: Result, home: Path, found: RunReport, command: Command
) -> None:
    said = command("report", first_run.run.run_id, "--json", home=home).json
    assert said | {"published_at": ""} == json.loads(found.model_dump_json()) | {"published_at": ""}
    lines = command("report", first_run.run.run_id[:8], home=home).out.splitlines()
    assert any(line.split()[:1] == [f"{len(LINES)}"] and "ingested" in line for line in lines)
    assert any(line.split() == [str(found.counts.kept), "kept"] for line in lines)
