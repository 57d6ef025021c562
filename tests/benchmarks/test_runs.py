"""Benchmarks run one after another: their figures make one table, and what fails or takes long is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.runs import Job, run_all

INGEST = Job("ingest", ("--rows", "50", "--memory-rows", "50", "--repeats", "1"))


def test_a_table_has_the_figures_of_every_job(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_all([INGEST, Job("ingest", ("--row",))], tmp_path, 60) == 1
    table = (tmp_path / "figures.md").read_text()
    assert "| `ingest` | polars read_ndjson and Parquet | " in table
    printed = capfd.readouterr().out
    assert printed.endswith(f"{table}\ningest --row: exit status 2\n")


def test_a_job_is_cut_off_when_time_is_over(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_all([INGEST, INGEST], tmp_path, 0.05) == 1
    assert "cut off" in (printed := capfd.readouterr().out)
    assert printed.endswith("no time was left\n")
