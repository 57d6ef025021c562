"""Which samples are measured, with which model, under which key, in which tasks."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datapruner.corpora.corpus import Corpus
from datapruner.corpora.ingest import ingest
from datapruner.errors import ModelError
from datapruner.measuring import measure as measuring_module
from datapruner.measuring.measure import Machine, Measurement, Pass, measure, proxy_for
from datapruner.measuring.signal_cache import ProxyKey
from datapruner.measuring.workers import local
from datapruner.progress import Silent
from datapruner.request.config import Measuring
from scorers.models.encoders import EncoderFolder
from scorers.models.rewards import RewardFolder

STAND_IN = Path(__file__).parent / "workers" / "stand_in.py"


def corpus_of(folder: Path, rows: list[dict[str, Any]]) -> Corpus:
    ingest(rows, out=folder / "c.duckdb")
    return Corpus(folder / "c.duckdb")


def pairs(*responses: str) -> list[dict[str, str]]:
    return [{"prompt": f"p{i}", "completion": text} for i, text in enumerate(responses)]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that measure nothing and do what the text of a sample says."""
    monkeypatch.setattr(local, "WORKER", (str(STAND_IN),))


def measured(corpus: Corpus, home: Path, folder: Path) -> Measurement:
    return measure(corpus, plain(folder, home), home, Machine(["cpu"]), progress=Silent())


def plain(folder: Path, home: Path) -> Pass:
    return proxy_for(Measuring(model=str(folder)), home, ["cpu"])


# What is measured


@pytest.mark.usefixtures("stand_in")
def test_errors_that_will_stay_are_remembered_and_passing_ones_tried_again(
    tmp_path: Path, tiny_folder: Path
) -> None:
    with corpus_of(tmp_path, pairs("fine", "FAIL", "REFUSE")) as corpus:
        ids = corpus.sample_index()["sample_id"].to_list()
        first = measured(corpus, tmp_path, tiny_folder)
        second = measured(corpus, tmp_path, tiny_folder)
    assert (first.measured, second.measured) == (3, 1)
    assert first.errors == second.errors == {ids[1]: "out of memory", ids[2]: "cannot be rendered"}


