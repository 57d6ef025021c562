"""Rubrics: versioned, and those that the method offers."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import get_args, get_type_hints

from datapruner.judging import rubrics
from scorers.methods.judge import Judge, JudgeOptions
from scorers.signals.columns import corpus_settings

PUBLISHED = {
    "alpagasus.v1.md": "f9f0dc02e8f43eb6",
    "deita-complexity.v1.md": "d5e0eff72e59f659",
    "deita-quality.v1.md": "8fb303dbe6a1bfa6",
}


def test_a_published_version_never_changes() -> None:
    found = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        for file in files(rubrics).iterdir()
        if file.name.endswith(".md")
    }
    assert found == PUBLISHED, "write another version beside the published one: answers are stored by version"


def test_the_method_offers_the_rubrics_that_there_are_and_reads_all_their_scores() -> None:
    assert set(get_args(get_type_hints(JudgeOptions)["rubric"])) == set(rubrics.RUBRICS)
    for name, scales in rubrics.RUBRICS.items():
        settings = [corpus_settings(need) for need in Judge().needs(JudgeOptions(rubric=name))]  # type: ignore[arg-type]
        assert {each[1]["score"] for each in settings if each} == set(scales)


def test_the_lineage_names_each_prompt_with_the_hash_of_its_text() -> None:
    about = rubrics.document("deita")
    assert {each["prompt"] for each in about.values()} == {"deita-complexity@1", "deita-quality@1"}
    prompt = rubrics.RUBRICS["deita"]["quality"].text()
    whole = f"{prompt.system}\n---\n{prompt.user}"
    assert about["quality"]["sha256"] == hashlib.sha256(whole.encode()).hexdigest()
