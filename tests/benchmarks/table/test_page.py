"""The table as Markdown: a row a method, a dash where nothing is known, what was left out beneath."""

from __future__ import annotations

from benchmarks.table import page
from scorers.methods.findings import Change, Corpus, Finding, Findings, Kept, Length, Setting

FOUND = Findings(
    "a model",
    "cpu",
    (Corpus("planted", "Alpaca with defects", 600, 30_000, ("sound", "loops")),),
    (Setting("towards", 0.25, 512, 8, 3, 0.0015, ("gsm8k",), 32, 900),),
    (
        Finding(
            "ppl",
            "",
            {},
            (Kept("planted", "sound", 180, 360), Kept("planted", "loops", 30, 40)),
            0.625,
            Length("ppl", 0.125, 360),
            (Change("towards", -0.25, -0.5, -0.125, "better", 3, 32, 500),),
            (),
        ),
        Finding("judge", "", {}, (), None, None, (), ("planted: it has no teacher",)),
    ),
)


def test_a_method_is_a_row_and_what_is_not_known_a_dash() -> None:
    head, _, first, second, *rest = page.markdown(FOUND).splitlines()
    assert head == "| method | sound (360) | loops (40) | tokens | length | towards: change, nats a token |"
    assert first == "| `ppl` | 50% | 75% | 62% | +0.12 | **better** -0.250 (-0.500 to -0.125) |"
    assert second == "| `judge` | – | – | – | – | – |"
    assert rest[-1] == "- `judge`: planted: it has no teacher"


def test_the_table_is_put_between_its_marks_again_and_again() -> None:
    before = f"a\n{page.MARKS[0]}b\n{page.MARKS[1]}c\n"
    once = page.put(before, FOUND)
    assert once.startswith(f"a\n{page.MARKS[0]}")
    assert once.endswith(f"{page.MARKS[1]}c\n")
    assert page.put(once, FOUND) == once
    assert "Alpaca with defects: 600 rows with 30,000 response tokens" in once
