"""Samples rendered by other processes, which are those that the measuring process would have rendered."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datapruner.measuring.workers.protocol import serve
from datapruner.measuring.workers.renderers import Renderers
from datapruner.measuring.workers.spec import WorkerSpec, spec_line
from datapruner.measuring.workers.worker import Worker
from tests import tiny_model

SPEC = WorkerSpec("folder", "r", "float32", None, "truncate", "all", False, "cpu", None, 1)


def samples() -> list[dict[str, Any]]:
    """The motley corpus: rows that are cut, that are refused, with one answer and with several."""
    return [
        {
            "id": f"row {row}",
            "turns": [[m["role"], m["content"], None] for m in tiny_model.messages_of(line)],
            "tools": None,
        }
        for row, line in enumerate(tiny_model.LINES)
        if isinstance(line, dict) and row in (*tiny_model.MEASURED, *tiny_model.TOO_LONG)
    ]


def shards(spec: WorkerSpec, folder: Path) -> list[bytes]:
    """Shards of two models' tasks, which differ in where samples are cut."""
    folder.mkdir()
    lines: list[str] = []
    for number, max_length in enumerate((None, 64)):
        lines.append(spec_line(replace(spec, max_length=max_length)))
        task = {"task": number, "out": str(folder / f"{number}.parquet"), "parts": 2}
        lines += [json.dumps(each) + "\n" for each in (task, samples()[:5], samples()[5:])]
    out = io.StringIO()
    with Renderers() as renderers:
        serve(Worker, lines, out, renderers.ahead)
    assert [event["task"] for event in map(json.loads, out.getvalue().splitlines()) if "failed" in event] == [
        0,
        1,
    ]
    return [(folder / f"{number}.parquet").read_bytes() for number in range(2)]


def test_shards_have_the_same_bytes_whoever_rendered_their_samples(tiny_folder: Path, tmp_path: Path) -> None:
    here = replace(SPEC, folder=str(tiny_folder))
    beside = replace(here, renderers=2)
    first, second = shards(here, tmp_path / "here")
    assert first != second
    assert shards(beside, tmp_path / "beside") == [first, second]


def test_a_renderer_that_ends_is_an_error_of_whoever_waits_for_it() -> None:
    with Renderers() as renderers:
        part = renderers.ahead(replace(SPEC, folder="/not there", renderers=1))("[]\n")
        with pytest.raises(RuntimeError, match="a rendering process ended with exit code 1"):
            part()
