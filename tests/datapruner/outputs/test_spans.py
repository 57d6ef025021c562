"""Masks carried from one tokenizer's tokens to another's, against a reference that goes by characters."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datapruner.outputs.spans import Spans, Written, carried, carried_weights
from scorers.conversations.chat import ChatRenderer, Encoded
from scorers.conversations.conversation import Conversation, Turn
from tests import chat_templates as ct

KINDS = {
    "byte-level": ct.byte_level,
    "sentencepiece": ct.sentencepiece_like,
    "wordpiece": ct.word_piece,
    "unigram": ct.unigram,
}
TEMPLATES = {name: ct.ALL[name] for name in ("chatml", "llama3", "mistral", "end-at-last", "none")}
RENDERERS = {
    (kind, name): ChatRenderer(make(template))
    for (kind, make), (name, template) in product(KINDS.items(), TEMPLATES.items())
}

Token = tuple[int, int, int, bool]


def chat(*contents: str) -> Conversation:
    return Conversation([Turn(("user", "assistant")[at % 2], text) for at, text in enumerate(contents)])


def encoded(renderer: ChatRenderer, conversation: Conversation) -> Encoded | None:
    (found,) = renderer.render([conversation])
    return found if isinstance(found, Encoded) else None


def spans(tokens: Encoded) -> Spans:
    return Spans(tokens.turn, tokens.char_start, tokens.char_end, tokens.is_end)


def of(*tokens: Token) -> Spans:
    turn, start, end, is_end = (np.array(column) for column in zip(*tokens, strict=True))
    return Spans(turn, start, end, is_end)


def bools(*values: int) -> NDArray[np.bool_]:
    return np.array(values, dtype=np.bool_)


def tokens_of(found: Spans) -> list[Token]:
    columns = (found.turn, found.start, found.end, found.is_end)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def slowly(read: list[Token], kept: list[bool], wanted: list[Token], any_character: bool) -> list[bool]:
    """`carried`, a token and a character at a time."""
    some = any if any_character else all
    fates: list[bool] = []
    for token in wanted:
        turn, start, end, is_end = token
        theirs = [(each, keeps) for each, keeps in zip(read, kept, strict=True) if each[0] == turn]
        ours = [each for each in wanted if each[0] == turn]
        if [each for each, _ in theirs] == ours:
            place = wanted.index(ours[0])
            fates.append(theirs[len(fates) - place][1])
            continue
        about: dict[int, list[bool]] = {}
        for (_, first, last, _), keeps in theirs:
            for character in range(first, last):
                about.setdefault(character, []).append(keeps)
        inside = [some(about[at]) for at in range(start, end) if at in about]
        textless = [keeps for (_, a, b, closes), keeps in theirs if a == b == start and closes == is_end]
        before = [at for at in about if at < start]
        if inside:
            fates.append(some(inside))
        elif textless:
            fates.append(some(textless))
        elif about:
            fates.append(some(about[max(before) if before else min(about)]))
        else:
            fates.append(some(keeps for _, keeps in theirs) if theirs else False)
    return fates


PIECES = st.one_of(
    st.sampled_from(
        ["the quick", " brown", " ", "\n\n", "dog", "🙂", "日本", "é", "12", "<|im_end|>", "fox."]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
)
CONTENTS = st.lists(PIECES, min_size=1, max_size=6).map("".join)


@settings(max_examples=80)
@given(
    pair=st.tuples(*[st.sampled_from(sorted(RENDERERS))] * 2),
    contents=st.lists(CONTENTS, min_size=2, max_size=4).filter(lambda found: len(found) % 2 == 0),
    any_character=st.booleans(),
    seed=st.integers(0, 99),
)
def test_masks_are_carried_as_a_character_at_a_time(
    pair: tuple[Any, Any], contents: list[str], any_character: bool, seed: int
) -> None:
    read, wanted = (encoded(RENDERERS[each], chat(*contents)) for each in pair)
    if read is None or wanted is None:  # nothing to train on: every answer empty, and no end token
        return
    kept = np.random.default_rng(seed).random(len(read.position)) < 0.6
    found, on_border = carried(spans(read), kept, spans(wanted), any_character=any_character)
    other, _ = carried(spans(read), kept, spans(wanted), any_character=not any_character)
    expected = slowly(tokens_of(spans(read)), kept.tolist(), tokens_of(spans(wanted)), any_character)
    assert found.tolist() == expected
    assert on_border <= int((found ^ other).sum())
    all_of, none_of = np.ones_like(kept), np.zeros_like(kept)
    # Of a turn without a token for the one, as an empty answer is without its end, nothing is known.
    known = np.isin(spans(wanted).turn, spans(read).turn)
    assert np.array_equal(carried(spans(read), all_of, spans(wanted))[0], known)
    assert not carried(spans(read), none_of, spans(wanted), any_character=True)[0].any()


@settings(max_examples=60)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    contents=st.lists(CONTENTS, min_size=2, max_size=4).filter(lambda found: len(found) % 2 == 0),
    limit=st.integers(2, 60),
    any_character=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_same_tokenizer_gives_the_same_mask_however_short_the_proxy_s_limit(
    kind: str, contents: list[str], limit: int, any_character: bool, seed: int
) -> None:
    tokenizer = KINDS[kind](ct.CHATML)
    wanted = encoded(ChatRenderer(tokenizer), chat(*contents))
    read = encoded(ChatRenderer(tokenizer, max_length=limit), chat(*contents))
    assert wanted is not None
    if read is None:
        return
    kept = np.random.default_rng(seed).random(len(read.position)) < 0.5
    cut = read.n_tokens_full > len(read.input_ids)
    found, _ = carried(spans(read), kept, spans(wanted), any_character=any_character, cut=cut)
    assert np.array_equal(found, kept)
    assert np.array_equal(wanted.position[: len(found)], read.position)


def test_a_token_is_trained_on_when_all_of_its_characters_are_or_by_option_one() -> None:
    read, wanted = of((1, 0, 4, False), (1, 4, 6, False)), of((1, 0, 3, False), (1, 3, 6, False))
    for kept, everything, something in (((1, 0), [1, 0], [1, 1]), ((0, 1), [0, 0], [0, 1])):
        mask, on_border = carried(read, bools(*kept), wanted)
        assert (mask.tolist(), on_border) == (everything, 1)
        mask, on_border = carried(read, bools(*kept), wanted, any_character=True)
        assert (mask.tolist(), on_border) == (something, 1)


def test_parts_of_a_character_are_carried_one_by_one_only_where_both_cut_alike() -> None:
    read = of((1, 0, 1, False), (1, 1, 2, False), (1, 1, 2, False), (1, 2, 2, True))
    kept = bools(1, 1, 0, 1)
    assert carried(read, kept, read)[0].tolist() == kept.tolist()
    whole = of((1, 0, 2, False), (1, 2, 2, True))
    assert carried(read, kept, whole)[0].tolist() == [0, 1]
    assert carried(read, kept, whole, any_character=True)[0].tolist() == [1, 1]


@pytest.mark.parametrize("end_kept", [False, True])
def test_an_end_token_is_trained_on_when_the_proxy_s_was_kept(end_kept: bool) -> None:
    read = of((1, 0, 3, False), (1, 3, 3, True))
    wanted = of((1, 0, 1, False), (1, 1, 3, False), (1, 3, 3, True))
    assert carried(read, bools(1, end_kept), wanted)[0].tolist() == [True, True, end_kept]


def test_an_end_token_that_the_proxy_has_none_of_goes_with_the_last_words() -> None:
    read = of((1, 0, 2, False), (1, 2, 3, False))
    wanted = of((1, 0, 3, False), (1, 3, 3, True))
    assert carried(read, bools(1, 0), wanted)[0].tolist() == [False, False]
    assert carried(read, bools(0, 1), wanted)[0].tolist() == [False, True]


def test_characters_that_the_proxy_s_template_trimmed_have_no_say() -> None:
    read = of((1, 2, 5, False), (1, 7, 7, True))
    wanted = of((1, 0, 1, False), (1, 1, 5, False), (1, 5, 7, False), (1, 7, 7, True))
    assert carried(read, bools(1, 0), wanted) == (pytest.approx([True, True, True, False]), 0)


def test_a_turn_that_the_proxy_did_not_train_on_stays_untrained() -> None:
    read, wanted = of((3, 0, 3, False)), of((1, 0, 3, False), (3, 0, 1, False), (3, 1, 3, False))
    assert carried(read, bools(1), wanted)[0].tolist() == [False, True, True]


def test_what_the_proxy_s_limit_cut_off_is_cut_off_here_too() -> None:
    read = of((1, 0, 3, False), (1, 3, 5, False))
    wanted = of((1, 0, 2, False), (1, 2, 5, False), (1, 5, 8, False), (1, 8, 8, True), (3, 0, 2, False))
    assert carried(read, bools(1, 1), wanted, cut=True)[0].tolist() == [True, True]


CALL = "the fox jumps over 12 lazy dogs"


def written(tokenizer: Any, text: str) -> Written:
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return Written(text, np.array([end for _, end in encoding["offset_mapping"]]))


@settings(max_examples=30)
@given(kept=st.lists(st.booleans(), min_size=40, max_size=40), any_character=st.booleans())
def test_text_that_is_in_no_content_is_carried_by_its_letters(kept: list[bool], any_character: bool) -> None:
    first, second = (written(KINDS[kind](None), CALL) for kind in ("byte-level", "sentencepiece"))
    n, m = len(first.ends), len(second.ends)
    read = Spans(*(np.array([value] * n) for value in (1, 5, 5)), np.zeros(n, np.bool_))
    wanted = Spans(*(np.array([value] * m) for value in (1, 5, 5)), np.zeros(m, np.bool_))
    mask = np.array(kept[:n])
    write = (lambda at: first, lambda at: second)
    found, on_border = carried(read, mask, wanted, any_character=any_character, write=write)
    letters = [False] * len(CALL)
    for start, end, keeps in zip(first.starts, first.ends, mask, strict=True):
        letters[start:end] = [bool(keeps)] * (end - start)
    tokens = [letters[start:end] for start, end in zip(second.starts, second.ends, strict=True)]
    assert found.tolist() == [(any if any_character else all)(each) for each in tokens]
    assert on_border == sum(any(each) and not all(each) for each in tokens)
    as_one, _ = carried(read, mask, wanted, any_character=any_character)
    assert set(as_one.tolist()) == {bool(mask.any() if any_character else mask.all())}


def test_letters_that_only_one_template_writes_around_a_call_are_passed_over() -> None:
    read = of((1, 0, 0, False), (1, 0, 0, False), (1, 0, 0, False), (1, 0, 0, True))
    wanted = read.part(slice(3))
    first = Written('<call>{"a": 1}', np.array([6, 11, 14]))
    second = Written('ZZ{"a": 1}', np.array([2, 7, 10]))
    for kept, expected in (((1, 0, 1, 1), [0, 0, 1]), ((0, 1, 0, 1), [0, 1, 0])):
        found, _ = carried(read, bools(*kept), wanted, write=(lambda at: first, lambda at: second))
        assert found.tolist() == expected


# Weights


def weights_slowly(
    read: list[Token], kept: list[bool], weights: list[float], wanted: list[Token], at: int
) -> float:
    """Weight of one wanted token, a character at a time."""
    turn, start, end, is_end = wanted[at]
    theirs = [
        (each, weight)
        for each, keeps, weight in zip(read, kept, weights, strict=True)
        if each[0] == turn and keeps
    ]
    means = []
    for character in range(start, end):
        here = [weight for (_, first, last, _), weight in theirs if first <= character < last]
        if here:
            means.append(sum(here) / len(here))
    textless = [weight for (_, a, b, closes), weight in theirs if a == b == start and closes == is_end]
    found = means or textless or [weight for _, weight in theirs]
    return sum(found) / len(found)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_weights_are_means_over_characters(data: st.DataObject) -> None:
    conversation = chat("a question", data.draw(st.text("ab é😀\n", min_size=1, max_size=30)))
    first, second = (RENDERERS[data.draw(st.sampled_from(sorted(RENDERERS)))] for _ in range(2))
    one, other = encoded(first, conversation), encoded(second, conversation)
    if one is None or other is None:
        return
    read, wanted = spans(one), spans(other)
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    kept, weights = random.random(len(read)) < 0.7, random.random(len(read)).astype(np.float32)
    trained, _ = carried(read, kept, wanted)
    found = carried_weights(read, kept, weights, wanted)
    same = len(read) == len(wanted) and wanted.begins_with(read)
    for at in np.flatnonzero(trained).tolist():
        expected = (
            float(weights[at])
            if same
            else weights_slowly(tokens_of(read), kept.tolist(), weights.tolist(), tokens_of(wanted), at)
        )
        assert found[at] == pytest.approx(expected, rel=1e-4)


def test_one_token_for_two_has_the_mean_by_their_lengths() -> None:
    read, wanted = of((1, 0, 1, False), (1, 1, 4, False)), of((1, 0, 4, False))
    weights = np.array([0.8, 0.4], np.float32)
    assert carried_weights(read, bools(1, 1), weights, wanted) == pytest.approx([0.5])
    assert carried_weights(read, bools(0, 1), weights, wanted) == pytest.approx([0.4])
