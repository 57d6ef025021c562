"""The text of a sample, its words, and runs of words as numbers, against slow loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapruner.corpora import store, texts
from datapruner.corpora.corpus import Corpus
from datapruner.progress import Silent

CHATS = [
    [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Hello!"),
        ("tool", "42"),
        ("assistant", "So."),
    ],
    [("user", "Say it's 'so'."), ("assistant", "So.\n")],
    [("user", "Hi"), ("assistant", "Bye \U0001f44b")],
]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("all", ["Hi\nHello!\n42\nSo.", "Say it's 'so'.\nSo.\n", "Hi\nBye \U0001f44b"]),
        ("prompt", ["Hi\n42", "Say it's 'so'.", "Hi"]),
        ("response", ["Hello!\nSo.", "So.\n", "Bye \U0001f44b"]),
    ],
)
def test_the_text_of_a_sample_leaves_its_system_prompt_out(
    part: texts.Part, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"messages": [{"role": role, "content": text} for role, text in chat]} for chat in CHATS]
    monkeypatch.setattr(texts, "CHUNK_SAMPLES", 2)
    with Corpus(store.ingest_to([rows[0], *rows], {}, tmp_path, Silent())) as corpus:
        ids = corpus.sample_index()["sample_id"].to_list()
        chunks = list(texts.sample_texts(corpus, part))
    assert [each for rows, _, _ in chunks for each in rows] == [0, 2, 3], "without the exact copy"
    assert [each for _, found, _ in chunks for each in found] == [ids[0], ids[2], ids[3]]
    assert [each for _, _, found in chunks for each in found] == expected


def test_words_are_in_lower_case_and_symbols_count_when_asked_for() -> None:
    assert texts.split(["It's 2+2, OK?"]).to_list() == [["it", "s", "2", "2", "ok"]]
    with_symbols = texts.split(["2+2, OK?"], symbols=True).to_list()
    assert with_symbols == [["2", "+", "2", ",", "ok", "?"]]


def test_a_character_is_a_word_where_no_spaces_are_written() -> None:
    assert texts.split(["你好 world", "カタ", "naïve déjà", "नमस्ते"]).to_list() == [
        ["你", "好", "world"],
        ["カ", "タ"],
        ["naïve", "déjà"],
        ["नमस्ते"],
    ]


def test_a_word_has_the_same_hash_in_any_company() -> None:
    alone = texts.hashed(texts.split(["green"])).values
    among = texts.hashed(texts.split(["", "a green b", "green"]))
    assert among[1][1] == among[2][0] == alone[0] == np.uint64(texts._hash("green"))


SMALL = st.lists(st.lists(st.sampled_from("abc"), max_size=6), max_size=6)


@given(SMALL, st.integers(1, 4), st.booleans())
def test_ngrams_are_the_runs_that_a_loop_finds(rows: list[list[str]], n: int, short: bool) -> None:
    words = texts.hashed(texts.split([" ".join(row) for row in rows]))
    found = texts.ngrams(words, n, short=short)
    expected = []
    for row in rows:
        runs = [tuple(row[at : at + n]) for at in range(len(row) - n + 1)]
        expected.append(runs or ([tuple(row)] if short and row else []))
    assert found.lengths.tolist() == [len(runs) for runs in expected]
    numbers = {}
    for run, value in zip((run for runs in expected for run in runs), found.values.tolist(), strict=True):
        assert numbers.setdefault(run, value) == value
    assert len(set(numbers.values())) == len(numbers)
