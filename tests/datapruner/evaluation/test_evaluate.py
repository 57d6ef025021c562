"""Whole evaluations, with a tiny model."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from transformers import AutoTokenizer

import datapruner
from datapruner.errors import InputError, NothingSurvivedError, UsageError
from datapruner.evaluation import reading
from datapruner.evaluation.plan import steps_of
from datapruner.evaluation.store import Store
from datapruner.progress import Silent
from datapruner.result import Result
from datapruner.runs import evaluations
from datapruner.schemas.evaluations import Evaluation
from datapruner.tuning.training import RATES
from tests.command_line import Said
from tests.pipeline import Prune
from tests.tiny_model import FACTS, rendered

Evaluate = Callable[..., list[Evaluation]]

HELD_OUT = [
    {"prompt": "Name a river in Peru.", "response": "The Amazon rises there."},
    {"prompt": FACTS[1][0], "response": FACTS[1][1]},  # row 1 of the corpus
    {"prompt": "What does the whole of a longer text say?", "response": f"{FACTS[4][0]} {FACTS[4][1]}"},
    {"prompt": "What do cows make?", "response": "Milk, and of it butter."},
    {"prompt": "What do cows make?", "response": "Milk, and of it butter."},
    {"prompt": "No answer.", "response": None},
    {"prompt": "Is the moon a sphere?", "response": "Very nearly so."},
    {"prompt": "Finish: all work and", "response": "no play."},
]


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("held-out") / "held.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in HELD_OUT), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pruned(prune: Prune) -> Result:
    """A run that keeps rows, and of some of them not all tokens."""
    return prune("qtuning", 0.6, token_keep=0.3)


@pytest.fixture(scope="module")
def evaluate(home: Path) -> Evaluate:
    def run(*given: Any, **more: Any) -> list[Evaluation]:
        return datapruner.evaluate(*given, **{"device": "cpu", "home": home, "seeds": 2} | more)

    return run


@pytest.fixture(scope="module")
def evaluated(evaluate: Evaluate, pruned: Result, held_out: Path) -> Evaluation:
    [found] = evaluate(pruned, {"talk": held_out})
    return found


def test_all_arms_train_on_equally_many_tokens_within_one_row(evaluated: Evaluation, pruned: Result) -> None:
    arms = {each.name: each for each in evaluated.arms}
    assert list(arms) == ["random", "subset", "random-tokens", "longest", "all"]
    with duckdb.connect(str(pruned.run.database), read_only=True) as connection:
        kept = connection.sql(
            "SELECT sum(n_kept_tokens), count(*) FROM sample_scores WHERE keep AND row NOT IN (1, 4)"
        ).fetchall()[0]
        longest = connection.sql(
            "SELECT max(n_response_tokens) FROM sample_scores WHERE status IN ('kept', 'pruned')"
        ).fetchall()[0][0]
    for name in ("subset", "random-tokens"):
        assert (arms[name].trained_tokens, arms[name].rows) == kept
    for name in ("random", "longest"):
        assert abs(arms[name].trained_tokens - kept[0]) <= longest / 2
    assert arms["all"].trained_tokens > 1.5 * kept[0]
    assert max(each.steps for each in evaluated.arms) == steps_of(kept[0])  # long rows fill several steps
    assert all(each.seeds == [0, 1] for each in evaluated.arms)


def test_held_out_rows_add_up_and_are_not_trained_on(evaluated: Evaluation, pruned: Result) -> None:
    [held] = evaluated.held_out
    assert (held.rows, held.read, held.rejected, held.left_out) == (8, 6, 1, 1)
    assert held.contaminated == 2  # row 1, which is the same, and row 4, whose text is in another answer
    assert held.tokens > 0
    assert {each.name for each in evaluated.arms} == held.losses.keys()
    everything = next(each for each in evaluated.arms if each.name == "all")
    measured = pruned.scores.filter(pruned.scores["status"].is_in(["kept", "pruned"]))
    assert everything.rows == len(measured.filter(measured["reason"].str.contains("duplicate").not_())) - 2
    assert evaluated.cost is not None
    assert evaluated.cost.measured_tokens > evaluated.cost.all_tokens  # the proxy read the two rows too


def test_it_is_stored_with_the_run_and_says_what_its_verdict_is(
    evaluated: Evaluation, pruned: Result
) -> None:
    assert evaluations.latest(pruned.run.folder) == evaluated
    [random, *_] = evaluated.overall
    assert random.control == "random"
    assert evaluated.verdict == random.verdict
    difference = evaluated.held_out[0].losses["subset"] - evaluated.held_out[0].losses["random"]
    assert random.nats_per_token.difference == pytest.approx(difference)
    assert evaluated.not_reached == []
    best = min(evaluated.learning_rates, key=lambda rate: evaluated.learning_rates[rate])
    assert evaluated.learning_rate == float(best)


class Stopping(Silent):
    """Ends the work after the first training of the second seed."""

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        if note.endswith("seed 1"):
            raise KeyboardInterrupt


def test_one_that_was_ended_goes_on_where_it_was_and_comes_to_the_same(
    evaluate: Evaluate, pruned: Result, held_out: Path, home: Path, evaluated: Evaluation
) -> None:
    def again(**how: Any) -> Evaluation:
        [found] = evaluate(pruned, {"talk": held_out}, **how)
        return found

    [folder] = {path.parent for path in (home / "evaluations").glob(f"*/{pruned.run.run_id}-1-*.npz")}
    whole = {path.name: path.read_bytes() for path in folder.glob("*.npz")}
    assert len(whole) == 2 * 5 + 2  # arms and seeds, and two more learning rates
    for path in folder.glob("*.npz"):
        path.unlink()
    with pytest.raises(KeyboardInterrupt):
        again(progress=Stopping())
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    assert 0 < len(kept) < len(whole)
    found = again()
    assert {name: (folder / name).stat().st_mtime_ns for name in kept} == kept
    assert found.held_out == evaluated.held_out
    assert found.overall == evaluated.overall
    store = Store(folder)
    for name in whole:
        arm, seed, rate = re.fullmatch(r"(.+)-(\d+)-(.+)\.npz", name).groups()  # type: ignore[union-attr]
        done = store.get(arm, int(seed), float(rate))
        assert done is not None
        (folder / name).write_bytes(whole[name])
        before = store.get(arm, int(seed), float(rate))
        assert before is not None
        assert done.trained == before.trained
        np.testing.assert_array_equal(done.nll["talk"], before.nll["talk"])


def test_more_seeds_go_on_from_those_that_were_trained(
    evaluate: Evaluate, pruned: Result, held_out: Path, home: Path, evaluated: Evaluation
) -> None:
    def trained() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (home / "evaluations").glob("*/*.npz")}

    before = trained()
    [found] = evaluate(pruned, {"talk": held_out}, seeds=3)
    assert found.id != evaluated.id
    assert [each.seeds for each in found.arms] == [[0, 1, 2]] * 5
    assert before.items() <= trained().items()
    assert len(trained()) == len(before) + 5


def test_answers_that_rows_state_are_compared_with_those_that_models_write(
    evaluate: Evaluate, pruned: Result, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LONGEST_ANSWER", 4)
    sums = tmp_path / "sums.jsonl"
    rows = [{"prompt": f"{a} and 9?", "response": f"That is {a + 9}.\n#### {a + 9}"} for a in range(5)]
    sums.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    [found] = evaluate(pruned, {"sums": sums, "talk": held_out}, seeds=1)
    talk, with_answers = sorted(found.held_out, key=lambda each: each.answered)
    assert (talk.answered, talk.exact_match) == (0, {})
    assert (with_answers.answered, with_answers.exact_match.keys()) == (5, with_answers.losses.keys())
    assert with_answers.against[0].exact_match is not None
    assert talk.against[0].exact_match is None


def test_each_model_does_a_task_of_a_file_besides(
    command: Callable[..., Said], pruned: Result, held_out: Path, home: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "Say yes.", "right": "yes", "wrong": "no"}\n' * 4, encoding="utf-8")
    task = {
        "task": "yes",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}, "cache_dir": str(tmp_path)},
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_choice": ["{{right}}", "{{wrong}}"],
        "doc_to_target": 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (tmp_path / "yes.yaml").write_text(json.dumps(task), encoding="utf-8")
    given = ("evaluate", pruned.run.run_id, "-x", held_out, "--seeds", 1, "--lm-eval", tmp_path / "yes.yaml")
    said = command(*given, "--json", home=home)
    assert said.code == 0, said.err
    [_, found] = said.json["evaluations"][0]["held_out"]
    assert (found["name"], found["source"]) == ("yes", "lm-eval")
    assert found["tasks"].keys() == {"random", "subset", "random-tokens", "longest", "all"}
    assert all(metrics["acc"] in (0, 1) for metrics in found["tasks"].values())
    lines = [line.split() for line in command(*given, home=home).out.splitlines()]
    assert ["subset", "yes", "acc"] in [line[:3] for line in lines]


def test_a_file_that_is_no_task_is_refused(
    evaluate: Evaluate, pruned: Result, held_out: Path, tmp_path: Path
) -> None:
    (tmp_path / "none.yaml").write_text("- 1", encoding="utf-8")
    with pytest.raises(InputError, match=r"none\.yaml: not a task of lm-eval"):
        evaluate(pruned, held_out, lm_eval=[str(tmp_path / "none.yaml")])


def test_a_run_that_weights_tokens_is_held_against_the_same_weights_on_other_tokens(
    evaluate: Evaluate, weighted: Result, held_out: Path
) -> None:
    [found] = evaluate(weighted, {"talk": held_out}, seeds=1)
    losses = found.held_out[0].losses
    assert len({losses["subset"], losses["random-tokens"]}) == 2
    against = next(each for each in found.overall if each.control == "random-tokens")
    assert "No difference between the subset and random tokens of its rows" in against.said
    arms = {each.name: each for each in found.arms}
    assert arms["subset"].trained_tokens == arms["random-tokens"].trained_tokens


def test_several_runs_share_their_controls(
    evaluate: Evaluate, pruned: Result, held_out: Path, prune: Prune
) -> None:
    other = prune("length", 0.5)
    both = evaluate([pruned, other.run.run_id], held_out, seeds=1)
    assert [each.run for each in both] == [pruned.run.run_id, other.run.run_id]
    first, second = ({arm.name: arm for arm in each.arms} for each in both)
    assert first["random"] == second["random"]
    assert ("random-tokens" in first, "random-tokens" in second) == (True, False)  # one masks no tokens
    fewer = min(each["subset"].trained_tokens for each in (first, second))
    longest = pruned.scores["n_response_tokens"].max()
    assert isinstance(longest, int)
    assert all(abs(arm.trained_tokens - fewer) <= longest / 2 for arm in [*first.values()][:5])
    assert first["subset"] == second[pruned.run.run_id].model_copy(update={"name": "subset"})
    assert [each.control for each in both[0].overall][-1] == other.run.run_id


def test_runs_that_rewrote_are_arms_beside_each_other_in_their_own_words(
    evaluate: Evaluate, held_out: Path, home: Path, options: dict[str, Any], tiny_folder: Path
) -> None:
    steps = ("Let me see.", "Two rivers: the Rhine, the Nile.", "Or is it {}?", "So the sky is blue.")
    reasoning = "\n\n".join(steps)
    given = [
        {"question": f"Why {n}?", "answer": f"<think>\n{reasoning.format(n)}\n</think>\nBlue {n}."}
        for n in range(9)
    ]
    given.append({"question": HELD_OUT[0]["prompt"], "answer": HELD_OUT[0]["response"]})
    whole, half = (
        datapruner.rewrite(given, max_token_ratio=ratio, home=home, **options) for ratio in (1.0, 0.4)
    )
    first, second = evaluate([whole, half], held_out, seeds=1)
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    trained = [
        len(rendered(tokenizer, [{k: m[k] for k in ("role", "content")} for m in row["messages"]])[1])
        for row in half.subset
        if row["row"] < 9  # the last is held out
    ]
    arms = {each.name: each for each in second.arms}
    assert list(arms) == ["random", whole.run.run_id, "subset", "longest", "all"]
    assert (arms["subset"].rows, arms["subset"].trained_tokens) == (9, sum(trained))
    assert arms[whole.run.run_id].rows < 9
    losses = second.held_out[0].losses
    assert losses["subset"] != losses[whole.run.run_id] == first.held_out[0].losses["subset"]
    against = {each.control: each for each in second.overall}[whole.run.run_id]
    assert f"between the subset and run {whole.run.run_id}" in against.said
    difference = against.nats_per_token.difference
    assert difference == pytest.approx(losses["subset"] - losses[whole.run.run_id])
    assert (second.carried, second.held_out[0].contaminated) == (None, 1)


def test_another_model_with_the_same_tokens_is_trained_on_the_masks(
    evaluate: Evaluate, pruned: Result, held_out: Path, reference_folder: Path
) -> None:
    [same] = evaluate(pruned, {"talk": held_out}, model=str(reference_folder), seeds=1)
    [own] = evaluate(pruned, {"talk": held_out}, seeds=1)  # whose trainings are there already
    assert same.arms[1].trained_tokens == own.arms[1].trained_tokens
    assert same.held_out[0].losses != own.held_out[0].losses
    assert same.carried is None


def test_a_training_that_diverged_is_told_and_so_is_what_the_others_came_to(
    command: Callable[..., Said], evaluate: Evaluate, pruned: Result, held_out: Path, home: Path
) -> None:
    def again() -> Evaluation:
        [found] = evaluate(pruned, {"talk": held_out}, seeds=1, seed=40)
        return found

    def diverge(arm: str, rate: float) -> None:
        [path] = (home / "evaluations").glob(f"*/{arm}-40-{rate:g}.npz")
        store = Store(path.parent)
        done = store.get(arm, 40, rate)
        assert done is not None
        done.nll["talk"][0] = np.nan
        store.put(arm, 40, rate, done)

    before = again()
    rates = {float(rate): loss for rate, loss in before.learning_rates.items()}
    other = next(rate for rate in rates if rate != before.learning_rate)
    diverge("random", other)
    diverge("longest", before.learning_rate)
    found = again()
    assert found.learning_rates == before.learning_rates | {f"{other:g}": None}
    assert (found.verdict, found.said) == (before.verdict, before.said)
    assert [each.control for each in found.overall] == ["random", "random-tokens", "all"]
    assert found.held_out[0].losses.keys() == {"random", "subset", "random-tokens", "all"}
    assert found.diverged == [
        "training on longest with seed 40: its loss is no finite number, so that nothing is compared with it"
    ]
    diverge(pruned.run.run_id, before.learning_rate)
    found = again()
    assert (found.verdict, found.overall) == (None, [])
    assert "training on the subset diverged" in found.said
    given = ("evaluate", pruned.run.run_id, "-x", f"talk={held_out}", "--seeds", 1, "--seed", 40)
    shown = command(*given, "--device", "cpu", home=home).out
    assert "diverged: training on subset with seed 40" in " ".join(shown.split())


def test_what_time_is_too_short_for_is_said(evaluate: Evaluate, pruned: Result, held_out: Path) -> None:
    with pytest.raises(UsageError, match="no training ended in the time given"):
        evaluate(pruned, held_out, seconds=1e-3)


def test_trainings_not_reached_are_said_to_go_on_with_the_same_again(
    evaluate: Evaluate, pruned: Result, held_out: Path, home: Path, evaluated: Evaluation
) -> None:
    def folders() -> set[Path]:
        return {path.parent for path in (home / "evaluations").glob("*/plan.json")}

    before = folders()
    with pytest.raises(UsageError, match="no training ended"):
        evaluate(pruned, {"talk": held_out}, seconds=2e-3)
    [planned] = folders() - before
    middle = RATES["lora"][1]
    [whole] = {path.parent for path in (home / "evaluations").glob(f"*/{pruned.run.run_id}-1-*.npz")}
    shutil.copy(whole / f"random-0-{middle:g}.npz", planned)
    [found] = evaluate(pruned, {"talk": held_out}, seconds=2e-3)
    assert found.learning_rate == middle
    assert "no time to train" in found.said
    tokens, *trainings = found.not_reached
    assert tokens.endswith("trained tokens were taken each time; give more seconds")
    assert trainings == [
        f"training on {arm} with seed {seeds}; the same again goes on from there"
        for arm, seeds in (
            ("subset", "0, 1"),
            ("random-tokens", "0, 1"),
            ("longest", "0, 1"),
            ("random", "1"),
            ("all", "0, 1"),
        )
    ]


def test_held_out_rows_that_cannot_be_read_are_refused(
    evaluate: Evaluate, pruned: Result, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"prompt": "Hi", "response": ""}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"empty\.jsonl: none of the 1 rows is a usable sample"):
        evaluate(pruned, empty)


def test_a_corpus_that_is_all_held_out_leaves_nothing_to_train_on(
    evaluate: Evaluate, pruned: Result, corpus_file: Path
) -> None:
    with pytest.raises((NothingSurvivedError, UsageError), match=r"nothing is left|kept no row"):
        evaluate(pruned, corpus_file)


def test_runs_that_cannot_be_compared_are_refused(
    evaluate: Evaluate, pruned: Result, held_out: Path, corpus_file: Path, home: Path, options: dict[str, Any]
) -> None:
    scored = datapruner.score(corpus_file, "length", home=home, **options)
    with pytest.raises(UsageError, match="selected nothing"):
        evaluate(scored, held_out)
    elsewhere = datapruner.prune(held_out, "length", 0.5, home=home, **options)
    with pytest.raises(UsageError, match="not of the same corpus"):
        evaluate([pruned, elsewhere], held_out)


def test_the_command_prints_a_table_and_a_document(
    command: Callable[..., Said], pruned: Result, held_out: Path, home: Path, evaluated: Evaluation
) -> None:
    given = ("evaluate", pruned.run.run_id, "-x", f"talk={held_out}", "--seeds", 2, "--device", "cpu")
    said = command(*given, "--json", home=home)
    assert said.code == 0, said.err
    [found] = said.json["evaluations"]
    assert found["id"] == evaluated.id
    assert found["verdict"] == evaluated.verdict
    shown = command(*given, home=home).out
    assert evaluated.said in shown
    lines = [line.split() for line in shown.splitlines()]
    assert ["talk", "random"] in [line[:2] for line in lines]
