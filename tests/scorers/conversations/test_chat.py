"""Token ids and character spans of responses, against slow obvious references."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, CanineTokenizer

from scorers.conversations.chat import ChatRenderer, Encoded, RenderError
from scorers.conversations.conversation import Conversation
from scorers.models.sources import ModelSourceError
from tests import chat_templates as ct
from tests.chats import of_messages
from tests.waiting import PATIENCE

DATA = Path(__file__).parents[3] / ".." / "shared" / "data"
SMOLLM2_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def chat(*contents: str, system: str | None = None) -> Conversation:
    """User and assistant in turn."""
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages += [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]
    return of_messages(messages)


def encode(tokenizer: Any, conversation: Conversation, **options: Any) -> Encoded:
    (encoded,) = ChatRenderer(tokenizer, **options).render([conversation])
    assert isinstance(encoded, Encoded), encoded
    return encoded


def refusal(tokenizer: Any, conversation: Conversation, **options: Any) -> str:
    (result,) = ChatRenderer(tokenizer, **options).render([conversation])
    assert isinstance(result, RenderError), result
    return result.reason


def written(tokenizer: Any, encoded: Encoded, turn: int) -> str:
    """What the response tokens of a turn decode to."""
    return tokenizer.decode(encoded.input_ids[encoded.position[encoded.turn == turn]])


def assert_covers(encoded: Encoded, conversation: Conversation) -> None:
    """Every character of every trained content that the template writes lies in a token's span."""
    for index in np.unique(encoded.turn):
        content = conversation.turns[index].content
        covered = np.zeros(len(content), dtype=bool)
        for start, end in zip(
            encoded.char_start[encoded.turn == index], encoded.char_end[encoded.turn == index], strict=True
        ):
            assert 0 <= start <= end <= len(content)
            covered[start:end] = True
        missed = "".join(character for character, seen in zip(content, covered, strict=True) if not seen)
        assert not missed.strip(), f"{missed!r} of {content!r} lies in no token"


def smollm2_by_hand(tokenizer: Any, conversation: Conversation) -> list[tuple[int, int, int, int]]:
    """(position, turn, char_start, char_end) of response tokens, character by character."""
    turns = [(turn.role, turn.content, index) for index, turn in enumerate(conversation.turns)]
    if turns[0][0] != "system":
        turns.insert(0, ("system", SMOLLM2_SYSTEM, -1))
    text: str = ""
    owner: list[tuple[int, int, str] | None] = []
    for role, content, index in turns:
        parts = [(f"<|im_start|>{role}\n", ""), (content, "in"), ("<|im_end|>", "end"), ("\n", "")]
        for part, place in parts:
            text += part
            for at in range(len(part)):
                trained = role == "assistant" and place
                owner.append((index, at if place == "in" else len(content), place) if trained else None)
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    found = []
    for position, (start, end) in enumerate(tokens["offset_mapping"]):
        mine = [o for o in owner[start:end] if o is not None]
        if mine:
            inside = [at for _, at, place in mine if place == "in"]
            first, last = (inside[0], inside[-1] + 1) if inside else (mine[0][1], mine[0][1])
            found.append((position, mine[0][0], first, last))
    return found


def assert_as_by_hand(tokenizer: Any, conversations: list[Conversation]) -> None:
    results = ChatRenderer(tokenizer).render(conversations)
    for conversation, result in zip(conversations, results, strict=True):
        if not any(turn.role == "assistant" for turn in conversation.turns):
            assert isinstance(result, RenderError)
            continue
        assert isinstance(result, Encoded), result
        columns = (result.position, result.turn, result.char_start, result.char_end)
        assert list(zip(*(c.tolist() for c in columns), strict=True)) == smollm2_by_hand(
            tokenizer, conversation
        )
        assert result.is_end.sum() == len(np.unique(result.turn))
        assert_covers(result, conversation)


