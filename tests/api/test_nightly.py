"""A nightly schedule over a growing file: only what is new is ingested, and only that is measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.served import SELDOM, Server

ROWS, NEW = 60, 5


def lines(start: int, stop: int) -> str:
    return "".join(
        json.dumps({"prompt": f"At night, add {i} and 1.", "completion": f"That is {i + 1}."}) + "\n"
        for i in range(start, stop)
    )


@pytest.mark.slow
def test_the_second_night_measures_the_new_rows_only(
    server: Server, tmp_path: Path, tiny_folder: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(lines(0, ROWS))
    below = rows.relative_to(tiny_folder.parent)  # the service's import root
    source = {"kind": "path", "path": str(below)}
    asked = server.client.post("/v1/datasets", json={"name": "nightly", "source": source})
    assert server.wait(asked.headers["location"])["state"] == "succeeded"
    schedule = {
        "dataset": "nightly",
        "cron": SELDOM,
        "timezone": "Europe/Berlin",
        "run": {"method": "donod", "keep": 0.3, "measuring": {"model": str(tiny_folder)}},
    }
    created = server.client.post("/v1/schedules", json=schedule).raise_for_status().json()
    nights = []
    for end in (ROWS, ROWS + NEW, ROWS + NEW):
        rows.write_text(lines(0, end))
        fired = server.client.post(f"/v1/schedules/{created['id']}/fire")
        nights.append(server.wait(fired.headers["location"]))
    assert [night["state"] for night in nights] == ["succeeded"] * 3, nights
    results = [night["result"] for night in nights]
    assert [result["new_rows"] for result in results] == [0, NEW, 0]
    assert [result["version"] for result in results] == [1, 2, 2]
    runs = [server.client.get(f"/v1/runs/{result['run_id']}").json() for result in results]
    assert [run["measured"] for run in runs[:2]] == [ROWS, NEW]
    assert [result["measured"] for result in results] == [ROWS, NEW, 0]
    assert runs[2]["id"] == runs[1]["id"]  # nothing new: the last night's result stands
    assert runs[1]["report"]["ingested"] == ROWS + NEW
    subset = server.client.get(nights[1]["links"]["subset"])
    assert subset.content[:4] == b"PAR1"
