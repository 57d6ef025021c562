"""Prompts: versioned, complete, and closed to what they carry."""

from __future__ import annotations

import hashlib
from importlib.resources import files

import pytest

from datapruner.rewriting import prompts
from datapruner.rewriting.acceptance import HEADINGS, LEVELS

PUBLISHED = {
    "asap-compress.v1.md": "a28c995542063146",
    "asap-direct.v1.md": "80ab2ec6f33969cd",
    "dap-judge.v1.md": "225cbcd612039d60",
    "dap-rewrite.v1.md": "06a16aac5aacf494",
    "dap-single.v1.md": "3fceb506160e4045",
    "layout-easy.v1.md": "b7cff449a7350ae4",
    "layout-hard.v1.md": "43ca6b5820d32ee5",
    "layout-medium.v1.md": "a78f7fdaa08f61f2",
}


def test_a_published_version_never_changes() -> None:
    found = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        for file in files(prompts).iterdir()
        if file.name.endswith(".md")
    }
    assert found == PUBLISHED, "write another version beside the published one: answers are stored by version"


@pytest.mark.parametrize("level", LEVELS)
def test_each_layout_has_the_headings_of_its_level_in_order(level: str) -> None:
    lines = prompts.text(f"layout-{level}@1").splitlines()
    found = tuple(line.lstrip("# ") for line in lines if line.startswith("#"))
    assert found == HEADINGS[level]  # type: ignore[index]


def test_every_place_in_a_prompt_is_filled() -> None:
    with pytest.raises(KeyError, match="trace"):
        prompts.prompt("dap-judge@1").messages(problem="p")


def test_a_place_inside_a_row_stays_what_it_is() -> None:
    messages = prompts.prompt("dap-judge@1").messages(problem="$trace costs $5", trace="t")
    assert messages[1] == {"role": "user", "content": "$trace costs $5\n\nt"}


def test_a_longer_conversation_is_shown_with_its_roles() -> None:
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    assert "\nHi\n" in prompts.problem(turns[1:])
    assert "system: Be kind.\n\nuser: Hi" in prompts.problem(turns)