def load_messages(name: str, column: str, rows: int) -> list[list[dict[str, Any]]]:
    path = DATA / f"{name}.parquet"
    if not path.exists():
        pytest.skip(f"needs {path}")
    return [json.loads(text) for text in pl.read_parquet(path, n_rows=rows)[column]]


def test_alpaca_rows_have_the_spans_found_character_by_character(smollm2_tokenizer: Any) -> None:
    path = DATA / "alpaca/alpaca_52k.parquet"
    if not path.exists():
        pytest.skip(f"needs {path}")
    rows = pl.read_parquet(path, n_rows=300).to_dicts()
    assert_as_by_hand(
        smollm2_tokenizer, [chat(f"{r['instruction']}\n{r['input']}", r["output"]) for r in rows]
    )


@pytest.mark.slow
def test_sharegpt_chats_have_the_spans_found_character_by_character(smollm2_tokenizer: Any) -> None:
    chats = load_messages("chat/sharegpt_3k", "conversations", 300)
    assert_as_by_hand(smollm2_tokenizer, [of_messages(messages) for messages in chats])


def test_tool_use_chats_have_the_spans_found_character_by_character(smollm2_tokenizer: Any) -> None:
    chats = load_messages("chat/reason_tool_use_100", "messages", 100)
    for messages in chats:
        for message in messages:
            if not isinstance(message["content"], str):
                message["content"] = "\n".join(str(part.get("value")) for part in message["content"])
    assert_as_by_hand(smollm2_tokenizer, [of_messages(messages) for messages in chats])


def test_ids_are_those_that_transformers_gives_the_same_chat(smollm2_tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "Count: 1234"}, {"role": "assistant", "content": "Ωμέγα 🙂 42"}]
    encoded = encode(smollm2_tokenizer, of_messages(messages))
    assert encoded.input_ids.tolist() == smollm2_tokenizer.apply_chat_template(messages)["input_ids"]


def test_response_tokens_decode_to_the_content_and_its_end_token() -> None:
    tokenizer = ct.byte_level(ct.CHATML)
    encoded = encode(tokenizer, chat("hi", "the fox", "more", "the dog 12"))
    assert written(tokenizer, encoded, 1) == "the fox<|im_end|>"
    assert written(tokenizer, encoded, 3) == "the dog 12<|im_end|>"
    assert encoded.is_end.tolist() == [False] * (list(encoded.turn).count(1) - 1) + [True] + [False] * (
        list(encoded.turn).count(3) - 1
    ) + [True]


def test_marked_templates_train_the_tokens_that_transformers_masks() -> None:
    tokenizer = ct.byte_level(ct.CHATML_MARKED)
    messages = [
        {"role": role, "content": text}
        for role, text in [("user", "hi"), ("assistant", "a b"), ("user", "?"), ("assistant", "the fox")]
    ]
    theirs = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    ours = encode(tokenizer, of_messages(messages))
    assert ours.position.tolist() == np.flatnonzero(theirs["assistant_masks"]).tolist()


def test_a_template_with_markers_and_one_without_give_the_same_result() -> None:
    conversation = chat("hi <|im_start|>assistant\n", " spaced <|im_end|> ", "?", "")
    marked = encode(ct.byte_level(ct.CHATML_MARKED), conversation)
    plain = encode(ct.byte_level(ct.CHATML), conversation)
    for name in ("input_ids", "position", "turn", "char_start", "char_end", "is_end"):
        assert getattr(marked, name).tolist() == getattr(plain, name).tolist()


@pytest.mark.parametrize("family", ct.ALL)
@pytest.mark.parametrize("build", [ct.byte_level, ct.sentencepiece_like])
def test_every_family_places_every_character_of_every_answer(family: str, build: Any) -> None:
    tokenizer = build(ct.ALL[family])
    conversation = chat(
        "the quick fox", "  lazy dog 🙂🙂 日本語 é\n", "and", "over\n\nthe dog", system="be brief"
    )
    encoded = encode(tokenizer, conversation)
    assert_covers(encoded, conversation)
    assert encoded.position[0] > 0
    assert (np.diff(encoded.position) > 0).all()
    assert set(encoded.turn) == {2, 4}


