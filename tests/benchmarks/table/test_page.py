"""The table as Markdown: a row a method, a dash where nothing is known, what was left out beneath."""

from __future__ import annotations

from dataclasses import replace

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


def test_the_summary_names_what_keeps_least_and_most_and_what_beat_random_rows() -> None:
    one, none = FOUND.methods
    keeps = {"a": (0, 40), "b": (306, 10), "c": (100, 20), "random": (1, 39), "all": (360, 40)}
    made = [
        replace(
            one,
            method=name,
            kept=(Kept("planted", "sound", sound, 360), Kept("planted", "loops", loops, 40)),
            changes=() if name != "b" else one.changes,
        )
        for name, (sound, loops) in keeps.items()
    ]
    sets = (replace(FOUND.corpora[0], rows=400),)
    lines = list(
        page.summary(replace(FOUND, corpora=sets, methods=(*made, none, replace(made[1], words="odd"))))
    )
    assert lines[2] == "| sound | `a` 0%, `c` 28%, `b` 85% | `b` 85%, `c` 28%, `a` 0% |"
    assert lines[3] == "| loops | `b` 25%, `c` 50%, `a` 100% | `a` 100%, `c` 50%, `b` 25% |"
    assert lines[4] == "| towards, of 1 tried against random rows | worse: none shown | better: `b` |"


def test_the_table_is_put_between_its_marks_again_and_again() -> None:
    before = f"a\n{page.MARKS[0]}b\n{page.MARKS[1]}c\n"
    once = page.put(before, FOUND)
    assert once.startswith(f"a\n{page.MARKS[0]}")
    assert once.endswith(f"{page.MARKS[1]}c\n")
    assert page.put(once, FOUND) == once
    assert "Alpaca with defects: 600 rows with 30,000 response tokens" in once
