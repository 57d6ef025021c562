"""Samples as token ids, in a process without a model: what a model's process would have made of them."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from datapruner.measuring.signal_cache import NO_MODEL
from datapruner.measuring.workers import shards
from datapruner.measuring.workers.spec import WorkerSpec, spec_line
from datapruner.measuring.workers.worker import Worker
from scorers.interpreter import PYTHON
from tests import tiny_model

_TOKENISE = "import gc, sys; from datapruner.measuring.workers import start; start.main('tokeniser')"
_TORCH = "[name for name, module in sys.modules.items() if module and name.partition('.')[0] == 'torch']"


def task(out: Path) -> dict[str, Any]:
    """Rows of the motley corpus: one is cut at the model's limit, another has nothing to train on before."""
    turns = {
        row: [[m["role"], m["content"], None] for m in tiny_model.messages_of(line)]
        for row, line in enumerate(tiny_model.LINES)
        if isinstance(line, dict) and row in (*tiny_model.MEASURED, tiny_model.TOO_LONG[0])
    }
    samples = [{"id": f"row {row}", "turns": each, "tools": None} for row, each in turns.items()]
    return {"task": 1, "out": str(out), "samples": samples}


def test_a_process_without_torch_makes_the_tokens_that_one_with_a_model_makes(
    tiny_folder: Path, tmp_path: Path
) -> None:
    with_model = WorkerSpec(str(tiny_folder), "r", "float32", None, "truncate", "all", False, "cpu", None, 1)
    without = replace(with_model, dtype=NO_MODEL)
    command = [*PYTHON, "-c", f"{_TOKENISE}; print({_TORCH}, gc.isenabled(), gc.get_freeze_count() > 0)"]
    told = task(tmp_path / "tokens.parquet")
    samples = told.pop("samples")
    lines = spec_line(without) + "".join(json.dumps(line) + "\n" for line in ({**told, "parts": 1}, samples))
    said = subprocess.run(command, input=lines, capture_output=True, text=True, check=True)
    *_, write = Worker(with_model).run(task(tmp_path / "signals.parquet"))
    assert callable(write)
    write()
    found, expected = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("tokens", "signals"))
    assert found.schema.names == shards.TOKENS.names
    assert found.equals(expected.select(found.schema.names))
    assert found["error"].null_count == len(found) - 1
    assert sum(found["n_truncated"].drop_null().to_pylist()) > 0
    ready, progress, done = map(json.loads, said.stdout.splitlines())
    assert ready == {"event": "ready"}
    tokens = sum(found["n_tokens"].drop_null().to_pylist())
    assert progress == {"event": "progress", "task": 1, "rows": len(found), "tokens": tokens}
    assert done == {"event": "done", "task": 1, "failed": []}
    assert said.stderr == "[] True True\n"