@pytest.mark.usefixtures("stand_in")
def test_what_is_measured_already_starts_no_worker(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with corpus_of(tmp_path, pairs("a", "b", "REFUSE", "a")) as corpus:
        assert measured(corpus, tmp_path, tiny_folder).measured == 4
        monkeypatch.setattr(local, "measure", None)
        again = measured(corpus, tmp_path, tiny_folder)
    assert (again.measured, again.seconds) == (0, 0.0)
    assert list(again.errors.values()) == ["cannot be rendered"]


@pytest.mark.usefixtures("stand_in")
def test_copies_are_not_measured(tmp_path: Path, tiny_folder: Path) -> None:
    rows = pairs("a", "b")
    with corpus_of(tmp_path, [*rows, *rows, rows[1]]) as corpus:
        found = measured(corpus, tmp_path, tiny_folder)
    assert (found.measured, found.errors) == (2, {})


@pytest.mark.usefixtures("stand_in")
def test_a_sample_that_failed_here_and_was_measured_elsewhere_meanwhile_is_no_error(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with corpus_of(tmp_path, pairs("a", "b")) as corpus:
        first, second = corpus.sample_index()["sample_id"].to_list()
        real = local.measure

        def with_company(*args: Any, **options: Any) -> Any:
            yield from real(
                *args, **options
            )  # which is where another run on this home measures `first` as well
            yield first, "out of memory"

        monkeypatch.setattr(local, "measure", with_company)
        found = measured(corpus, tmp_path, tiny_folder)
    assert found.errors == {}
    assert set(found.cache.status([first, second])["sample_id"]) == {first, second}


# Tasks


def test_tasks_hold_every_sample_once_sorted_by_length_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring_module, "WINDOW_ROWS", 40)
    monkeypatch.setattr(measuring_module, "TASK_ROWS", 16)
    monkeypatch.setattr(measuring_module, "TASK_CHARACTERS", 500)
    rows = pairs(*(f"{'x' * (i * 37 % 90 + 1)}{i}" for i in range(100)), "y" * 900)
    with corpus_of(tmp_path, rows) as corpus:
        index = corpus.sample_index()
        tasks = list(
            measuring_module._tasks(corpus, index["row"].to_list(), tmp_path, set(index["sample_id"]))
        )
    sizes = [[sum(len(turn[1]) for turn in each["turns"]) for each in task.samples] for task in tasks]
    assert sorted(each["id"] for task in tasks for each in task.samples) == sorted(index["sample_id"])
    assert all(size == sorted(size) for size in sizes)
    assert max(map(len, sizes)) <= 16
    assert all(sum(size) - size[-1] <= 500 for size in sizes)
    assert len({task.out for task in tasks}) == len(tasks)


def test_windows_end_early_where_texts_are_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no more text is in memory than a window may have, and one reading of rows."""
    monkeypatch.setattr(measuring_module, "BATCH_ROWS", 4)
    monkeypatch.setattr(measuring_module, "WINDOW_CHARACTERS", 100)
    rows = pairs(*(f"{'x' * 50}{i:02}" for i in range(10)))
    with corpus_of(tmp_path, rows) as corpus:
        tasks = list(measuring_module.cut(corpus, corpus.sample_index()["row"].to_list(), 100, 100))
    assert [sorted(each["turns"][-1][1][-2:] for each in task) for task in tasks] == [
        ["00", "01", "02", "03"],
        ["04", "05", "06", "07"],
        ["08", "09"],
    ]


def test_processors_that_no_device_needs_render_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def renderers(processors: int, *devices: str) -> int:
        monkeypatch.setattr(measuring_module, "_processors", lambda: processors)
        return measuring_module._renderers(devices)

    assert renderers(16, "cpu") == renderers(1, "cuda:0") == renderers(2, "cuda:0", "cuda:1", "cuda:2") == 0
    assert (renderers(3, "cuda:0"), renderers(16, "cuda:0"), renderers(8, "cuda:0", "cuda:1")) == (2, 4, 3)


def test_turns_calls_and_tools_are_on_the_wire(tmp_path: Path) -> None:
    calls = [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]
    messages = [
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "1"},
        {"role": "assistant", "content": "one"},
    ]
    tools = [{"name": "f"}]
    with corpus_of(tmp_path, [{"messages": messages, "tools": tools}]) as corpus:
        (task,) = measuring_module._tasks(corpus, [0], tmp_path, set(corpus.sample_index()["sample_id"]))
    (sample,) = json.loads(json.dumps(task.samples))
    assert [turn[:2] for turn in sample["turns"]] == [[m["role"], m["content"]] for m in messages]
    assert json.loads(sample["turns"][1][2])[0]["name"] == "f"
    assert json.loads(sample["tools"]) == tools


# The key


def key_for(
    folder: Path, home: Path, tied: bool = False, devices: tuple[str, ...] = ("cpu",), **given: Any
) -> ProxyKey:
    needs = {"tied_grad_norm"} if tied else ()
    return proxy_for(Measuring(model=str(folder), **given), home, devices, needs=needs).key


def test_what_decides_a_number_decides_the_key(tmp_path: Path, tiny_folder: Path) -> None:
    plain = key_for(tiny_folder, tmp_path)
    variants = [
        key_for(tiny_folder, tmp_path, dtype="bfloat16"),
        key_for(tiny_folder, tmp_path, max_length=64),
        key_for(tiny_folder, tmp_path, overflow="error"),
        key_for(tiny_folder, tmp_path, train_on="last"),
        key_for(tiny_folder, tmp_path, tied=True),
        key_for(tiny_folder, tmp_path, devices=("cuda:0",)),
    ]
    assert len({key.digest() for key in [plain, *variants]}) == 1 + len(variants) - 1  # bfloat16 comes twice
    assert variants[0].digest() == variants[-1].digest()
    assert key_for(tiny_folder, tmp_path, dtype="float32").digest() == plain.digest()


def test_the_dtype_left_open_is_float32_on_a_processor_and_bfloat16_on_a_gpu(
    tmp_path: Path, tiny_folder: Path
) -> None:
    assert key_for(tiny_folder, tmp_path).dtype == "float32"
    assert key_for(tiny_folder, tmp_path, devices=("cuda:0", "cuda:1")).dtype == "bfloat16"
    assert key_for(tiny_folder, tmp_path, devices=("cuda:0",), dtype="float16").dtype == "float16"


def test_a_copy_of_a_model_shares_its_signals_and_an_edited_one_does_not(
    tmp_path: Path, tiny_folder: Path
) -> None:
    plain = key_for(tiny_folder, tmp_path)
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    assert key_for(copy, tmp_path).digest() == plain.digest()
    template = copy / "chat_template.jinja"
    text = template.read_text()
    template.write_text(text.replace("<|im_end|>", "<|im_end|> "))
    other_template = key_for(copy, tmp_path)
    template.write_text(text)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(bytes(weights))
    other_weights = key_for(copy, tmp_path)
    assert replace(other_template, template_hash=plain.template_hash, model=plain.model) == plain
    assert replace(other_weights, revision=plain.revision, model=plain.model) == plain
    assert len({key.digest() for key in (plain, other_template, other_weights)}) == 3


def test_a_folder_that_is_no_model_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is not a model folder: no config\.json"):
        key_for(tmp_path, tmp_path)


# Devices


def test_the_processors_that_are_ours_are_shared_among_workers_on_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    ours = os.sched_getaffinity(0)
    assert measuring_module._threads(["cpu"]) == len(ours)
    assert measuring_module._threads(["cpu"] * 1000) == 1
    assert measuring_module._threads(["cuda:0"]) is None
    try:
        os.sched_setaffinity(0, {min(ours)})
        assert measuring_module._threads(["cpu"]) == 1
    finally:
        os.sched_setaffinity(0, ours)


def test_processors_are_shared_whichever_kind_of_model_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    key = ProxyKey("model", "0", "", "float32", None, "error", "all", False, 1)
    for model in (EncoderFolder(tmp_path, "0", None), RewardFolder(tmp_path, "0", "", ("",), False)):
        spec = measuring_module.spec_of(model, key, Machine(["cpu"] * 1000))
        assert (spec.folder, spec.threads) == (str(tmp_path), 1)


def test_the_number_of_threads_can_be_given_in_the_usual_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert measuring_module._threads(["cpu"]) is None


class Kept:
    """A plan in memory."""

    def __init__(self) -> None:
        self.kept: list[int] | None = None

    def rows(self) -> list[int] | None:
        return self.kept

    def keep(self, rows: list[int]) -> None:
        self.kept = rows


@pytest.mark.usefixtures("stand_in")
def test_signals_that_were_lost_since_the_plan_was_made_are_measured_too(
    tmp_path: Path, tiny_folder: Path
) -> None:
    plan = Kept()
    with corpus_of(tmp_path, pairs("a", "b", "c")) as corpus:
        plan.keep(corpus.sample_index()["row"].to_list()[1:])
        wanted = plain(tiny_folder, tmp_path)
        found = measure(corpus, wanted, tmp_path, Machine(["cpu"]), progress=Silent(), plan=plan)
    assert (found.measured, found.errors, plan.kept) == (3, {}, [0, 1, 2])


@pytest.mark.usefixtures("stand_in")
def test_a_task_done_again_for_one_sample_says_what_has_become_of_the_others(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """The sample that was measured the first time fails the second time, and the other way round."""
    plan, switch = Kept(), tmp_path / "switch"
    found = []
    with corpus_of(tmp_path, pairs(f"FAIL-UNLESS {switch}", f"FAIL-IF {switch}")) as corpus:
        ids = corpus.sample_index()["sample_id"].to_list()
        for _ in range(2):
            wanted, machine = plain(tiny_folder, tmp_path), Machine(["cpu"])
            found.append(measure(corpus, wanted, tmp_path, machine, progress=Silent(), plan=plan))
            switch.touch()
    assert [each.errors for each in found] == [{ids[0]: "out of memory"}, {ids[1]: "out of memory"}]


def test_a_second_attempt_with_the_plan_of_the_first_leaves_the_same_shards(
    tmp_path: Path, tiny_folder: Path, idle: local.IdleWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The undisturbed measuring and one that stopped after some tasks write files with the same bytes."""
    monkeypatch.setattr(measuring_module, "WINDOW_ROWS", 16)
    monkeypatch.setattr(measuring_module, "TASK_ROWS", 5)
    rows = pairs(*(f"{'x' * (i * 37 % 60 + 1)} {i}" for i in range(40)))

    class Stop(Silent):
        def measured(self, rows: int, tokens: int) -> None:
            if rows >= 18:
                raise KeyboardInterrupt

    def shards(home: Path, *listeners: Silent) -> dict[str, bytes]:
        plan = Kept()
        for listener in listeners:
            with corpus_of(tmp_path / home.name, rows) as corpus, suppress(KeyboardInterrupt):
                measure(
                    corpus,
                    plain(tiny_folder, home),
                    home,
                    Machine(("cpu",), idle=idle),
                    progress=listener,
                    plan=plan,
                )
        return {path.name: path.read_bytes() for path in home.rglob("[!.]*.parquet")}

    for name in ("calm", "broken"):
        (tmp_path / name).mkdir()
    calm = shards(tmp_path / "calm", Silent())
    broken = shards(tmp_path / "broken", Stop(), Silent())
    assert len(calm) == 10
    assert broken == calm
