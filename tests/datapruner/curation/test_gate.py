"""What the gate drops, and above all what it lets through."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import datapruner
from datapruner.corpora import store, texts
from datapruner.corpora.corpus import Corpus
from datapruner.curation import gate
from datapruner.curation.loops import repeats
from datapruner.errors import UsageError
from datapruner.progress import Silent
from datapruner.request.parts import Gate

SENTENCES = (
    "The river rises in the hills north of the town. It is joined by two smaller streams before it reaches "
    "the plain. Farmers have used its water for centuries, and the old mills still stand along the banks. In "
    "spring the meadows flood, which keeps the soil rich. "
)
LONG = SENTENCES + (
    "The first bridge was built of wood and burned down within ten years. A second one, of stone, lasted "
    "until the great flood. Today a steel bridge carries the road, and a narrow footbridge serves the "
    "walkers. Every summer the villages hold a race from the source to the sea. The winner receives a silver "
    "cup, and the last one a wooden spoon. Nobody remembers who began it, but all agree that it must go on. "
    "Visitors come from far away to see the boats, and the inns are full for a week. The brass band plays on "
    "the square until late at night. When the race is over people go"
)
SPANISH = (
    "El río nace en las montañas del norte y cruza la ciudad antes de llegar al mar. Los vecinos usan su "
    "agua para los campos, pero también para los molinos que están entre las dos orillas. Es más "
    "ancho en primavera."
)
RUSSIAN = (
    "Река берёт начало в горах на севере и течёт через город к морю. Жители берут из неё воду для полей."
)
CHINESE = "这条河发源于北方的山区，穿过城市流入大海。居民用河水灌溉农田，古老的磨坊仍然矗立在两岸。"
LOOP = "We have to check the value of the second term again before we can go on."
REFUSAL = "I'm sorry, but as an AI language model, I cannot provide you with that."
TABLE = "| name | age | city |\n|------|-----|------|\n" + "".join(
    f"| person {n} | {n + 20} | town {n} |\n" for n in range(40)
)
POEM = (
    "Row, row, row your boat,\nGently down the stream,\nMerrily, merrily, merrily,\nLife is but a dream\n\n"
    * 2
)
CODE = "```python\nfor i in range(3):\n    print(i)\n" + "    print(i)\n" * 30 + "```"


def row(prompt: str, response: str) -> dict[str, Any]:
    return {"instruction": prompt, "output": response}


def talk(*contents: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[at % 2], "content": text} for at, text in enumerate(contents)]}


def reasons(rows: Sequence[dict[str, Any]], home: Path, **settings: Any) -> list[str | None]:
    found: list[str | None] = datapruner.gate(rows, home=home, **settings).table["reason"].to_list()
    return found


DEFECTS = {
    "refusal": (row("Paint me a picture of a horse.", REFUSAL), "a refusal and nothing else"),
    "refusal with a typographic apostrophe": (
        row("Tell me.", "I’m sorry, but I can’t assist with that."),
        "a refusal and nothing else",
    ),
    "loop": (row("Solve it.", "Let us begin. " + (LOOP + " ") * 12), "a loop: it says one passage 12 times"),
    "loop of changing words": (
        row("Solve it.", " ".join(f"{SENTENCES}That is attempt number {n}." for n in range(9))),
        "a loop: it says ",
    ),
    "word": (
        row("Tell me about the river.", SENTENCES + "The mills grind the"),
        "cut off in the middle of a",
    ),
    "comma": (row("Tell me about the river.", SENTENCES + "After the flood,"), "cut off in the middle of a"),
    "length limit": (
        row("Tell me about the river.", LONG),
        "cut off in the middle of a sentence",
    ),
    "fence": (
        row("Write it.", "Here:\n\n```python\ndef f(a, b):\n    return g(a,"),
        "cut off, a code fence is never",
    ),
    "open reasoning": (row("Add.", "<think>\nFirst take two and then"), "cut off, its reasoning is never"),
    "script": (
        row("Describe the river in our town, please.", RUSSIAN),
        "the wrong language: the response is in C",
    ),
    "language": (
        row("Describe the river in our town, please.", SPANISH),
        "the wrong language: the response is S",
    ),
    "prompt of another script": (
        row("Расскажи подробно о реке в нашем городе.", SENTENCES),
        "the wrong language: the response is in Latin letters",
    ),
}

SOUND = {
    "short": row("Capital of France?", "Paris"),
    "number": row("6 * 7?", "42"),
    "address": row("Where is it?", "You will find all of the documents on https://example.com/docs/the"),
    "list": row(
        "Name fruits.", "- apples\n- pears\n- plums and\n- a basket of the finest grapes that you can find"
    ),
    "title": row("Suggest a title.", "The Long Way Home: A Story of Rivers, Mills and the People Between"),
    "poem": row("Write a verse.", POEM),
    "verse that ends in a comma": row("Write a line.", "A whisper of spring in the winter's chill night,"),
    "letter": row("Write it.", SENTENCES + "I look forward to hearing from you. With best regards,"),
    "name of one letter": row("Which one?", SENTENCES + "All who drink of it are immune to Hepatitis A"),
    "option": row("a or b?", SENTENCES + "From this it follows that the right answer is a"),
    "tag": row("How is reasoning closed?", "With a tag of its own, which is </think>"),
    "code": row("Write code.", CODE),
    "code that its prompt opened": row("```python", "def f():\n    return {1: 2}\n```"),
    "table": row("Make a table.", TABLE),
    "repetition that was asked for": row("Repeat this sentence ten times.", (LOOP + " ") * 10),
    "zeros": row("An array of zeros.", "arr = [" + "0, " * 99 + "0]"),
    "mathematics": row(
        "Solve.", r"We have \(x^2 = 4\), so \(x = 2\) or \(x = -2\), and with $y = x$ it follows that $y"
    ),
    "Chinese": row("介绍一下这条河。", CHINESE.rstrip("。")),
    "Arabic": row("صف النهر", "ينبع النهر من الجبال في الشمال ويمر عبر المدينة حتى البحر"),
    "Hebrew": row("ספר לי על הנהר", "הנהר מתחיל בהרים בצפון ועובר דרך העיר עד הים"),
    "emoji": row("React!", "🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉"),
    "translation": row("Translate into Russian: the river rises in the hills.", RUSSIAN),
    "translation in its own words": row("Traduce: the river rises in the hills of the north.", SPANISH),
    "language that is named": row("Describe our river as a Spanish teacher would.", SPANISH),
    "code for a prompt of another script": row("Напиши функцию, которая складывает два числа.", CODE),
    "quoted script": row("What does 河 mean, and how is it used in a text?", CHINESE),
    "about refusals": row(
        "Why do models refuse?",
        "As an AI language model, I cannot see pictures, but I can explain how refusals come about. "
        + SENTENCES,
    ),
    "refusal among answers": talk("Draw it.", REFUSAL, "Describe it then.", SENTENCES),
    "cut that was continued": talk(
        "Tell.", SENTENCES + "The mills grind the", "continue", "grain of the town."
    ),
    "said again in another turn": talk("Say it.", LOOP, "And now?", LOOP, "And again?", LOOP),
    "reasoning": row("Add 2 and 2.", "<think>\nTwo and two, that makes the\n</think>\n4"),
    "empty system turn": {
        "messages": [
            {"role": "system", "content": ""},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hello there"},
        ]
    },
    "tool call": {
        "messages": [
            {"role": "user", "content": "What is the weather in Rome?"},
            {
                "role": "assistant",
                "content": SENTENCES + "I will now ask the",
                "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": "{}"}}],
            },
        ]
    },
    "what there is no tool for": {
        "messages": [
            {"role": "user", "content": "Order a pizza."},
            {"role": "assistant", "content": REFUSAL},
        ],
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": {}}}],
    },
}


def test_each_defect_is_dropped_for_the_reason_that_names_it(tmp_path: Path) -> None:
    found = reasons([each for each, _ in DEFECTS.values()], tmp_path)
    for (name, (_, reason)), said in zip(DEFECTS.items(), found, strict=True):
        assert said is not None, name
        assert said.startswith(f"defect: {reason}"), name


def test_what_only_looks_like_a_defect_stays(tmp_path: Path) -> None:
    found = reasons(list(SOUND.values()), tmp_path)
    assert {name: said for name, said in zip(SOUND, found, strict=True) if said is not None} == {}


@pytest.mark.parametrize(
    ("rule", "defect"),
    [("refusals", "refusal"), ("loops", "loop"), ("cut_off", "word"), ("languages", "script")],
)
def test_a_rule_can_be_left_out(rule: str, defect: str, tmp_path: Path) -> None:
    bad = DEFECTS[defect][0]
    assert reasons([bad], tmp_path, **{rule: False}) == [None]
    others = {name: False for name in ("refusals", "loops", "cut_off", "languages") if name != rule}
    assert reasons([bad], tmp_path, **others) != [None]


def test_every_row_is_accounted_for_and_a_copy_fares_as_its_first(tmp_path: Path) -> None:
    bad = DEFECTS["refusal"][0]
    result = datapruner.gate([bad, SOUND["short"], bad, {"instruction": "x", "output": ""}], home=tmp_path)
    assert result.counts == {"ingested": 4, "kept": 1, "dropped": 2, "rejected": 1}
    assert result.notes == {"refusals": 1, "loops": 0, "cut off": 0, "languages": 0}


def test_a_share_out_of_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="loop_share: must be at most 1"):
        datapruner.gate([SOUND["short"]], loop_share=1.5, home=tmp_path)


# Loops, by the slow way


def slow_repeats(words: Sequence[str], n: int) -> tuple[float, int, float]:
    """The share of runs of n words that stand before; the most copies in a row; the share of those."""
    runs = [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]
    again = [run in runs[:at] for at, run in enumerate(runs)]
    most, share = 1, 0.0
    for begin in range(len(words)):
        for period in range(1, (len(words) - begin) // 2 + 1):
            at = begin + period
            while at < len(words) and words[at] == words[at - period]:
                at += 1
            matched, copies = at - begin - period, (at - begin - period) // period + 1
            known_before = any(words[begin : begin + n] == words[at2 : at2 + n] for at2 in range(begin))
            if matched >= n and not known_before:
                most = max(most, copies)
                share = max(share, (at - begin) / len(words) if copies >= 4 else 0.0)
    return sum(again) / max(len(runs), 1), most, share


def test_repeats_are_those_that_the_slow_way_finds() -> None:
    draw = random.Random(4)
    some = [f"w{n}" for n in range(9)]
    said = [
        [draw.choice(some) for _ in range(60)],
        [f"u{n}" for n in range(10)] + ["a", "b", "c", "d", "e"] * 12,
        ["x"] * 50,
        [f"u{n}" for n in range(30)] * 3 + ["end"],
        ["too", "few"],
        [],
    ]
    grams = texts.ngrams(texts.hashed(texts.split([" ".join(words) for words in said])), 16)
    share, copies, copied = repeats(grams)
    for at, words in enumerate(said):
        expected = slow_repeats(words, 16)
        assert (share[at], copies[at], copied[at]) == pytest.approx(expected), words[:12]


# What was measured


@pytest.fixture
def measured(tmp_path: Path) -> Corpus:
    rows = [
        row("a", "It ends in the middle of"),
        row("b", "It ends as it should."),
        row("c", "One line\nanother line\na third line\na fourth line"),
        row("d", "Fewer words"),
        row("e", "qx zvw kjh"),
        talk("f", "Stops in", "go on", "and ends here."),
        row("g", "One more"),
        row("h", "And the last"),
    ]
    return Corpus(store.ingest_to(rows, {}, tmp_path, Silent()))


def judged(
    corpus: Corpus, end: Sequence[float], tokens: Sequence[int], ppl: Sequence[float], **given: Any
) -> Any:
    ends = (np.array(end), np.array(tokens))
    return gate.of_measured(corpus, list(range(len(end))), pl.Series(ppl), ends, Gate(**given))


def test_an_end_that_the_model_does_not_expect_is_a_cut_where_the_text_is_open(measured: Corpus) -> None:
    nll, tokens, ppl = [20.0, 20.0, 20.0, 1.0, 1.0, np.nan, 2.0, 3.0], [16] * 8, [9.0] * 8
    with measured as corpus:
        assert judged(corpus, nll, tokens, ppl) == {
            0: f'defect: {gate.UNEXPECTED}: "…It ends in the middle of"'
        }
        assert judged(corpus, nll, [15] * 8, ppl) == {}
        assert judged(corpus, nll, tokens, ppl, ending_nll=21) == {}
        assert judged(corpus, nll, tokens, ppl, endings=False) == {}
        assert judged(corpus, [*nll[:3], 17.0, *nll[4:]], tokens, ppl, ending_nll=18) == {}
        assert judged(corpus, [np.nan] * 8, tokens, ppl) == {}


def test_gibberish_needs_tokens_enough_to_be_told(measured: Corpus) -> None:
    ends, ppl = [1.0] * 7, [9.0, 9.0, 9.0, 999.0, 1234.6, 249.0, 250.0]
    with measured as corpus:
        found = judged(corpus, ends, [99, 99, 99, 31, 32, 99, 99], ppl)
        off = judged(corpus, ends, [99] * 7, ppl, gibberish=False)
    assert found == {
        4: "defect: gibberish: its perplexity is 1,235",
        6: "defect: gibberish: its perplexity is 250",
    }
    assert off == {}