@settings(max_examples=60)
@given(data=st.data())
def test_no_content_can_move_a_span(data: st.DataObject) -> None:
    family = data.draw(st.sampled_from([name for name in ct.ALL if name != "qwen3"]))
    piece = st.one_of(
        st.sampled_from([*ct.SPECIAL, "\n", " ", "assistant\n", "### Response:\n", "answer", "a", "🙂", "é"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    )
    content = st.lists(piece, max_size=6).map("".join)
    contents = data.draw(st.lists(content, min_size=2, max_size=4).filter(lambda c: len(c) % 2 == 0))
    tokenizer, conversation = TOKENIZERS[family], chat(*contents)
    (result,) = ChatRenderer(tokenizer).render([conversation])
    if isinstance(result, RenderError):  # nothing to train on: every answer empty, and no end token
        assert family == "end-at-last"
        assert not any(contents[1::2])
        return
    assert_covers(result, conversation)
    assert (np.diff(result.position) > 0).all()
    for index in np.unique(result.turn):
        text = tokenizer.decode(
            result.input_ids[result.position[result.turn == index]], skip_special_tokens=False
        )
        assert conversation.turns[index].content.strip() in text


TOKENIZERS = {family: ct.byte_level(template) for family, template in ct.ALL.items()}


def test_several_tokens_of_one_character_all_cover_it() -> None:
    encoded = encode(ct.byte_level(ct.CHATML), chat("hi", "🙂"))
    assert encoded.char_start.tolist() == [0, 0, 0, 0, 1]
    assert encoded.char_end.tolist() == [1, 1, 1, 1, 1]


def test_a_post_processor_that_trims_offsets_hides_no_space() -> None:
    conversation = chat("hi", "the  quick   fox \n\n jumps")
    trimmed = encode(ct.byte_level(ct.CHATML, trim_offsets=True), conversation)
    plain = encode(ct.byte_level(ct.CHATML), conversation)
    assert trimmed.char_start.tolist() == plain.char_start.tolist()
    content = conversation.turns[1].content
    pieces = [content[a:b] for a, b in zip(trimmed.char_start, trimmed.char_end, strict=True)]
    assert "".join(pieces) == content


def test_the_offsets_of_a_trimmed_answer_count_from_its_untrimmed_start() -> None:
    encoded = encode(ct.byte_level(ct.GEMMA), chat("hi", "  \nfox\n"))
    content = "  \nfox\n"
    pieces = [content[a:b] for a, b in zip(encoded.char_start, encoded.char_end, strict=True)]
    assert "".join(pieces) == "fox"
    assert encoded.char_end[-1] == len(content)


def test_text_before_and_after_the_content_is_an_empty_span() -> None:
    tokenizer = ct.byte_level(ct.QWEN3)
    encoded = encode(tokenizer, chat("hi", "fox"))
    assert written(tokenizer, encoded, 1) == "<think>\n\n</think>\n\nfox<|im_end|>"
    spans = list(zip(encoded.char_start.tolist(), encoded.char_end.tolist(), strict=True))
    content_at = next(i for i, (a, b) in enumerate(spans) if b > a)
    assert set(spans[:content_at]) == {(0, 0)}
    assert spans[-1] == (3, 3)


def test_offsets_count_from_the_content_that_the_prompt_already_opens() -> None:
    content = "<think>\nhm\n</think>\n\nfox"
    encoded = encode(ct.byte_level(ct.PRIMED), chat("hi", content))
    assert (
        "".join(content[a:b] for a, b in zip(encoded.char_start, encoded.char_end, strict=True))
        == content[8:]
    )


def test_truncation_keeps_the_head_and_counts_what_it_loses() -> None:
    tokenizer, conversation = ct.byte_level(ct.CHATML), chat("hi", "fox", "more", "lazy dog")
    full = encode(tokenizer, conversation)
    limit = int(full.position[-3])
    cut = encode(tokenizer, conversation, max_length=limit)
    assert cut.input_ids.tolist() == full.input_ids[:limit].tolist()
    assert cut.position.tolist() == full.position[:-3].tolist()
    assert (cut.n_truncated, cut.n_tokens_full) == (3, len(full.input_ids))


def test_a_sample_without_a_response_token_left_says_so() -> None:
    tokenizer = ct.byte_level(ct.CHATML)
    reason = refusal(tokenizer, chat("a long prompt " * 20, "x"), max_length=50)
    assert reason == "no response token left after truncation to max_length 50; raise max_length"


def test_too_long_a_sample_is_an_error_when_asked_for() -> None:
    reason = refusal(ct.byte_level(ct.CHATML), chat("hi", "fox " * 50), max_length=20, overflow="error")
    assert "more than max_length 20" in reason


def test_a_sample_of_exactly_max_length_is_whole() -> None:
    tokenizer, conversation = ct.byte_level(ct.CHATML), chat("hi", "fox")
    n = len(encode(tokenizer, conversation).input_ids)
    assert encode(tokenizer, conversation, max_length=n, overflow="error").n_truncated == 0


def test_an_unrenderable_row_leaves_the_others_in_their_places() -> None:
    tokenizer = ct.byte_level(ct.CHATML)
    rows = [chat("hi", "fox"), chat("only a question"), chat("hi", "broken \ud83d half"), chat("hi", "dog")]
    first, no_answer, half, last = ChatRenderer(tokenizer).render(rows)
    assert isinstance(first, Encoded)
    assert isinstance(no_answer, RenderError)
    assert no_answer.reason == "no assistant turn to train on"
    assert isinstance(half, RenderError)
    assert "not valid Unicode" in half.reason
    assert isinstance(last, Encoded)
    assert written(tokenizer, last, 1) == "dog<|im_end|>"


def test_no_conversations_give_no_results() -> None:
    assert ChatRenderer(ct.byte_level(ct.CHATML)).render([]) == []


def test_only_the_last_answer_is_trained_on_when_asked_for() -> None:
    tokenizer = ct.byte_level(ct.CHATML)
    encoded = encode(tokenizer, chat("hi", "fox", "more", "dog"), train_on="last")
    assert set(encoded.turn) == {3}
    assert written(tokenizer, encoded, 3) == "dog<|im_end|>"


def test_a_model_without_a_template_gets_ours_and_its_own_start_token() -> None:
    tokenizer = ct.byte_level(None, bos=True)
    encoded = encode(tokenizer, chat("hi", "fox"))
    assert tokenizer.decode(encoded.input_ids) == "<s>### Instruction:\nhi\n\n### Response:\nfox</s>"
    assert written(tokenizer, encoded, 1) == "fox</s>"
    assert not tokenizer.decode(encode(ct.byte_level(None), chat("hi", "fox")).input_ids).startswith("<s>")


def test_a_tokenizer_without_offsets_is_refused() -> None:
    with pytest.raises(ModelSourceError, match="no fast form"):
        ChatRenderer(CanineTokenizer())


def test_a_chat_of_300_turns_takes_seconds_at_most() -> None:
    conversation = chat(*(f"turn {i} " * 40 for i in range(300)))
    started = time.perf_counter()
    encoded = encode(ct.byte_level(ct.CHATML), conversation)
    assert time.perf_counter() - started < PATIENCE
    assert encoded.is_end.sum() == 150


# Answers without their prompts


def alone(tokenizer: Any, conversation: Conversation, context: Any, **options: Any) -> tuple[str, Encoded]:
    """The text that is read, and its encoding."""
    encoded = encode(tokenizer, conversation, context=context, **options)
    return tokenizer.decode(encoded.input_ids), encoded


def test_without_its_prompt_an_answer_keeps_the_opening_and_its_end(smollm2_tokenizer: Any) -> None:
    """The default system prompt of SmolLM2's template goes too."""
    text, encoded = alone(smollm2_tokenizer, chat("Name a colour.", "Blue, or red."), "header")
    assert text.strip() == "<|im_start|>assistant\nBlue, or red.<|im_end|>"
    assert written(smollm2_tokenizer, encoded, 1) == "Blue, or red.<|im_end|>"
    assert_covers(encoded, chat("Name a colour.", "Blue, or red."))
    assert encoded.is_end.tolist() == [False] * (len(encoded.position) - 1) + [True]


def test_a_bare_answer_is_its_text_of_which_nothing_predicts_the_first_token(smollm2_tokenizer: Any) -> None:
    text, encoded = alone(smollm2_tokenizer, chat("Name a colour.", "Blue, or red."), "bare")
    assert text == "Blue, or red."
    assert encoded.position.tolist() == list(range(1, len(encoded.input_ids)))
    assert encoded.char_end[-1] == len(text)
    assert not encoded.is_end.any()


def test_answers_of_several_turns_follow_one_another(smollm2_tokenizer: Any) -> None:
    conversation = chat("Hi", "Hello.", "2 + 2?", "Four.", system="Be brief.")
    text, encoded = alone(smollm2_tokenizer, conversation, "header")
    opened = "<|im_start|>assistant\n"
    assert text.strip() == f"{opened}Hello.<|im_end|>\n{opened}Four.<|im_end|>"
    assert written(smollm2_tokenizer, encoded, 2) == "Hello.<|im_end|>"
    assert written(smollm2_tokenizer, encoded, 4) == "Four.<|im_end|>"
    bare, encoded = alone(smollm2_tokenizer, conversation, "bare")
    assert bare == "Hello.\n\nFour."
    assert written(smollm2_tokenizer, encoded, 4) == "Four."
    last, _ = alone(smollm2_tokenizer, conversation, "bare", train_on="last")
    assert last == "Four."


@pytest.mark.parametrize("context", ["header", "bare"])
@pytest.mark.parametrize(
    "turns", [("Count.", "one two three four five six"), ("Hi", "Hello.", "Go on", "one two")]
)
def test_what_truncation_takes_from_a_sample_is_gone_from_its_answers_alone(
    tiny_folder: Path, context: Any, turns: tuple[str, ...]
) -> None:
    """At every limit that leaves some of the answers."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    conversation = chat(*turns)
    whole = encode(tokenizer, conversation)
    for limit in range(int(whole.position[0]) + 2, len(whole.input_ids) + 1):
        cut = encode(tokenizer, conversation, max_length=limit)
        encoded = encode(tokenizer, conversation, max_length=limit, context=context)
        mine, theirs = (
            {(int(t), int(e)) for t, e in zip(part.turn, part.char_end, strict=True)}
            for part in (encoded, cut)
        )
        assert mine <= theirs, limit
        assert len(theirs - mine) <= 1, limit  # the first token of a bare text
        assert len(encoded.input_ids) == encoded.position[-1] + 1 or not cut.n_truncated


@pytest.mark.parametrize("context", ["header", "bare"])
def test_a_sample_that_cannot_be_rendered_whole_cannot_be_without_its_prompt(
    smollm2_tokenizer: Any, context: Any
) -> None:
    long = chat("word " * 60, "Yes, it is.")
    assert "no response token left" in refusal(smollm2_tokenizer, long, max_length=40, context=context)
    assert "more than max_length" in refusal(
        smollm2_tokenizer, long, max_length=40, overflow="error", context=context
    )
    assert "no assistant turn" in refusal(smollm2_tokenizer, chat("Hi"), context=context)


def test_a_bare_answer_of_one_token_says_why_it_cannot_be_measured(smollm2_tokenizer: Any) -> None:
    assert refusal(smollm2_tokenizer, chat("Yes?", "Yes"), context="bare") == (
        "a single token, which nothing stands before to predict it"
    )
