"""What of a message may leave the machine."""

from __future__ import annotations

import pytest

from datapruner.errors import without_paths


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/srv/files/x.duckdb: gone", "x.duckdb: gone"),
        ('Could not write file "/srv/my files/x.duckdb": full', 'Could not write file "x.duckdb": full'),
        ("[Errno 2] No such file: '/srv/a b/c'", "[Errno 2] No such file: 'c'"),
        ("the model in ~/.cache/hub/model lacks weights", "the model in model lacks weights"),
        ("projects/prj_1/uploads/upl_1: gone from storage", "upl_1: gone from storage"),
        ("sqlite:////srv/home/catalog.sqlite", "sqlite:///catalog.sqlite"),
        ("file:///srv/home/x (/srv/home/y)", "file://x (y)"),
        ("cannot copy /a/b, /c/d/ and /e/f.", "cannot copy b, d and f."),
    ],
)
def test_paths_are_told_by_their_last_part(text: str, left: str) -> None:
    assert without_paths(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "rows.jsonl, line 3: broken",
        "part/rows.jsonl, and/or text/event-stream, 3/4, a // b",
        "the block has no </think>; /docs lists the paths",
        "https://host/a/b?c=/d and s3://bucket/prefix/x.parquet",
        'column "a/b" and column "/c"',
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "",
    ],
)
def test_what_is_no_path_of_ours_stays(text: str) -> None:
    assert without_paths(text) == text
