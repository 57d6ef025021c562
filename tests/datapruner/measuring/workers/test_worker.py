"""The worker's side of the protocol, spoken with in this process."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from datapruner.measuring.vectors import unpack
from datapruner.measuring.workers.protocol import serve
from datapruner.measuring.workers.spec import WorkerSpec, spec_line
from datapruner.measuring.workers.worker import Worker
from tests import reference, tiny_model
from tests.proxies import Sample


@pytest.fixture(scope="module")
def spec(tiny_folder: Path) -> WorkerSpec:
    return WorkerSpec(str(tiny_folder), "revision", "float32", None, "truncate", "all", False, "cpu", None, 1)


@pytest.fixture(scope="module")
def worker(spec: WorkerSpec) -> Worker:
    return Worker(spec)


def sample(row: int) -> dict[str, Any]:
    """A row of the motley corpus in wire form."""
    line = tiny_model.LINES[row]
    assert isinstance(line, dict), line
    turns = [[m["role"], m["content"], None] for m in tiny_model.messages_of(line)]
    return {"id": f"row {row}", "turns": turns, "tools": None}


def task(out: Path, *rows: int) -> dict[str, Any]:
    return {"task": 5, "out": str(out), "samples": [sample(row) for row in rows]}


def spoken(spec: WorkerSpec, *tasks: dict[str, Any]) -> list[dict[str, Any]]:
    out = io.StringIO()
    lines = [spec_line(spec)]
    for each in tasks:
        samples = each.pop("samples")
        parts = [samples[:2], samples[2:]]
        lines += [json.dumps(line) + "\n" for line in ({**each, "parts": len(parts)}, *parts)]
    serve(Worker, lines, out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def run(worker: Worker, task: dict[str, Any]) -> dict[str, Any]:
    """The last event of a task that is done and written at once."""
    *_, write = worker.run(task)
    assert callable(write)
    return write()


def test_a_task_becomes_a_shard_in_the_order_given(spec: WorkerSpec, tmp_path: Path) -> None:
    ready, *progress, done = spoken(spec, task(tmp_path / "s.parquet", 25, 0, tiny_model.TOO_LONG[0], 4))
    assert ready == {"event": "ready"}
    assert done == {"event": "done", "task": 5, "failed": []}
    assert {event["event"] for event in progress} == {"progress"}
    assert sum(event["rows"] for event in progress) == 4
    rows = pq.read_table(tmp_path / "s.parquet").to_pylist()
    assert [row["sample_id"] for row in rows] == ["row 25", "row 0", "row 27", "row 4"]
    assert sum(event["tokens"] for event in progress) == sum(len(row["input_ids"] or []) for row in rows)
    assert [row["error"] is None for row in rows] == [True, True, False, True]
    assert [path.name for path in tmp_path.iterdir()] == ["s.parquet"]


def test_the_shard_has_the_signals_of_the_reference(worker: Worker, spec: WorkerSpec, tmp_path: Path) -> None:
    run(worker, task(tmp_path / "s.parquet", *tiny_model.MEASURED))
    model = tf.AutoModelForCausalLM.from_pretrained(spec.folder, dtype=torch.float64)
    tokenizer = tf.AutoTokenizer.from_pretrained(spec.folder)
    rows = pq.read_table(tmp_path / "s.parquet").to_pylist()
    stored = pl.read_parquet(tmp_path / "s.parquet")
    pooled = {
        name: dict(zip(tiny_model.MEASURED, unpack(stored[name]), strict=True))
        for name in ("mean_hidden", "weighted_hidden")
    }
    for row, number in zip(rows, tiny_model.MEASURED, strict=True):
        messages = tiny_model.messages_of(tiny_model.LINES[number])  # type: ignore[arg-type]
        ids, response = tiny_model.rendered(tokenizer, messages)
        expected = reference.measure(model, Sample(np.array(ids), np.array(response)))
        assert (row["input_ids"], row["position"]) == (ids, response)
        for name in ("nll", "entropy", "el2n"):
            assert reference.relative(row[name], getattr(expected, name)) < 2e-5, name
        for name, vectors in pooled.items():
            assert reference.relative(vectors[number], getattr(expected, name)) < 1 / 2048, name
        assert row["top1"] == expected.top1.tolist()
        assert row["el2n_mean"] == pytest.approx(expected.el2n.mean(), rel=1e-5)
        assert row["head_norm"] == pytest.approx(expected.weight.norm().item(), rel=1e-6)


def test_spans_are_places_in_the_turns_content(worker: Worker, tmp_path: Path) -> None:
    run(worker, task(tmp_path / "s.parquet", *tiny_model.MEASURED))
    for row, number in zip(
        pq.read_table(tmp_path / "s.parquet").to_pylist(), tiny_model.MEASURED, strict=True
    ):
        messages = tiny_model.messages_of(tiny_model.LINES[number])  # type: ignore[arg-type]
        covered: dict[int, set[int]] = {}
        for turn, start, end in zip(row["turn"], row["char_start"], row["char_end"], strict=True):
            assert messages[turn]["role"] == "assistant"
            covered.setdefault(turn, set()).update(range(start, end))
        answers = [turn for turn, message in enumerate(messages) if message["role"] == "assistant"]
        if number == tiny_model.CUT:
            assert covered[1] == set(range(max(covered[1]) + 1))
            continue
        assert covered == {turn: set(range(len(messages[turn]["content"]))) for turn in answers}
        assert sum(row["is_end"]) == len(answers)


def test_only_the_last_answer_is_measured_when_asked(spec: WorkerSpec, tmp_path: Path) -> None:
    every, last = (Worker(replace(spec, train_on=which)) for which in ("all", "last"))
    run(every, task(tmp_path / "all.parquet", 24))
    run(last, task(tmp_path / "last.parquet", 24))
    (all_row,) = pq.read_table(tmp_path / "all.parquet").to_pylist()
    (last_row,) = pq.read_table(tmp_path / "last.parquet").to_pylist()
    assert set(all_row["turn"]) == {2, 4, 6}
    assert set(last_row["turn"]) == {6}
    assert last_row["input_ids"] == all_row["input_ids"]
    assert last_row["nll"] == pytest.approx(all_row["nll"][-len(last_row["nll"]) :], rel=1e-4)


def test_the_shorter_of_the_asked_length_and_the_models_own_counts(spec: WorkerSpec) -> None:
    def limit(max_length: int | None) -> int | None:
        return Worker(replace(spec, max_length=max_length)).renderer._max_length

    assert (limit(50), limit(10_000), limit(None)) == (50, tiny_model.POSITIONS, tiny_model.POSITIONS)


def test_running_out_of_memory_is_reported_and_not_written(
    spec: WorkerSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(spec)
    measure = worker.forward._batch

    def little_memory(samples: Any) -> Any:
        if any(len(each.input_ids) > 100 for each in samples):
            raise torch.OutOfMemoryError("no more")
        return measure(samples)

    monkeypatch.setattr(worker.forward, "_batch", little_memory)
    done = run(worker, task(tmp_path / "s.parquet", 0, tiny_model.CUT, 4))
    ((failed, reason),) = done["failed"]
    assert failed == "row 26"
    assert "out of memory on this sample alone" in reason
    assert "lower max_length" in reason
    assert pq.read_table(tmp_path / "s.parquet")["sample_id"].to_pylist() == ["row 0", "row 4"]


def test_when_nothing_was_measured_there_is_no_shard(
    spec: WorkerSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(_: Any) -> Any:
        raise torch.OutOfMemoryError("no more")

    worker = Worker(spec)
    monkeypatch.setattr(worker.forward, "_batch", no_memory)
    done = run(worker, task(tmp_path / "s.parquet", 0, 1))
    assert {sample_id for sample_id, _ in done["failed"]} == {"row 0", "row 1"}
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_cannot_be_written_is_said_so(worker: Worker, tmp_path: Path) -> None:
    last = run(worker, task(tmp_path / "not there" / "s.parquet", 0))
    assert last["event"] == "broken"
    assert last["message"] == "cannot write the signals: No such file or directory"
    assert last["errno"] == 2
    assert "No such file" in last["message"]


# Models that cannot be used


def another_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))


def truncated(folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])


def incomplete(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def unknown_kind(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "never-heard-of"}')


def no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (another_shape, "cannot load the model in"),
        (truncated, "cannot load the model in"),
        (incomplete, "lack 1 of the model's parameters, such as model.layers.1.mlp.up_proj.weight"),
        (unknown_kind, "never-heard-of"),
        (no_json, "cannot load the model in"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_refused_with_the_reason(
    spec: WorkerSpec, tiny_folder: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    damage(folder)
    (event,) = spoken(replace(spec, folder=str(folder)))
    assert event["event"] == "refused"
    assert message in event["message"]


def test_a_gpu_that_is_not_there_is_refused(spec: WorkerSpec) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    (event,) = spoken(replace(spec, device="cuda:0"))
    assert event == {
        "event": "refused",
        "message": "device cuda:0 asked for, but torch sees no GPU (use device cpu)",
    }


def test_what_libraries_print_does_not_disturb_the_protocol() -> None:
    program = """
import os
from datapruner.measuring.workers import protocol

def serve(start, lines, out, ahead):
    print("chatter")
    os.system("echo more")
    out.write("event\\n")

protocol.serve = serve
protocol.main(None)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], input="", capture_output=True, text=True, check=True
    )
    assert done.stdout == "event\n"
    assert {"chatter", "more"} <= set(done.stderr.split())
