"""Runs that only rewrite, by a tiny model and scripted teachers: no row is lost or measured twice."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import datapruner
from datapruner.errors import NothingSurvivedError, UsageError
from datapruner.measuring.workers import local
from datapruner.result import Result
from datapruner.rewriting.outcomes import STATUSES
from datapruner.runs import published
from datapruner.teacher import LimitReachedError, Teacher, load
from tests.datapruner.client.unruly import Unruly
from tests.datapruner.rewriting.lessons import EASY, THINKING, judged
from tests.datapruner.teacher.scripted import says

STEPS = ("Let me see.", "Two rivers:\nthe Rhine, the Nile.", "  1. 🎉 blue", "Or 42?", "So the sky is blue.")
REASONING = "\n\n".join(STEPS)
RESPONSE = f"<think>\n{REASONING}\n</think>\nBlue."
ROWS: list[dict[str, Any]] = [
    {"question": "Why?", "thinking": REASONING, "answer": "Blue.", "gold": "blue"},
    {"question": "Why not?", "answer": "Green.", "gold": None},
    {"question": "Why?", "thinking": REASONING, "answer": "Blue.", "gold": "a copy of row 0"},
    {"question": "No answer."},
    {"question": "Too long?", "thinking": "All work and no play.\n\n" * 40, "answer": "No."},
    {"question": "One?", "thinking": "A single step, and a long one at that.", "answer": "Yes."},
    {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "<think>an older thought</think>Hello."},
            {"role": "user", "content": "Now?"},
            {"role": "assistant", "content": "Well. <think>\r\none\r\n\r\ntwo\r\n\r\n\r\nthree</think> Now."},
        ]
    },
]
Rewrite = partial[Result]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rewriting-home")


@pytest.fixture(scope="module")
def rewrite(home: Path, options: dict[str, Any]) -> Rewrite:
    return partial(datapruner.rewrite, ROWS, home=home, **options)


@pytest.fixture(scope="module")
def halved(rewrite: Rewrite) -> Result:
    return rewrite(max_token_ratio=0.5)


def line(result: Result, row: int) -> dict[str, Any]:
    return result.rewrites.row(by_predicate=pl.col("row") == row, named=True)


# Without a teacher


def test_every_row_has_a_status_and_they_add_up(halved: Result) -> None:
    assert halved.scores["status"].to_list() == ["kept", "kept", "kept", "rejected", "error", "kept", "kept"]
    assert halved.scores["keep"].to_list() == [True, True, True, False, False, True, True]
    report = halved.report
    assert (report.kept, report.pruned, report.rejected, report.errored) == (5, 0, 1, 1)
    assert report.ingested == len(ROWS) == sum(report.reasons.values())
    assert (report.duplicates, report.shapes["messages"]) == (1, 1)


def test_what_became_of_the_reasoning_is_counted_by_row_token_and_step(halved: Result) -> None:
    statuses = {0: "rewritten", 1: "original", 2: "rewritten", 4: "error", 5: "original", 6: "rewritten"}
    assert dict(halved.rewrites.select("row", "status").iter_rows()) == statuses
    counts = halved.report.stages["rewrite"]
    assert [counts[name] for name in ("rewritten", "original", "dropped", "error")] == [3, 2, 0, 1]
    assert counts["reasoning tokens after"] < counts["reasoning tokens before"]
    kept = [step["kept"] for steps in halved.rewrites["steps"].drop_nulls() for step in steps]
    assert (counts["steps before"], counts["steps after"]) == (len(kept), sum(kept)) == (14, 9)
    assert set(statuses.values()) <= set(STATUSES)


def test_what_was_measured_to_rewrite_is_shown_and_what_is_exported_not_counted(
    halved: Result, options: dict[str, Any], home: Path
) -> None:
    scored = datapruner.score(ROWS, ["ppl"], home=home, **options).scores
    same = ["sample_id", "row", "n_prompt_tokens", "n_response_tokens", "n_truncated", "ppl", "entropy"]
    assert halved.scores.select(same).equals(scored.select(same))
    assert halved.scores["n_kept_tokens"].to_list() == [None, None, None, 0, 0, None, None]


def test_nothing_is_scored_or_masked(halved: Result) -> None:
    assert halved.token_scores.is_empty()
    assert halved.report.scores == []
    with pytest.raises(UsageError, match="selected nothing, so it has no masks"):
        _ = halved.masks


def test_rows_that_stay_over_the_budget_are_warned_of(halved: Result, rewrite: Rewrite) -> None:
    _, text = halved.report.warnings
    assert text.startswith("asap: 1 of 4 rows with reasoning stay longer than the budget, by ")
    assert len(rewrite().report.warnings) == 1


def test_a_small_proxy_model_that_is_no_reasoning_model_is_warned_of_where_first_tokens_decide(
    halved: Result, rewrite: Rewrite
) -> None:
    assert halved.report.warnings[0].startswith("asap: the proxy model is no reasoning model and has ")
    assert rewrite(options={"score": "later-tokens"}).report.warnings == []
    assert rewrite("random-steps").report.warnings == []


def test_a_run_that_rewrites_is_found_listed_and_replayed_as_any_other(
    halved: Result, home: Path, tmp_path: Path
) -> None:
    found = published.load(halved.run.run_id[:10], home)
    assert (found.config, found.report) == (halved.run.config, halved.report)
    assert halved.run.run_id in [run.run_id for run in published.history(home)]
    halved.export(tmp_path / "out.jsonl")
    again = datapruner.replay(tmp_path / "out.run.json", ROWS, home=home, device="cpu")
    assert again.run.run_id == halved.run.run_id
    assert again.rewrites.equals(halved.rewrites)
    assert again.scores.equals(halved.scores)


def test_what_cannot_be_rewritten_says_why(halved: Result) -> None:
    reasons = halved.scores["reason"].to_list()
    assert reasons[1] == "as it was: no reasoning found"
    assert "no column 'response'" in reasons[3]
    assert reasons[4].startswith("rewriting: reasoning goes on past")
    assert "raise max_length" in reasons[4]
    assert reasons[5] == "as it was: a single step, longer than the budget"
    assert reasons[6] == "rewritten: least surprising steps removed"


def test_a_copy_fares_as_the_row_it_copies(halved: Result) -> None:
    for table in (halved.rewrites, halved.scores):
        first, copy = (table.row(by_predicate=pl.col("row") == row, named=True) for row in (0, 2))
        assert first | {"row": 2} == copy


def test_copies_go_where_duplicates_are_looked_for(
    home: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    recipe = {"data": "rows.jsonl", "rewrite": {"method": "asap"}, "measuring": {"model": options["model"]}}
    (tmp_path / "all.yaml").write_text(json.dumps(recipe))
    (tmp_path / "unique.yaml").write_text(json.dumps(recipe | {"dedup": {}}))
    (tmp_path / "short.yaml").write_text(json.dumps(recipe | {"filter": "n_response_tokens < 20"}))
    everything, unique, short = (
        datapruner.run_recipe(tmp_path / name, home=home, device="cpu")
        for name in ("all.yaml", "unique.yaml", "short.yaml")
    )
    assert everything.rewrites["row"].to_list() == [0, 1, 2, 4, 5, 6]
    assert unique.rewrites["row"].to_list() == [0, 1, 4, 5, 6]
    assert unique.scores.row(2, named=True)["reason"] == "exact duplicate of row 0"
    assert unique.report.stages["dedup"]["dropped"] == unique.report.pruned == 1
    left_out = short.scores.filter(status="pruned")
    assert left_out["row"].to_list() == [0, 2, 4, 5, 6]
    assert left_out["reason"].unique().to_list() == ["left out by the filter: n_response_tokens < 20"]
    assert short.report.stages["filter"]["dropped"] == short.report.pruned == 5


def test_surprisal_and_choice_are_those_of_a_plain_pass_and_of_a_recount_after_each_removal(
    halved: Result, tiny_folder: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": RESPONSE}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, return_tensors="pt")
    with torch.inference_mode():
        surprise = -torch.log_softmax(model(encoded["input_ids"]).logits[0].double(), dim=-1)
    ids, offsets = encoded["input_ids"][0].tolist(), encoded["offset_mapping"][0].tolist()
    expected = []
    for step in STEPS:
        start = text.index(step.strip())
        first = next(i for i, (_, stop) in enumerate(offsets) if stop > start)
        expected.append(float(surprise[first - 1, ids[first]]))
    steps = line(halved, 0)["steps"]
    np.testing.assert_allclose([step["surprisal"] for step in steps], expected, rtol=1e-4)

    def tokens(kept: list[int]) -> int:
        left = "\n\n".join(STEPS[k] for k in kept)
        return len(tokenizer(left, add_special_tokens=False).input_ids)

    kept = list(range(len(STEPS)))
    budget = tokens(kept) // 2
    for step in np.argsort(expected):
        if tokens(kept) > budget:
            kept.remove(int(step))
    assert [number for number, step in enumerate(steps) if step["kept"]] == kept
    assert line(halved, 0)["tokens_after"] == tokens(kept)


def test_the_text_is_the_response_without_the_removed_spans_and_nothing_else(
    halved: Result,
) -> None:
    for row, response in (
        (0, RESPONSE),
        (6, ROWS[6]["messages"][3]["content"]),
    ):
        record = line(halved, row)
        left = list(response)
        for span in record["removed"]:
            for at in range(span["start"], span["end"]):
                left[at + record["reasoning_start"]] = ""
        assert "".join(left) == record["text"]
        for step in record["steps"]:
            words = response[record["reasoning_start"] :][step["start"] : step["end"]]
            assert (words in record["text"]) == step["kept"]
    assert line(halved, 6)["text"].startswith("Well. <think>\r\n")
    assert line(halved, 6)["text"].endswith("</think> Now.")


def test_reasoning_in_the_response_needs_no_further_pass(rewrite: Rewrite, home: Path, options: Any) -> None:
    first = datapruner.score(ROWS, ("ppl",), home=home, **options)
    again = rewrite(max_tokens=20)
    assert first.run.measured == again.run.measured == 0
    assert again.scores["sample_id"].to_list() == first.scores["sample_id"].to_list()


def test_the_same_again_is_the_same_run_byte_for_byte(rewrite: Rewrite, halved: Result) -> None:
    again = rewrite(max_token_ratio=0.5)
    assert again.run.run_id == halved.run.run_id
    assert again.rewrites.equals(halved.rewrites)
    assert again.report == halved.report
    assert rewrite(max_token_ratio=0.6).run.run_id != halved.run.run_id


def test_without_a_budget_the_published_one_holds(rewrite: Rewrite) -> None:
    result = rewrite()
    counts = result.report.stages["rewrite"]
    assert result.report.reasons["as it was: within the budget"] == 4
    assert "rewritten" not in counts
    assert counts["reasoning tokens after"] == counts["reasoning tokens before"]


def test_a_pattern_finds_reasoning_that_has_no_tags(home: Path, options: dict[str, Any]) -> None:
    rows = [{"question": "Why?", "answer": "Reasoning: one\n\ntwo\n\nthree Answer: yes"}]
    result = datapruner.rewrite(
        rows, max_token_ratio=0.7, pattern=r"(?s)Reasoning:(?P<reasoning>.*?)Answer:", home=home, **options
    )
    text = result.rewrites["text"][0]
    assert text.startswith("Reasoning: ")
    assert text.endswith(" Answer: yes")
    assert result.report.stages["rewrite"]["rewritten"] == 1


def test_every_column_of_the_table_is_described(halved: Result) -> None:
    with duckdb.connect(str(halved.run.database), read_only=True) as connection:
        comments = connection.execute(
            "SELECT count(comment) FROM duckdb_columns() WHERE table_name = 'rewrites'"
        ).fetchall()
    assert comments == [(halved.rewrites.width,)]


def test_a_corpus_of_which_nothing_is_left_ends_in_an_error(home: Path, options: dict[str, Any]) -> None:
    with pytest.raises(NothingSurvivedError, match=r"1 rows in.*raise max_length"):
        datapruner.rewrite([ROWS[4]], home=home, **options)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_token_ratio": 1.5}, "max_token_ratio"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"options": {"lambda": 1}}, "lambda"),
        ({"method": "no-such"}, "known: asap, anchor, dap"),
        ({"method": "dap"}, "there is no teacher model"),
        ({"overflow": "explode"}, "overflow"),
        ({"pattern": "("}, "missing"),
    ],
)
def test_what_is_asked_wrongly_is_refused_before_anything_is_read(
    rewrite: Rewrite, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        rewrite(**given)


# What is written


def test_the_training_file_has_the_new_conversations_beside_what_the_rows_came_with(
    halved: Result, tmp_path: Path
) -> None:
    path = tmp_path / "out.parquet"
    assert halved.export(path) == 5
    written = pl.read_parquet(path)
    assert written["row"].to_list() == [0, 1, 2, 5, 6]
    lines = halved.rewrites.filter(pl.col("text").is_not_null())
    assert [messages[-1]["content"] for messages in written["messages"].to_list()] == lines["text"].to_list()
    assert written["original_thinking"][0] == REASONING
    assert not {"question", "thinking", "answer"} & set(written.columns)
    assert written["rewrite_status"].to_list() == lines["status"].to_list()
    assert written["original_messages"][4][3]["content"] == ROWS[6]["messages"][3]["content"]
    assert written["gold"].to_list() == ["blue", None, "a copy of row 0", None, None]
    metadata = json.loads((pq.read_schema(path).metadata or {})[b"datapruner"])
    assert metadata["run"] == halved.run.run_id
    beside = json.loads((tmp_path / "out.run.json").read_text())
    assert beside == json.loads((halved.run.folder / "run.json").read_text())
    assert metadata.pop("renamed") == {
        name: f"original_{name}" for name in ("answer", "messages", "question", "thinking")
    }
    assert metadata.items() <= beside.items()
    assert halved.subset.num_rows == 5
    assert written.columns == halved.subset.column_names


@pytest.mark.slow
def test_the_training_file_can_be_read_again_and_pruned(
    halved: Result, tmp_path: Path, home: Path, options: dict[str, Any]
) -> None:
    for name in ("out.parquet", "out.jsonl"):
        halved.export(tmp_path / name)
        result = datapruner.rewrite(tmp_path / name, max_token_ratio=0.9, home=home, **options)
        assert result.report.ingested == 5
        assert result.report.rejected == 0


def test_a_file_in_no_known_form_is_refused(halved: Result, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"out\.xlsx"):
        halved.export(tmp_path / "out.xlsx")


# With a teacher

LESSONS: list[dict[str, Any]] = [
    {
        "question": f"What is 3 * 4 + 2, {name}?",
        "thinking": THINKING,
        "answer": "It is \\boxed{14}.",
        "gold": gold,
    }
    for name, gold in (("Ann", "14"), ("Bob", "15"), ("Eve", None))
]


def teacher(server: Unruly, store: Path, **limits: Any) -> Teacher:
    return Teacher(load(base_url=f"{server.url}/v1", model="m", **limits), store=store)


def test_a_teachers_rewrites_are_counted_by_level_and_reason(
    server: Unruly, tmp_path: Path, home: Path, options: dict[str, Any]
) -> None:
    server.will(says(judged("easy", EASY)))
    result = datapruner.rewrite(
        LESSONS,
        "dap",
        options={"retries": 0, "otherwise": "drop"},
        answers="gold",
        teacher=teacher(server, tmp_path / "answers.sqlite"),
        home=home,
        **options,
    )
    assert result.rewrites["status"].to_list() == ["rewritten", "dropped", "rewritten"]
    counts = result.report.stages["rewrite"]
    assert (counts["judged easy"], counts["dropped"], counts["rewritten"]) == (3, 1, 2)
    assert result.report.reasons["dropped by rewriting: the final answer is another"] == 1
    assert 0 < counts["reasoning tokens after"] < counts["reasoning tokens before"]
    assert result.scores["status"].to_list() == ["kept", "pruned", "kept"]
    assert EASY.partition("\n## Solution")[0] in result.rewrites["text"][0]
    assert result.run.lineage["teacher"] == "m"


def test_a_teachers_rewriting_measures_nothing_and_its_rows_have_no_scores(
    server: Unruly, tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "PYTHON", ("/there/is/no/python",))
    server.will(says(judged("easy", EASY)))
    asked = teacher(server, tmp_path / "answers.sqlite")
    result = datapruner.rewrite(LESSONS, "dap", teacher=asked, home=tmp_path, **options)
    assert result.run.measured == 0
    assert not (tmp_path / "signals").exists()
    empty = result.scores.select("n_response_tokens", "n_kept_tokens", "ppl", "entropy").null_count()
    assert set(empty.row(0)) == {3}
    result.export(tmp_path / "out.parquet")
    assert not {"ppl", "n_response_tokens", "quadrant"} & set(
        pl.read_parquet(tmp_path / "out.parquet").columns
    )
    assert result.report.response_tokens == 0


@pytest.mark.slow
def test_the_coarse_stage_leaves_rows_that_the_fine_stage_goes_on_with(
    server: Unruly, tmp_path: Path, home: Path, options: dict[str, Any]
) -> None:
    steps = THINKING.split("\n\n")
    shorter = "\n\n".join([steps[0], *steps[2:]])
    server.will(says("<thought>Multiply, add.</thought>"), says(f"<compressed>\n{shorter}\n</compressed>"))
    coarse = datapruner.rewrite(
        LESSONS[:1], "anchor", teacher=teacher(server, tmp_path / "answers.sqlite"), home=home, **options
    )
    record = coarse.rewrites.row(0, named=True)
    assert record["status"] == "rewritten", record["reason"]
    assert [step["kept"] for step in record["steps"]] == [True, False, True, True, True]
    assert record["tokens_before"] > record["tokens_after"] > 0
    path = tmp_path / "coarse.parquet"
    coarse.export(path)
    fine = datapruner.rewrite(path, max_token_ratio=0.6, home=home, **options)
    assert len(fine.rewrites["steps"][0]) == 4
    assert fine.report.stages["rewrite"]["steps after"] < 4


def test_a_teacher_that_fails_on_a_row_makes_that_row_an_error(
    server: Unruly, tmp_path: Path, home: Path, options: dict[str, Any]
) -> None:
    from tests.datapruner.teacher.scripted import fails

    server.will(says(judged("easy", EASY)), fails(400, "too long"), says(judged("easy", EASY)))
    result = datapruner.rewrite(
        LESSONS,
        "dap",
        teacher=teacher(server, tmp_path / "answers.sqlite", concurrency=1, retries=0),
        home=home,
        **options,
    )
    assert sorted(result.rewrites["status"].to_list()) == ["error", "rewritten", "rewritten"]
    assert result.report.reasons["rewriting: the teacher gave no usable answer: refused"] == 1


def test_a_limit_stops_the_run_and_the_next_attempt_asks_only_what_is_left(
    server: Unruly, tmp_path: Path, home: Path, options: dict[str, Any]
) -> None:
    server.will(says(judged("easy", EASY)))
    store = tmp_path / "answers.sqlite"
    with pytest.raises(LimitReachedError):
        datapruner.rewrite(
            LESSONS,
            "dap",
            teacher=teacher(server, store, max_requests=2, concurrency=1),
            home=home,
            **options,
        )
    asked = len(server.seen)
    result = datapruner.rewrite(LESSONS, "dap", teacher=teacher(server, store), home=home, **options)
    assert result.report.stages["rewrite"]["rewritten"] == 3
    assert (asked, len(server.seen)) == (2, 3)
    assert not list((home / "runs").glob("*/.*"))
