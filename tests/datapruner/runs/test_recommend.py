"""A corpus is looked at, and the recipe that is written for it runs and says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

import datapruner
from datapruner.errors import InputError, UsageError
from datapruner.runs import recipes, recommend
from datapruner.runs.corpus_facts import CorpusFacts
from scorers.methods import findings
from scorers.methods.findings import Change, Finding, Findings

SEA = "The sea is salty because rivers carry minerals from the rocks, year after year, into it."
ROWS: list[dict[str, Any]] = [
    {"instruction": "Why is the sea salty?", "output": SEA},
    {"instruction": "Why is the sea salty?", "output": SEA.replace("into it", "into it!")},
    {"instruction": "Why is the sea salty?", "output": SEA},
    {"instruction": "Draw the sea.", "output": "As an AI language model, I cannot draw."},
    {"instruction": "Add 2 and 2.", "output": "<think>\nTwo and two.\n</think>\n4"},
    {"instruction": "Назови цвет.", "output": "Синий, как небо летом в полдень."},
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 2},
    {
        "messages": [{"role": "user", "content": "Rain?"}, {"role": "assistant", "content": "None."}],
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": {}}}],
    },
    {"instruction": "Say nothing.", "output": ""},
]
FACTS = CorpusFacts(
    rows=9000,
    rejected=0,
    samples=9000,
    copies=0,
    near=0,
    defects={},
    prompts=9000,
    several_turns=0,
    reasoning=0,
    tools=0,
    foreign=0,
    words=(40, 90),
    tokens=500_000,
)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def settings(made: recommend.Recommendation) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(made.recipe)
    return found


def proven(*changes: tuple[str, float, str]) -> Findings:
    """Findings in which methods have these changes, by name, each in a setting of its own."""

    def change(difference: float, verdict: Any) -> Change:
        return Change("Alpaca", difference, difference - 0.01, difference + 0.01, verdict, 3, 900, 1e5)

    names = dict.fromkeys(name for name, _, _ in changes)
    methods = tuple(
        Finding(
            method=name,
            words="",
            options={},
            kept=(),
            tokens=None,
            length=None,
            changes=tuple(change(by, verdict) for other, by, verdict in changes if other == name),
            left_out=(),
        )
        for name in names
    )
    return Findings("a model", "cpu", (), (), methods)


def test_the_facts_are_what_the_rows_are(rows: Path, tmp_path: Path) -> None:
    found = datapruner.recommend(rows, home=tmp_path / "home").facts
    assert (found.rows, found.rejected, found.samples, found.copies, found.near) == (9, 1, 7, 1, 1)
    assert found.defects == {"refusals": 1}
    assert (found.several_turns, found.reasoning, found.tools, found.foreign) == (1, 1, 1, 1)
    assert found.prompts == 6
    responses = [row["output"] for row in (*ROWS[:2], *ROWS[3:6])] + ["b b", "None."]
    assert found.words[0] == sorted(len(text.split()) for text in responses)[3]
    assert found.tokens == (sum(len(text.encode()) for text in responses) - 1) // 4


def test_the_recipe_runs_as_it_is_and_says_why(rows: Path, tmp_path: Path, tiny_folder: Path) -> None:
    path = tmp_path / "recipe.yaml"
    made = datapruner.recommend(rows, out=path, home=tmp_path / "home")
    assert path.read_text(encoding="utf-8") == str(made)
    assert settings(made) == {
        "data": "rows.jsonl",
        "gate": {"gibberish": False, "endings": False},
        "dedup": {"threshold": 0.7},
        "methods": ["random"],
        "keep": "100%",
    }
    for said in ("9 rows: 7 different samples", "rules of text find refusals 1.", "Under 2,000 samples"):
        assert said in made.recipe
    with path.open("a", encoding="utf-8") as file:
        file.write(f"measuring: {{model: {json.dumps(str(tiny_folder))}}}\n")
    report = datapruner.run_recipe(path, device="cpu", home=tmp_path / "home").report
    assert report.kept == 5
    assert report.stages["gate"]["dropped"] == report.stages["dedup"]["near duplicates"] == 1


def test_every_recipe_that_is_written_can_be_read(rows: Path, tmp_path: Path) -> None:
    for at, given in enumerate(
        (
            {"data": "a: b #c.jsonl"},
            {"data": None, "keep_tokens": 5000},
            {"data": "a", "target": str(rows), "target_samples": 7},
            {"data": "a", "mapping": {"prompt": "q: #", "response": "a"}},
        )
    ):
        made = recommend.recommendation(FACTS, **given)
        path = tmp_path / f"{at}.yaml"
        made.write(path)
        read = recipes.read(path)
        assert read.data == given["data"]
        assert read.config.mapping == given.get("mapping", {})
        assert recommend.recommendation(FACTS, **given) == made


def test_rows_to_select_towards_are_selected_towards_with_the_whole_gate() -> None:
    found = settings(recommend.recommendation(FACTS, data="a", target="b", target_samples=3))
    assert (found["target"], found["methods"], found["keep"]) == ("b", ["rds"], "10%")
    assert found["gate"] == {}


def test_without_evidence_for_a_method_random_rows_are_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    worse = proven(("ifd", -0.02, "better"), ("ifd", 0.01, "no difference"), ("rho", -0.5, "better"))
    monkeypatch.setattr(recommend, "measured", lambda: worse)
    found = settings(recommend.recommendation(FACTS, data="a"))
    assert (found["methods"], found["keep"]) == (["random"], "25%")
    assert found["gate"] == {"gibberish": False, "endings": False}


def test_a_method_that_beat_random_rows_wherever_it_was_tried_is_recommended_with_its_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    better = proven(
        ("ifd", -0.02, "better"),
        ("ifd", -0.09, "better"),
        ("ppl", -0.03, "better"),
        ("target-cosine", -0.04, "better"),
    )
    monkeypatch.setattr(recommend, "measured", lambda: better)
    made = recommend.recommendation(FACTS, data="a")
    assert settings(made)["methods"] == ["ppl"]
    assert "Alpaca: -0.030 (-0.040 to -0.020) nats a token, better" in made.recipe.replace("\n# ", " ")
    assert settings(made)["gate"] == {}
    aimed = recommend.recommendation(FACTS, data="a", target="b")
    assert settings(aimed)["methods"] == ["target-cosine"]


def test_the_published_findings_can_be_chosen_by() -> None:
    assert recommend.measured is findings.measured
    assert settings(recommend.recommendation(FACTS, data="a"))["methods"]


def test_what_is_asked_for_and_what_was_found_changes_the_recipe() -> None:
    def made(**other: Any) -> str:
        facts = CorpusFacts(**{**FACTS.document(), "words": FACTS.words, **other})
        return recommend.recommendation(facts, data="a", target="b").recipe.replace("\n# ", " ")

    assert settings(recommend.recommendation(FACTS, data="a", keep_tokens=70))["keep"] == {"tokens": 70}
    assert "knows too little of the languages" in made(foreign=2000)
    assert "`grape` keeps the most probable" in made(prompts=3000)
    assert "Reasoning can be shortened" in made(reasoning=10)
    assert "grape" not in made()


def test_files_are_named_as_seen_from_the_recipe(tmp_path: Path) -> None:
    rows = tmp_path / "data" / "rows.jsonl"
    rows.parent.mkdir()
    rows.touch()
    assert recommend.named_beside(str(rows), tmp_path / "r.yaml") == "data/rows.jsonl"
    assert recommend.named_beside(str(rows), tmp_path / "other" / "r.yaml") == str(rows.resolve())
    assert recommend.named_beside("tatsu-lab/alpaca", tmp_path / "r.yaml") == "tatsu-lab/alpaca"
    assert recommend.named_beside("x" * 5000, tmp_path / "r.yaml") == "x" * 5000
    assert recommend.named_beside(None, tmp_path / "r.yaml") is None


def test_what_cannot_be_is_told_before_the_rows_are_looked_at(rows: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with pytest.raises(UsageError, match="a recipe has to name the rows to select towards"):
        datapruner.recommend(rows, target=ROWS, home=home)
    with pytest.raises(UsageError, match="does not exist"):
        datapruner.recommend(rows, out=tmp_path / "nowhere" / "r.yaml", home=home)
    with pytest.raises(UsageError, match="keep"):
        datapruner.recommend(rows, keep_tokens=0, home=home)
    with pytest.raises(InputError):
        datapruner.recommend(rows, target=tmp_path / "none.jsonl", home=home)
