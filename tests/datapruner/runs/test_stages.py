"""A recipe from end to end: what each stage drops is accounted for, and what it leaves goes on."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml  # type: ignore[import-untyped]

import datapruner
from datapruner.commands import display
from datapruner.commands.ending import stages
from datapruner.curation import gate
from datapruner.errors import NothingSurvivedError, UsageError
from datapruner.explaining.explain import explain
from datapruner.explaining.explanation import NearDuplicate
from datapruner.measuring.signal_cache import ProxyKey, SignalCache
from datapruner.request.config import RunConfig
from datapruner.result import Result
from datapruner.runs import folders
from datapruner.runs import stages as recipe_stages
from scorers.selection.topsis import topsis

FACTS = [
    ("Name a colour.", "Blue, the colour of a clear sky around noon in summer."),
    ("Name two rivers.", "The Rhine and the Nile, which are far apart from each other."),
    ("What do bees make?", "Honey, and wax for the cells that hold it all winter long."),
    ("Who wrote Faust?", "Johann Wolfgang von Goethe wrote it over some sixty years."),
    ("Explain rain.", "Water rises as vapour, cools, and falls again in drops."),
    ("Is the earth flat?", "No. It is very nearly a sphere, only a little flatter."),
    ("Give one letter.", "x"),
    ("Name a prime.", "11"),
]
REASONED = [
    {
        "instruction": f"What is {n} plus {n}?",
        "output": f"<think>\nTake {n} first.\n\nAdd the other {n} to it now.\n\n"
        f"So that is {2 * n}.\n</think>\nIt is {2 * n}.",
    }
    for n in (2, 30, 400)
]
NEAR = {"instruction": "Explain rain.", "output": "Water rises as vapour, cools, and falls again in drops!"}
COPY = {"instruction": "Who wrote Faust?", "output": FACTS[3][1]}
BENCHMARK = {"quiz": "Johann Wolfgang von Goethe wrote it over some sixty years."}
ROWS = [
    *({"instruction": question, "output": answer} for question, answer in FACTS),
    *REASONED,
    NEAR,
    COPY,
    {"instruction": "No answer.", "output": ""},
]

RECIPE: dict[str, Any] = {
    "dedup": {"threshold": 0.7},
    "contamination": {"against": {"quiz": "quiz.jsonl"}, "convention": "8-gram"},
    "methods": ["ppl", "donod"],
    "combine": {
        "ppl": {"direction": "low"},
        "donod.nod": {"direction": "high", "weight": 2},
        "entropy": {"direction": "high"},
    },
    "keep": "60%",
}

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("recipe")
    (made / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    (made / "quiz.jsonl").write_text(json.dumps(BENCHMARK) + "\n", encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def run(folder: Path, tiny_folder: Path) -> Run:
    """Runs a recipe, made of RECIPE and other fields (None: without it), in one home unless given another."""

    def run_it(home: Path = folder / "home", **given: Any) -> Result:
        fields = {"data": "rows.jsonl", "measuring": {"model": str(tiny_folder)}, **RECIPE, **given}
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump({name: value for name, value in fields.items() if value is not None}))
        return datapruner.run_recipe(path, home=home, device="cpu")

    return run_it


@pytest.fixture(scope="module")
def whole(run: Run) -> Result:
    """A recipe with every stage."""
    return run(
        keep="100%",
        filter="n_response_tokens > 5",
        coverage={"bins": 4, "hard_prune": 0.0},
        rewrite={"method": "asap", "options": {"max_token_ratio": 0.5}},
        export={"subset": "out.parquet", "plain": "out.jsonl", "scores": "out.csv"},
    )


def status_of(result: Result) -> dict[int, tuple[str, str]]:
    return {
        row: (status, reason)
        for row, status, reason in result.scores.select("row", "status", "reason").rows()
    }


def test_every_row_is_accounted_for_with_the_reason_of_the_stage_that_dropped_it(whole: Result) -> None:
    rows, report = status_of(whole), whole.report
    assert rows[11] == ("pruned", "duplicate of row 4 at Jaccard 0.867")
    assert rows[3][0] == "pruned"
    assert rows[3][1].startswith('holds text of quiz row 0: "johann wolfgang von goethe')
    assert rows[12] == ("pruned", "exact duplicate of row 3")
    for row in (6, 7):
        assert rows[row] == ("pruned", "left out by the filter: n_response_tokens > 5")
    assert rows[13][0] == "rejected"
    assert {row for row, (status, _) in rows.items() if status == "kept"} == {0, 1, 2, 4, 5, 8, 9, 10}
    assert (report.ingested, report.kept, report.pruned, report.rejected) == (14, 8, 5, 1)
    assert report.reasons["near duplicate"] == 1
    assert report.reasons["holds text of quiz"] == 1
    assert report.reasons["exact duplicate"] == 1
    assert report.stages["dedup"]["dropped"] == 2
    assert report.stages["contamination"]["quiz: found"] == 1
    assert report.stages["filter"] == {"dropped": 2}


def test_each_stage_says_how_many_rows_it_dropped_and_they_add_up(whole: Result) -> None:
    dropped = {stage: counts["dropped"] for stage, counts in whole.report.stages.items()}
    assert list(dropped) == ["dedup", "contamination", "filter", "keep", "rewrite"]
    assert sum(dropped.values()) == whole.report.pruned
    said = io.StringIO()
    display.console(said).print(stages(whole.report))
    assert [line.strip().partition(";")[0] for line in said.getvalue().splitlines()[1:]] == [
        "dedup: 2 rows dropped",
        "contamination: 1 row dropped",
        "filter: 2 rows dropped",
        f"keep: {dropped['keep']} rows dropped",
        "rewrite: 0 rows dropped",
    ]


def test_what_calibration_drops_is_counted_beside_the_selection(run: Run) -> None:
    report = run(calibrate={"batches": 2, "size": 2, "held_out": 2}, methods=["ppl"], combine=None).report
    dropped = {stage: counts["dropped"] for stage, counts in report.stages.items()}
    assert list(dropped) == ["dedup", "contamination", "keep", "calibrate"]
    assert report.kept == 2
    assert dropped["calibrate"] > 0
    assert sum(dropped.values()) == report.pruned


def test_what_is_dropped_before_is_never_measured(run: Run, tmp_path: Path) -> None:
    result = run(home=tmp_path)
    scores = result.scores
    unmeasured = scores.filter(pl.col("row").is_in([3, 11]))
    assert unmeasured["ppl"].null_count() == 2
    cache = SignalCache(tmp_path, ProxyKey(**result.run.lineage["proxy"]))
    assert len(cache.status(unmeasured["sample_id"].to_list())) == 0
    assert len(cache.status(scores.drop_nulls("sample_id")["sample_id"].unique().to_list())) == 10


@pytest.mark.parametrize(
    ("asked", "reads"),
    [
        ({"methods": [{"name": "random"}, {"name": "length"}]}, False),
        ({"methods": [{"name": "semdedup", "options": {"embedding": "sentence_embedding"}}]}, False),
        ({"methods": [{"name": "random"}], "filter": "n_chars > 5 AND n_response_tokens < 9"}, False),
        ({"methods": [], "rewrite": {"method": "dap"}}, False),
        ({"methods": [], "rewrite": {"method": "random-steps"}}, False),
        ({"methods": [{"name": "judge"}, {"name": "reward"}]}, False),
        ({"methods": [{"name": "random"}], "gate": {"gibberish": False, "endings": False}}, False),
        ({"methods": [{"name": "random"}], "gate": {"gibberish": False}}, True),
        ({"methods": [], "gate": {"endings": False}, "rewrite": {"method": "dap"}}, True),
        ({"methods": [{"name": "semdedup"}]}, True),
        ({"methods": [{"name": "random"}, {"name": "ppl"}]}, True),
        ({"methods": [{"name": "random"}], "filter": 'n_chars > 5 OR "PPL" < 9'}, True),
        ({"methods": [{"name": "random"}], "combine": {"entropy": {"direction": "low"}}}, True),
        ({"methods": [{"name": "random"}], "calibrate": {}}, True),
        ({"methods": [], "rewrite": {"method": "asap"}}, True),
    ],
)
def test_the_model_reads_samples_only_for_what_asks_it(asked: dict[str, Any], reads: bool) -> None:
    keep = {"keep": {"share": 1}} if len(asked["methods"]) == 1 else {}
    assert recipe_stages.reads_model(RunConfig(**asked, **keep)) is reads


def test_the_gate_drops_what_the_model_finds_impossible_before_anything_is_scored(run: Run) -> None:
    plain: dict[str, Any] = {"dedup": None, "contamination": None, "combine": None, "methods": ["ppl"]}
    known = run(**plain, keep="100%").scores.filter(status="kept")
    long = known.filter(pl.col("n_response_tokens") >= 32).sort("ppl")
    limit = long["ppl"][len(long) // 2]
    result = run(**plain, keep="100%", gate={"gibberish_ppl": limit, "endings": False})
    gone = result.scores.filter(pl.col("reason").str.starts_with("defect: gibberish: its perplexity is "))
    assert set(gone["row"]) == set(long.filter(pl.col("ppl") >= limit)["row"]) != set()
    assert gone["status"].unique().to_list() == ["pruned"]
    assert gone.sort("row")["ppl"].equals(known.filter(pl.col("row").is_in(gone["row"].implode()))["ppl"])
    counts = dict.fromkeys(("refusals", "loops", "cut off", "languages", "unexpected ends"), 0)
    assert result.report.stages["gate"] == {"dropped": len(gone), **counts, "gibberish": len(gone)}
    assert result.report.reasons["defect: gibberish"] == len(gone)


def test_a_gate_that_lets_nothing_through_is_an_error(run: Run, folder: Path) -> None:
    row = {"instruction": "Count.", "output": " ".join(map(str, range(99)))}
    (folder / "long.jsonl").write_text(json.dumps(row), encoding="utf-8")
    plain: dict[str, Any] = {"dedup": None, "contamination": None, "combine": None, "methods": ["ppl"]}
    with pytest.raises(NothingSurvivedError, match="the gate leaves none of 1 samples"):
        run(**plain, keep="100%", gate={"gibberish_ppl": 1.01}, data="long.jsonl")


def test_how_unexpected_the_end_of_a_sample_is_is_the_nll_of_its_last_token(run: Run, folder: Path) -> None:
    result = run(dedup=None, contamination=None, combine=None, methods=["ppl"], keep="100%")
    scores = result.scores.filter(status="kept")
    tokens = pl.read_parquet(folders.tokens(result.run.folder))
    cache = SignalCache(folder / "home", ProxyKey(**result.run.lineage["proxy"]))
    nll, counts = gate.ends(cache, scores["sample_id"].to_list())
    for at, row in enumerate(scores["row"]):
        own = tokens.filter(row=row)
        assert own["is_end"][-1]
        assert (nll[at], counts[at]) == (pytest.approx(own["nll"][-1]), len(own))


def test_what_the_filter_leaves_out_shows_the_scores_that_it_read(whole: Result) -> None:
    left_out = whole.scores.filter(pl.col("row").is_in([6, 7]))
    assert left_out.select("ppl", "donod", "n_response_tokens").null_count().row(0) == (0, 0, 0)
    assert left_out["topsis"].null_count() == 2


def test_the_combined_score_is_that_of_the_samples_that_are_left(whole: Result) -> None:
    left = whole.scores.drop_nulls("topsis")
    assert len(left) == 8
    table = left.select("ppl", "nod", "entropy").to_numpy()
    expected = topsis(table, [1, 2, 1], ["low", "high", "high"])
    np.testing.assert_allclose(left["topsis"].to_numpy(), expected, rtol=1e-12)


def test_the_highest_combined_scores_are_kept(run: Run) -> None:
    result = run()
    left = result.scores.drop_nulls("topsis").sort("topsis", descending=True)
    assert left["keep"].to_list() == [True] * 6 + [False] * 4
    assert left["reason"][0] == "combined score among the highest 60 %"
    assert result.report.thresholds["topsis"] == left["topsis"][5]


def test_coverage_spreads_over_the_only_score(run: Run) -> None:
    result = run(methods=["ppl"], combine=None, coverage={"bins": 3, "hard_prune": 0.2}, keep=4)
    left = result.scores.filter(pl.col("bin").is_not_null())
    assert left["keep"].sum() == 4
    assert (
        left.filter(bin=-1)["ppl"].sort().to_list() == left["ppl"].top_k(2).sort().to_list()
    )  # a fifth of 10
    assert "ppl: drawn from its score bin" in result.report.reasons


def test_of_what_is_kept_one_batch_stays_to_calibrate_with(run: Run, folder: Path) -> None:
    asked = {"batches": 2, "size": 2, "held_out": 3}
    plain = {"dedup": None, "contamination": None, "combine": None, "methods": ["ppl"], "keep": "100%"}
    result = run(**plain, calibrate=asked)
    alone = datapruner.calibrate(
        folder / "rows.jsonl",
        **asked,
        model=result.run.config.measuring.model,
        home=folder / "home",
        device="cpu",
    )
    table, best = result.scores, alone.settings["best"]
    assert table.filter(keep=True)["row"].to_list() == alone.kept_rows
    assert result.report.kept == 2
    assert result.report.thresholds["calibration_kl"] == pytest.approx(min(alone.settings["divergence"]))
    for number, divergence in enumerate(alone.settings["divergence"]):
        of_batch = table.filter(calibration_batch=number).filter(pl.col("row") != 12)  # a copy
        assert of_batch["row"].to_list() == alone.table.filter(calibration_batch=number)["row"].to_list()
        assert of_batch["calibration_kl"].to_list() == pytest.approx([divergence] * 2)
    reasons = result.report.reasons
    assert reasons["calibration: held out, to measure on"] == 3
    assert reasons[f"calibration: batch {best}, which changes the model least"] == 2
    assert reasons[f"calibration: batch {1 - best} changes the model more than batch {best} does"] == 2
    with pytest.raises(UsageError, match="make 203 samples, but there are only"):
        run(**plain, calibrate=asked | {"batches": 100})


def test_a_method_without_a_score_of_its_own_cannot_be_covered(run: Run) -> None:
    with pytest.raises(UsageError, match=r"method qtuning has no score qtuning .*qtuning\."):
        run(methods=["qtuning"], combine=None, coverage={})


def test_a_token_budget_holds_for_the_combined_score(run: Run) -> None:
    result = run(keep={"tokens": 60})
    kept = result.scores.filter(keep=True)
    assert 0 < kept["n_response_tokens"].sum() <= 60


def test_kept_reasoning_is_rewritten_and_the_rest_stays(whole: Result) -> None:
    rewrites = whole.rewrites
    assert rewrites["row"].to_list() == [0, 1, 2, 4, 5, 8, 9, 10]
    assert rewrites.filter(status="rewritten")["row"].to_list() == [8, 9, 10]
    counts = whole.report.stages["rewrite"]
    assert (counts["rewritten"], counts["original"]) == (3, 5)
    assert counts["reasoning tokens after"] <= counts["reasoning tokens before"] / 2
    assert whole.masks["row"].to_list() == [0, 1, 2, 4, 5]  # a mask would be one of the text before


def test_exports_of_a_run_that_rewrote_hold_the_conversations_to_train_on(
    whole: Result, folder: Path, tiny_folder: Path
) -> None:
    table = pq.read_table(folder / "out.parquet")
    texts = {line["row"]: line["text"] for line in whole.rewrites.to_dicts()}
    answers = [messages[-1]["content"] for messages in table["messages"].to_pylist()]
    assert answers == list(texts.values())
    assert {"original_instruction", "original_output", "topsis", "rewrite_status"} <= set(table.column_names)
    assert not {"output", "labels", "input_ids", "token_keep"} & set(table.column_names)
    plain = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [line["messages"][-1]["content"] for line in plain] == answers
    moved = {"messages", "original_instruction", "original_output"}
    assert all(set(line) == moved for line in plain)
    command = datapruner.rewrite(
        folder / "rows.jsonl", max_token_ratio=0.5, model=str(tiny_folder), home=folder / "home", device="cpu"
    )
    names = set(command.subset.column_names)
    assert moved < names < set(table.column_names)  # which has the scores besides
    assert plain[5]["messages"][0]["content"] == "What is 2 plus 2?"
    assert len(plain[5]["messages"][-1]["content"]) < len(REASONED[0]["output"])
    assert len(pl.read_csv(folder / "out.csv")) == len(ROWS)


def test_a_rewritten_subset_is_read_as_what_it_says(whole: Result, folder: Path, tiny_folder: Path) -> None:
    again = datapruner.score(folder / "out.jsonl", ["ppl"], home=folder / "home", model=str(tiny_folder))
    assert again.report.ingested == whole.report.kept
    assert again.report.rejected == 0
    kept = whole.scores.filter(keep=True)
    assert kept["n_kept_tokens"].to_list() == again.scores["n_response_tokens"].to_list()
    assert whole.report.kept_tokens == again.report.response_tokens < kept["n_response_tokens"].sum()


def test_no_token_of_a_text_that_was_rewritten_counts_as_kept(whole: Result) -> None:
    kept = whole.token_scores.group_by("row").agg(
        pl.col("keep").sum(), pl.col("keep").null_count().alias("n")
    )
    by_row = {row: (keep, unknown) for row, keep, unknown in kept.iter_rows()}
    scores = whole.scores.filter(keep=True).select("row", "n_kept_tokens", "n_response_tokens")
    for row, trained, before in scores.iter_rows():
        assert by_row[row] == ((0, before) if row in (8, 9, 10) else (trained, 0))


def test_rewritten_rows_have_no_weights_of_tokens_which_their_reasons_say(run: Run) -> None:
    result = run(
        methods=[{"name": "token-prob", "options": {"mode": "weight"}}],
        combine=None,
        keep="100%",
        rewrite={"method": "asap", "options": {"max_token_ratio": 0.5}},
    )
    kept = result.scores.filter(keep=True)
    assert kept["reason"].str.ends_with("exported whole, as rewritten rows have no token masks").any()
    assert result.masks["token_weight"].null_count() == len(result.masks)
    assert "token_weight" not in result.subset.column_names


def test_tokens_that_a_method_would_prune_are_exported_with_the_rest_and_counted(
    run: Run, folder: Path
) -> None:
    result = run(
        methods=[{"name": "qtuning", "options": {"token_keep": 0.5}}],
        combine=None,
        keep="100%",
        rewrite={"method": "asap", "options": {"max_token_ratio": 0.5}},
        export={"plain": "whole.jsonl"},
    )
    again = datapruner.score(
        folder / "whole.jsonl", ["ppl"], home=folder / "home", model=result.run.config.measuring.model
    )
    kept = result.scores.filter(keep=True)
    assert kept["n_kept_tokens"].to_list() == again.scores["n_response_tokens"].to_list()
    pruned = kept.filter(pl.col("reason").str.contains("% of its tokens"))
    assert len(pruned) > 0
    assert pruned["reason"].str.ends_with("exported whole, as rewritten rows have no token masks").all()
    masks = result.masks.join(kept, on="row").filter(
        pl.col("kept_tokens").list.len() != pl.col("n_kept_tokens")
    )
    assert masks.is_empty()


def test_what_measuring_cut_off_is_exported_and_counted(run: Run, folder: Path, tiny_folder: Path) -> None:
    result = run(
        measuring={"model": str(tiny_folder), "max_length": 70},
        methods=["ppl"],
        combine=None,
        keep="100%",
        rewrite={"method": "asap", "options": {"max_token_ratio": 0.9}},
        export={"plain": "long.jsonl"},
    )
    again = datapruner.score(folder / "long.jsonl", ["ppl"], home=folder / "home", model=str(tiny_folder))
    kept = result.scores.filter(keep=True)
    assert (kept["n_truncated"] > 0).any()
    assert kept["n_kept_tokens"].to_list() == again.scores["n_response_tokens"].to_list()


def test_explain_tells_of_every_stage(whole: Result, folder: Path) -> None:
    home = folder / "home"
    rewritten = explain(whole.run.run_id, "row:8", home)
    assert len(rewritten.steps) == 3
    new = "".join(each.text for each in rewritten.changes if each.kind != "removed")
    assert new == whole.rewrites.filter(row=8)["text"].item()
    assert {each.kind for each in rewritten.changes} == {"same", "removed"}
    assert rewritten.notes[0].startswith("its reasoning: rewritten")
    alone = explain(str(folder / "out.parquet"), "row:8", folder / "another home")
    assert alone.turns[-1].pieces[0].text == whole.rewrites.filter(row=8)["text"].item()
    dropped = explain(whole.run.run_id, "row:11", home)
    assert dropped.reason == "duplicate of row 4 at Jaccard 0.867"
    assert dropped.tokens == ()
    assert dropped.near == (NearDuplicate(4, 0.867),)
    assert explain(whole.run.run_id, "row:4", home).near == (NearDuplicate(11, 0.867),)
    assert rewritten.near == ()


def test_a_recipe_is_stored_with_its_run_and_replays_to_the_same_bytes(whole: Result, folder: Path) -> None:
    stored = json.loads((whole.run.folder / "run.json").read_text())
    assert stored["config"]["filter"] == "n_response_tokens > 5"
    assert stored["config"]["rewrite"]["options"] == {"max_token_ratio": 0.5}
    assert stored["lineage"]["contamination"]["quiz"]["rows"] == 1
    again = datapruner.replay(folder / "out.run.json", home=folder / "home", device="cpu")
    assert again.run.run_id == whole.run.run_id
    assert again.run.measured == 0
    assert again.scores.equals(whole.scores)


def test_another_evaluation_set_makes_another_run(run: Run, folder: Path) -> None:
    first = run()
    (folder / "quiz.jsonl").write_text(json.dumps({"quiz": "Nothing of this is in any of the rows here."}))
    try:
        second = run()
    finally:
        (folder / "quiz.jsonl").write_text(json.dumps(BENCHMARK) + "\n", encoding="utf-8")
    assert second.run.run_id != first.run.run_id
    assert second.scores.filter(row=3)["ppl"].null_count() == 0


def test_a_filter_that_nothing_passes_is_told(run: Run) -> None:
    with pytest.raises(NothingSurvivedError, match=r"leaves none of 10 samples .*ppl < 0"):
        run(filter="ppl < 0")


def test_contamination_of_all_rows_is_told(run: Run, folder: Path) -> None:
    (folder / "all.jsonl").write_text((folder / "rows.jsonl").read_text())
    (folder / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[:3]))
    with pytest.raises(NothingSurvivedError, match="no sample is left"):
        run(data="few.jsonl", dedup=None, contamination={"against": {"all": "all.jsonl"}})


def test_data_can_be_given_from_python(run: Run, folder: Path) -> None:
    run()
    rows = [dict(row, id=number) for number, row in enumerate(ROWS)]
    result = datapruner.run_recipe(folder / "recipe.yaml", rows, home=folder / "home", device="cpu")
    assert result.run.config.source is None
    assert result.report.ingested == len(ROWS)
    (folder / "dataless.yaml").write_text("methods: [ppl]\nkeep: 0.5\n")
    with pytest.raises(UsageError, match="the recipe names no data"):
        datapruner.run_recipe(folder / "dataless.yaml", home=folder / "home")
