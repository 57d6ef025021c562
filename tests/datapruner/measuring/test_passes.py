"""Runs whose methods compare: further passes of the tiny model, each with its own cache and plan."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import transformers as tf

import datapruner
from datapruner.corpora import store
from datapruner.corpora.corpus import Corpus
from datapruner.errors import InputError, ModelError, NothingSurvivedError, UsageError
from datapruner.measuring import measure as measuring_module
from datapruner.measuring.measure import Machine
from datapruner.measuring.passes import measure_views, passes
from datapruner.measuring.signal_cache import ProxyKey, SignalCache
from datapruner.measuring.vectors import unpack
from datapruner.measuring.workers import local
from datapruner.measuring.workers.local import IdleWorkers
from datapruner.progress import Silent
from datapruner.request.config import Measuring, MethodChoice, RunConfig
from datapruner.request.keep import Keep
from datapruner.request.needs import check_views
from datapruner.result import Result
from datapruner.runs import pipeline, published
from scorers.methods import registry
from tests import tiny_model
from tests.pipeline import Prune
from tests.towards import GRADIENT, Towards


@pytest.fixture
def towards(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(registry, "OWN", (*registry.OWN, Towards()))
    return "towards"


def losses(folder: Path, text: str, start: int) -> list[float]:
    """-ln p of each token of a text from `start` on."""
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    model = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        logits = model(ids).logits[0].log_softmax(-1)
    return [-float(logits[at - 1, ids[0, at]]) for at in range(start, ids.shape[1])]


def length(folder: Path, text: str) -> int:
    return len(tf.AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False).input_ids)


# What comes of them


def test_ifd_is_the_loss_with_the_prompt_over_the_loss_without(prune: Prune, tiny_folder: Path) -> None:
    result = prune("ifd", 0.4)
    row = result.scores.row(5, named=True)
    question, answer = (tiny_model.LINES[5][name] for name in ("instruction", "output"))  # type: ignore[index]
    header = "<|im_start|>assistant\n"
    prompt = f"<|im_start|>user\n{question}<|im_end|>\n{header}"
    with_prompt, without = (
        np.mean(losses(tiny_folder, f"{before}{answer}<|im_end|>", length(tiny_folder, before)))
        for before in (prompt, header)
    )
    assert row["nll_without_prompt"] == pytest.approx(without, rel=1e-4)
    assert row["ifd"] == pytest.approx(with_prompt / without, rel=1e-4)
    kept = result.scores.filter(pl.col("keep"))
    assert (kept["ifd"] < 1).all()
    assert result.report.errored == len(tiny_model.TOO_LONG)


def test_a_sample_without_one_of_the_views_is_an_error_that_says_which(prune: Prune) -> None:
    result = prune("ifd", 0.4, options={"without_prompt": "bare"})
    failed = result.scores.filter(pl.col("reason").str.starts_with("its bare answer: "))
    assert set(failed["status"]) == {"error"}
    assert all(tiny_model.LINES[row]["output"] in ("x", "11") for row in failed["row"])  # type: ignore[index]
    assert len(failed) > 0
    assert result.report.ingested == len(result.scores)


def test_rho_keeps_the_tokens_that_the_reference_model_finds_likelier(
    prune: Prune, tiny_folder: Path, reference_folder: Path
) -> None:
    result = prune("rho", 1.0, token_keep=0.5)
    question, answer = (tiny_model.LINES[5][name] for name in ("instruction", "output"))  # type: ignore[index]
    prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    ours, theirs = (
        losses(folder, f"{prompt}{answer}<|im_end|>", length(folder, prompt))
        for folder in (tiny_folder, reference_folder)
    )
    found = result.token_scores.filter(pl.col("row") == 5).sort("position")
    assert found["rho"].to_list() == pytest.approx(np.subtract(ours, theirs), abs=1e-3)
    tokens = result.token_scores.filter(~pl.col("is_end"))
    kept, pruned = (tokens.filter(pl.col("keep") == keep)["rho"] for keep in (True, False))
    assert result.report.kept_tokens == pytest.approx(0.5 * result.token_scores.height, abs=20)
    assert kept.median() > pruned.max()  # type: ignore[operator]


def test_a_target_set_is_measured_like_the_corpus(
    towards: str, prune: Prune, tmp_path: Path, home: Path, first_run: Result
) -> None:
    new = {"instruction": "Name a lake between Peru and Bolivia.", "output": "Lake Titicaca."}
    target_file = tmp_path / "target.jsonl"
    rows = (tiny_model.LINES[1], tiny_model.LINES[10], new)
    target_file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = prune(towards, 3, target=target_file)
    lineage = result.run.lineage
    assert (result.run.measured, lineage["target"][0]["samples"]) == (1, 3)  # two rows are in the corpus
    assert lineage["views"]["target"]["proxy"] == lineage["proxy"] == first_run.run.lineage["proxy"]
    assert result.run.config.target == str(target_file)
    cache = SignalCache(home, ProxyKey(**lineage["proxy"]))
    ids = result.scores.filter(pl.col("status").is_in(["kept", "pruned"])).unique(
        "sample_id", maintain_order=True
    )
    with Corpus(home / "corpora" / f"{lineage['target'][0]['corpus']}.duckdb") as target:
        aims = cache.columns(target.sample_index()["sample_id"].to_list(), [GRADIENT])[GRADIENT]
    aim = unpack(aims).mean(0)
    own = unpack(cache.columns(ids["sample_id"].to_list(), [GRADIENT])[GRADIENT])
    assert ids["towards"].to_numpy() == pytest.approx(own @ aim, rel=1e-4)


def test_target_rows_may_come_from_python_and_are_named_as_missing_by_a_replay(
    towards: str, prune: Prune, target_file: Path, tmp_path: Path, home: Path
) -> None:
    rows = [json.loads(line) for line in target_file.read_text().splitlines()]
    result = prune(towards, 0.5, target=rows)
    result.export(tmp_path / "s.parquet")
    assert result.run.config.target is None
    with pytest.raises(UsageError, match=r"does not name its target set.*give the target"):
        datapruner.replay(tmp_path / "s.run.json", home=home, device="cpu")
    again = datapruner.replay(tmp_path / "s.run.json", target=rows, home=home, device="cpu")
    assert again.run.run_id == result.run.run_id


def test_parts_of_a_target_set_that_cannot_be_measured_are_told_and_none_is_an_error(
    towards: str, prune: Prune
) -> None:
    class Listener(Silent):
        notes: list[str] = []  # noqa: RUF012

        def note(self, text: str) -> None:
            self.notes.append(text)

    long = {"instruction": "word " * 400, "output": "Yes."}
    prune(towards, 0.5, target=[long, tiny_model.LINES[0]], progress=(listener := Listener()))
    assert any(
        note.startswith("1 of 2 samples of the target set are left out: no resp") for note in listener.notes
    )
    with pytest.raises(NothingSurvivedError, match="nothing of the target set could be measured"):
        prune(towards, 0.5, target=[long])
    with pytest.raises(InputError, match="nowhere"):
        prune(towards, 0.5, target="nowhere.jsonl")


# Nothing is measured twice


@pytest.mark.parametrize(("method", "view_name"), [("ifd", "free"), ("rho", "reference")])
def test_a_view_is_measured_once_and_in_a_cache_of_its_own(
    prune: Prune, home: Path, method: str, view_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prune(method, 0.3)
    keys = [
        ProxyKey(**first.run.lineage["proxy"]),
        ProxyKey(**first.run.lineage["views"][view_name]["proxy"]),
    ]
    assert keys[0].digest() != keys[1].digest()
    assert all(SignalCache(home, key).shards() for key in keys)
    monkeypatch.setattr(local, "PYTHON", ("/there/is/no/python",))
    assert prune(method, 0.2).run.measured == 0


def test_what_a_reference_model_measured_serves_a_run_in_which_it_is_the_proxy(
    prune: Prune, reference_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prune("rho", 0.3)
    monkeypatch.setattr(local, "PYTHON", ("/there/is/no/python",))
    assert prune("ppl", 0.3, model=str(reference_folder)).run.measured == 0


def test_samples_of_all_passes_are_counted(tmp_path: Path, options: dict[str, Any]) -> None:
    rows = tiny_model.LINES[:6]
    result = datapruner.prune(rows, "ifd", 3, home=tmp_path, **options)
    assert result.run.measured == 12
    assert datapruner.prune(rows, "ppl", 3, home=tmp_path, **options).run.measured == 0


# What was interrupted goes on


class Plans(dict[str, Any]):
    """A plan in memory for each view."""

    def __missing__(self, name: str) -> Any:
        class Kept:
            kept: list[int] | None = None

            def rows(self) -> list[int] | None:
                return self.kept

            def keep(self, rows: list[int]) -> None:
                self.kept = rows

        return self.setdefault(name, Kept())


def test_a_second_attempt_with_the_plans_of_the_first_gives_the_same_bytes_and_counts(
    tmp_path: Path, idle: IdleWorkers, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring_module, "WINDOW_ROWS", 16)
    monkeypatch.setattr(measuring_module, "TASK_ROWS", 4)
    config = RunConfig(
        measuring=Measuring(model=str(tiny_folder)), methods=[MethodChoice(name="ifd")], keep=Keep(share=0.5)
    )
    rows = [{"prompt": f"p{i}", "completion": f"{'so ' * (i * 37 % 20 + 1)} {i}"} for i in range(16)]

    class Stop(Silent):
        """Stops in the second pass."""

        def __init__(self) -> None:
            self.name = ""

        def stage(self, name: str, total: int | None, unit: str) -> None:
            self.name = name

        def measured(self, rows: int, tokens: int) -> None:
            if self.name == "measuring without prompts" and rows >= 6:
                raise KeyboardInterrupt

    def made(home: Path, *listeners: Silent) -> tuple[dict[str, bytes], int, str]:
        home.mkdir()
        plans, run = Plans(), None
        path = store.ingest_to(rows, {}, home, Silent())
        for listener in listeners:
            with Corpus(path) as corpus, suppress(KeyboardInterrupt):
                run = pipeline.run_on(
                    corpus, config, home, Machine(("cpu",), idle=idle), listener, plans=plans.__getitem__
                )
        assert run is not None
        assert sorted(plans) == ["", "free"]
        shards = {
            f"{p.parent.name}/{p.name}": p.read_bytes() for p in (home / "signals").rglob("[!.]*.parquet")
        }
        return shards, run.measured, run.run_id

    calm, broken = made(tmp_path / "calm", Silent()), made(tmp_path / "broken", Stop(), Silent())
    assert calm == broken
    assert calm[1] == 32


# Tasks of a target set


def test_several_sets_are_tasks_and_a_column_may_name_them_too(
    prune: Prune, target_file: Path, tmp_path: Path, home: Path
) -> None:
    lines = [json.loads(line) for line in target_file.read_text().splitlines()]
    apart = {"old": lines[:2], "new": lines[2:]}
    result = prune("rds", 4, target=apart)
    table = result.scores.filter(pl.col("keep")).sort("taken_at")
    assert table["taken_at"].to_list() == [1, 2, 3, 4]
    assert [reason.rpartition(" by ")[2] for reason in table["reason"]] == [
        "row 0 of task old",
        "row 0 of task new",
        "row 1 of task old",
        "row 0 of task new",
    ]
    assert table["reason"][2].startswith("RDS+: taken at turn 3 by ")
    assert table["row"][0] == 1, "row 0 of task old is in the corpus, and nothing is more like it than itself"
    assert (table["nearest_task"][0], table["nearest_row"][0]) == ("old", 0)
    assert [each["task"] for each in result.run.lineage["target"]] == ["old", "new"]
    assert result.report.reasons["RDS+: taken in a turn of task old"] == 2
    together = [line | {"kind": task} for task, rows in apart.items() for line in rows]
    by_column = prune("rds", 4, target=together, task_column="kind")
    assert by_column.scores.filter(pl.col("keep"))["row"].to_list() == sorted(table["row"])
    assert by_column.run.config.task_column == "kind"
    assert set(by_column.scores["nearest_task"].drop_nulls()) == {"old", "new"}
    path = tmp_path / "new.jsonl"
    path.write_text(json.dumps(lines[2]) + "\n")
    named = {"old": str(target_file), "new": str(path)}
    made = prune("rds", 4, target=named)
    assert made.run.config.target == named
    made.export(tmp_path / "s.parquet")
    again = datapruner.replay(tmp_path / "s.run.json", home=home, device="cpu")
    assert again.run.run_id == made.run.run_id


def test_target_rows_that_cannot_be_measured_are_told_of_and_the_rest_counts(
    prune: Prune, target_file: Path
) -> None:
    lines = [json.loads(line) for line in target_file.read_text().splitlines()]
    endless = {"instruction": "word " * 300, "output": "never read"}
    result = prune("rds", 2, target=[endless, *lines])
    assert [each["left_out"] for each in result.run.lineage["target"]] == [1]
    [told] = [text for text in result.report.warnings if "of the target set" in text]
    assert told.startswith("1 of 4 samples of the target set are left out: ")
    with pytest.raises(NothingSurvivedError, match="nothing of task long of the target set"):
        prune("rds", 2, target={"short": lines, "long": [endless]})


# What is refused


@pytest.mark.parametrize(
    ("methods", "given", "message", "field"),
    [
        (["rho"], {}, "method rho needs a reference .name a reference model", "measuring.reference"),
        (["ifd"], {"reference": "m"}, "no reference is read by ifd .leave it out", "measuring.reference"),
        (["ppl", "ifd"], {"target": True}, "no target is read by ppl and ifd .leave it out", "target"),
        (["towards"], {}, "method towards needs a target .name the rows", "target"),
    ],
)
def test_something_to_compare_with_is_given_exactly_where_a_method_compares(
    towards: str, methods: list[str], given: dict[str, Any], message: str, field: str
) -> None:
    config = RunConfig(
        measuring=Measuring(reference=given.get("reference")),
        methods=[MethodChoice(name=name) for name in methods],
    )
    with pytest.raises(UsageError, match=message) as refused:
        check_views(config, has_target="target" in given)
    assert refused.value.field == field


def test_a_reference_model_with_another_vocabulary_is_refused_before_measuring(
    prune: Prune, reference_folder: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(reference_folder, tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, second = list(vocabulary)[10:12]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match=r"has another tokenizer than .*model of the same family"):
        prune("rho", 0.5, reference=str(other))


def test_samples_that_a_reference_model_reads_otherwise_are_errors(
    prune: Prune, reference_folder: Path, tmp_path: Path
) -> None:
    """One whose tokenizer takes other spaces for the same, so that only some rows differ."""
    other = shutil.copytree(reference_folder, tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": "Peru"}, "content": "Chad"}
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    result = prune("rho", 0.5, reference=str(other))
    odd = result.scores.filter(
        pl.col("reason") == ("the reference model reads it as other tokens; name one with the same tokenizer")
    )
    assert odd.select("row", "status").rows() == [(10, "error")]


def test_a_reference_model_reads_the_template_and_stops_at_the_limit_of_the_proxy(
    tiny_folder: Path, reference_folder: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    other = shutil.copytree(reference_folder, tmp_path / "other")
    (other / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    wanted = RunConfig(
        measuring=Measuring(model=str(tiny_folder), reference=str(other)), methods=[MethodChoice(name="rho")]
    )
    found = passes(wanted, tmp_path, ["cpu"])
    assert found["reference"].key.template_hash == found[""].key.template_hash
    assert found["reference"].key.max_length == tiny_model.POSITIONS
    assert found["reference"].template == (tiny_folder / "chat_template.jinja").read_text()
    rows = [tiny_model.LINES[row] for row in (0, 1, tiny_model.CUT)]
    result = datapruner.prune(rows, "rho", 1.0, home=tmp_path, reference=str(other), **options)
    assert result.report.errored == 0


def test_measured_views_are_aligned_with_the_samples_asked_for(
    prune: Prune, home: Path, idle: IdleWorkers
) -> None:
    made = prune("ifd", 0.5).run
    with Corpus(published.corpus_path(made, home)) as corpus:
        views = measure_views(corpus, [], made.config, home, Machine(["cpu"], idle=idle), Silent())
        ids = [i for i in corpus.sample_index()["sample_id"].unique().to_list() if i not in views.errors]
        signals = views.signals(ids[::-1], frozenset({"nll", "free:nll", "free:token:nll"}))
    assert signals.ids.tolist() == signals.others["free"].ids.tolist() == ids[::-1]
    assert set(signals.others["free"].tokens) == {"nll"}
    assert replace(signals, others={}).others == {}
