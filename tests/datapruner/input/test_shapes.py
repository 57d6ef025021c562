"""One raw row in, one conversation out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.errors import UsageError
from datapruner.input.shapes import Rejection, RowParser, Sample
from scorers.conversations.conversation import Turn
from tests.chats import of_sample
from tests.datapruner.input.parsing import CHAT, rejection, sample, texts

DATA = Path(__file__).parents[4] / "shared" / "data"


def real_rows(name: str) -> list[dict[str, Any]]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the real data file {name} is not beside the repository")
    return pq.read_table(path).to_pylist()


# Alpaca


def test_an_alpaca_row_joins_instruction_and_input_by_a_blank_line() -> None:
    row = {"instruction": "Add.", "input": "2, 3", "output": "5"}
    assert sample(row).shape == "alpaca"
    assert texts(row) == [("user", "Add.\n\n2, 3"), ("assistant", "5")]


@pytest.mark.parametrize("extra", [{}, {"input": ""}, {"input": "  "}, {"input": None}])
def test_an_alpaca_row_without_input_has_the_instruction_alone(extra: dict[str, Any]) -> None:
    assert texts({"instruction": "Greet.", "output": "Hi", **extra})[0] == ("user", "Greet.")


def test_an_alpaca_row_keeps_system_and_history_in_order() -> None:
    row = {
        "instruction": "And 3?",
        "output": "9",
        "system": "Square it.",
        "history": [["2?", "4"], ["1?", "1"]],
    }
    assert texts(row) == [
        ("system", "Square it."),
        ("user", "2?"),
        ("assistant", "4"),
        ("user", "1?"),
        ("assistant", "1"),
        ("user", "And 3?"),
        ("assistant", "9"),
    ]


# Chats


def test_sharegpt_roles_become_the_four_roles() -> None:
    row = {
        "conversations": [
            {"from": "system", "value": "s"},
            {"from": "human", "value": "u"},
            {"from": "function_call", "value": '{"name": "f"}'},
            {"from": "observation", "value": "42"},
            {"from": "gpt", "value": "It is 42"},
        ]
    }
    assert sample(row).shape == "sharegpt"
    assert [role for role, _ in texts(row)] == ["system", "user", "assistant", "tool", "assistant"]
    assert texts(row)[2][1] == '{"name": "f"}'


def test_messages_may_stand_in_a_conversations_column_and_as_json_text() -> None:
    assert sample({"conversations": CHAT}).shape == "messages"
    assert sample({"messages": json.dumps(CHAT)}).sample_id == sample({"messages": CHAT}).sample_id


def test_a_system_column_comes_first_unless_the_chat_already_begins_with_it() -> None:
    assert texts({"messages": CHAT, "system": "Be kind"})[0] == ("system", "Be kind")
    chat = [{"role": "system", "content": "Be kind"}, *CHAT]
    assert len(texts({"messages": chat, "system": "Be kind"})) == 3


def test_text_parts_are_joined_and_developer_counts_as_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    chat = [{"role": "developer", "content": parts}, *CHAT]
    assert texts({"messages": chat})[0] == ("system", "ab")


def test_reasoning_of_a_message_is_folded_before_its_content() -> None:
    chat = [CHAT[0], {"role": "assistant", "content": "4", "reasoning_content": "2+2"}]
    assert texts({"messages": chat})[1] == ("assistant", "<think>\n2+2\n</think>\n4")


@pytest.mark.parametrize("arguments", ['{"x": 1, "y": null}', {"x": 1, "y": None}])
def test_tool_calls_keep_ids_and_arguments_as_the_row_has_them(arguments: object) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    result = {"role": "tool", "content": "2", "tool_call_id": "1", "name": "f"}
    chat = [CHAT[0], {"role": "assistant", "content": None, "tool_calls": [call]}, result, CHAT[1]]
    _, asked, told, _ = of_sample(sample({"messages": chat})).turns
    assert json.loads(asked.tool_calls or "") == [{"id": "1", "name": "f", "arguments": arguments}]
    assert (asked.content, asked.null) == ("", True)
    assert (told.tool_call_id, told.name, told.null) == ("1", "f", False)


def test_whole_numbers_of_any_size_and_the_order_of_keys_come_through() -> None:
    written = '{"z":12345678901234567890123,"a":9007199254740993,"\u00e9":0.1}'
    call = {"name": "f", "arguments": json.loads(written)}
    chat = [CHAT[0], {"role": "assistant", "content": "", "tool_calls": [call]}]
    assert written in (sample({"messages": chat}).turns[1][2] or "").replace("\\u00e9", "é")


def test_what_json_cannot_hold_is_no_argument() -> None:
    call = {"name": "f", "arguments": {"x": float("nan")}}
    chat = [CHAT[0], {"role": "assistant", "content": "", "tool_calls": [call]}]
    assert rejection({"messages": chat}).code == "bad_tools"


def test_arguments_that_are_not_json_stay_the_text_that_the_model_wrote() -> None:
    chat = [CHAT[0], {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": "{x"}]}]
    calls = sample({"messages": chat}).turns[1][2]
    assert calls is not None
    assert json.loads(calls)[0]["arguments"] == "{x"


TOOLS = [{"name": "f", "parameters": {"x": {"type": "int", "default": None}}}]


@pytest.mark.parametrize("value", [TOOLS, json.dumps(TOOLS), [json.dumps(TOOLS[0])]])
def test_tools_keep_the_nulls_that_the_row_wrote(value: object) -> None:
    conversation = of_sample(sample({"messages": CHAT, "tools": value}))
    assert json.loads(conversation.tools or "") == TOOLS


def test_nulls_of_a_typed_source_are_padding_but_not_those_in_its_text() -> None:
    parser = RowParser()
    typed = parser.parse({"messages": CHAT, "tools": TOOLS}, padded=True)
    text = parser.parse({"messages": CHAT, "tools": json.dumps(TOOLS)}, padded=True)
    assert isinstance(typed, Sample)
    assert isinstance(text, Sample)
    assert json.loads(typed.tools or "") == [{"name": "f", "parameters": {"x": {"type": "int"}}}]
    assert json.loads(text.tools or "") == TOOLS


@pytest.mark.parametrize("tools", ["[1]", '["x"]', [["f"]]])
def test_a_tool_that_is_no_object_is_named(tools: object) -> None:
    found = rejection({"messages": CHAT, "tools": tools})
    assert (found.code, found.field) == ("bad_tools", "tools[0]")


# Pairs


@pytest.mark.parametrize("response", ["completion", "response"])
def test_prompt_and_completion_may_be_strings_or_message_lists(response: str) -> None:
    assert texts({"prompt": "Hi", response: "Hello"}) == [("user", "Hi"), ("assistant", "Hello")]
    row = {"prompt": CHAT[:1], response: CHAT[1:]}
    assert texts(row) == [("user", "Hi"), ("assistant", "Hello")]
    assert sample(row).shape == "prompt-completion"


def test_messages_as_text_are_read_as_messages() -> None:
    typed = sample({"prompt": CHAT[:1], "completion": CHAT[1:]})
    text = sample({"prompt": json.dumps(CHAT[:1]), "completion": json.dumps(CHAT[1:])})
    single = sample({"prompt": json.dumps(CHAT[0]), "completion": CHAT[1]})
    assert typed.turns == text.turns == single.turns
    sharegpt = [{"from": "gpt", "value": CHAT[1]["content"]}]
    assert sample({"prompt": CHAT[0]["content"], "completion": json.dumps(sharegpt)}).turns == typed.turns


@pytest.mark.parametrize(
    "text", ["[1, 2]", "[]", '[{"role": "boss", "content": "x"}]', '{"name": "f"}', '[{"role": "user"}]']
)
def test_json_that_is_no_messages_stays_text(text: str) -> None:
    assert texts({"prompt": "Write JSON.", "completion": text})[1] == ("assistant", text)


@pytest.mark.parametrize("column", ["prompt", "completion", "messages", "tools"])
def test_what_python_printed_of_a_list_has_a_remedy_of_its_own(column: str) -> None:
    row = {"prompt": "a", "completion": "b", column: str(CHAT[:1])}
    if column in ("messages", "tools"):
        row = {"messages": CHAT, column: str(CHAT)}
    found = rejection(row)
    assert (found.code, found.field) == ("python_text", column)
    assert "json.dumps" in found.remedy


@pytest.mark.parametrize("question", ["question", "problem", "query"])
@pytest.mark.parametrize("answer", ["answer", "solution", "response"])
def test_every_pair_of_question_and_answer_names_is_known(question: str, answer: str) -> None:
    assert sample({question: "2+2?", answer: "4"}).shape == "question-answer"


def test_a_worked_solution_is_preferred_to_the_bare_answer() -> None:
    row = {"problem": "2+2?", "answer": "4", "solution": "Two and two make 4."}
    assert texts(row)[1][1] == "Two and two make 4."
    assert sample(row).columns.used == ("problem", "solution")


def test_a_null_solution_gives_way_to_the_answer() -> None:
    assert texts({"problem": "2+2?", "answer": "4", "solution": None})[1][1] == "4"


@pytest.mark.parametrize("column", ["reasoning", "thinking", "reasoning_content", "cot", "rationale"])
def test_a_reasoning_column_is_folded_into_the_answer(column: str) -> None:
    row = {"question": "2+2?", column: "Count.", "answer": "4"}
    assert texts(row)[1][1] == "<think>\nCount.\n</think>\n4"


def test_a_think_block_with_the_same_reasoning_is_left_as_it_is() -> None:
    row = {"question": "2+2?", "reasoning": "Count. ", "answer": "<think>Count.</think>4"}
    assert texts(row)[1][1] == "<think>Count.</think>4"


def test_a_second_reasoning_is_not_dropped_in_silence() -> None:
    row = {"question": "2+2?", "reasoning": "Count.", "answer": "<think>Hm.</think>4"}
    assert rejection(row).code == "two_reasonings"
    message = {"role": "assistant", "content": "4", "reasoning": "Count.", "thinking": "Hm."}
    assert rejection({"messages": [CHAT[0], message]}).code == "two_reasonings"


def test_a_tag_in_prose_is_no_reasoning() -> None:
    row = {"question": "2+2?", "reasoning": "Count.", "answer": "4, </think> says."}
    assert texts(row)[1][1] == "<think>\nCount.\n</think>\n4, </think> says."


def test_the_reasoning_of_a_response_of_messages_is_that_of_its_answer() -> None:
    row = {"prompt": CHAT[:1], "completion": CHAT[1:], "reasoning": "Count."}
    assert texts(row)[1][1] == f"<think>\nCount.\n</think>\n{CHAT[1]['content']}"


# Detection and mapping


def test_columns_of_other_shapes_that_are_null_do_not_mislead() -> None:
    row = {"messages": None, "instruction": "Greet.", "output": "Hi", "conversations": None}
    assert sample(row).shape == "alpaca"


def test_one_parser_reads_rows_of_different_shapes() -> None:
    parser = RowParser()
    rows: list[Any] = [
        {"instruction": "a", "output": "b"},
        {"messages": CHAT},
        {"prompt": "a", "completion": "b"},
        {"question": "a", "answer": "b"},
    ]
    shapes = [result.shape for row in rows if isinstance(result := parser.parse(row), Sample)]
    assert shapes == ["alpaca", "messages", "prompt-completion", "question-answer"]


def test_a_mapping_overrides_detection() -> None:
    row = {"instruction": "no", "output": "no", "q": "Hi", "a": "Hello", "s": "Be kind", "r": "Greet"}
    mapping = {"prompt": "q", "response": "a", "system": "s", "reasoning": "r"}
    assert sample(row, mapping).shape == "mapped"
    assert texts(row, mapping) == [
        ("system", "Be kind"),
        ("user", "Hi"),
        ("assistant", "<think>\nGreet\n</think>\nHello"),
    ]
    assert texts({"chat": CHAT}, {"messages": "chat"})[0] == ("user", "Hi")


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"promt": "q", "response": "a"}, "unknown part 'promt'.*the parts are messages, prompt"),
        ({"prompt": "q"}, "both 'prompt' and 'response'"),
        ({"messages": "c", "prompt": "q"}, "'messages' and also prompt"),
        ({"prompt": "", "response": "a"}, "no column name for 'prompt'"),
    ],
)
def test_a_wrong_mapping_is_refused_with_the_valid_parts(mapping: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RowParser(mapping)


# Identity

content = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(
    lambda text: not text.isspace()
)
chats = st.lists(st.tuples(st.sampled_from(["user", "system", "tool"]), content), max_size=4)


@settings(max_examples=50)
@given(chats, content, chats, content)
def test_two_samples_share_an_id_only_when_their_turns_are_equal(
    first: list[tuple[str, str]], answer: str, second: list[tuple[str, str]], other: str
) -> None:
    rows = [
        {"messages": [{"role": r, "content": c} for r, c in [*turns, ("assistant", reply)]]}
        for turns, reply in ((first, answer), (second, other))
    ]
    one, two = map(sample, rows)
    assert [turn[:2] for turn in one.turns] == [*first, ("assistant", answer)]
    assert (one.sample_id == two.sample_id) == (one.turns == two.turns)


def test_the_id_ignores_other_columns_and_the_shape_but_not_tools() -> None:
    plain = sample({"messages": CHAT})
    assert sample({"prompt": "Hi", "completion": "Hello", "id": 7}).sample_id == plain.sample_id
    assert sample({"messages": CHAT, "tools": [{"name": "f"}]}).sample_id != plain.sample_id
    assert len(plain.sample_id) == 32


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@settings(max_examples=50)
@given(st.recursive(scalars, st.lists, max_leaves=5))
def test_no_value_in_any_column_makes_the_parser_raise(value: Any) -> None:
    alpaca = {"instruction": "a", "output": "b"}
    for column in ("instruction", "output", "messages", "tools", "history", "system"):
        for row in ({column: value}, {**alpaca, column: value}, {"messages": CHAT, column: value}):
            assert isinstance(RowParser().parse(row), Sample | Rejection)


def test_a_sample_gives_the_conversation_that_scorers_read() -> None:
    conversation = of_sample(sample({"messages": CHAT}))
    assert conversation.turns == (Turn("user", "Hi"), Turn("assistant", "Hello"))


# Real data


@pytest.mark.parametrize(
    ("name", "shape", "columns", "accepted"),
    [
        ("chat/sharegpt_3k.parquet", "messages", ("conversations",), 2998),
        ("chat/glaive_toolcall_300.parquet", "sharegpt", ("conversations", "tools"), 300),
        ("chat/reason_tool_use_100.parquet", "messages", ("messages",), 99),
        ("math/gsm8k_model_solutions_labelled.parquet", "question-answer", ("question", "solution"), 5276),
        ("math/gsm8k_train.parquet", "question-answer", ("question", "answer"), 7473),
        ("math/math500_test.parquet", "question-answer", ("problem", "solution"), 500),
    ],
)
def test_real_rows_are_read_by_the_columns_that_hold_them(
    name: str, shape: str, columns: tuple[str, ...], accepted: int
) -> None:
    parser = RowParser()
    results = [parser.parse(row) for row in real_rows(name)]
    samples = [result for result in results if isinstance(result, Sample)]
    assert Counter((s.shape, s.columns.used) for s in samples) == {(shape, columns): accepted}


def test_real_reasoning_parts_and_tool_calls_are_all_found() -> None:
    parser = RowParser()
    results = [parser.parse(row) for row in real_rows("chat/reason_tool_use_100.parquet")]
    samples = [result for result in results if isinstance(result, Sample)]
    turns = [turn for s in samples for turn in s.turns if turn[0] == "assistant"]
    assert all(turn[1].startswith("<think>\n") for turn in turns)
    assert sum(turn[2] is not None for turn in turns) > 100
    assert sum(s.tools is not None for s in samples) > 90
