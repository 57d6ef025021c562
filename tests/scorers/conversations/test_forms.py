"""In which form templates get systems, tools, calls and reasoning, and that nothing of a row is left out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scorers.conversations.conversation import Conversation, Turn
from scorers.conversations.forms import RefusedError
from scorers.conversations.spans import ChatTemplate
from tests import chat_templates as ct

ARGUMENTS = '{"city": "Oslo", "unit": null}'
TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "Tells the weather.",
                "parameters": {"type": "object", "properties": {"city": {"type": "string", "default": None}}},
            },
        }
    ]
)
ALL = {
    "qwen3": ct.QWEN3,
    "chatml": ct.CHATML,
    "marked": ct.CHATML_MARKED,
    "gemma": ct.GEMMA,
    "llama3": ct.LLAMA3,
    "channels": ct.CHANNELS,
    "joined": ct.JOINED_ARGUMENTS,
    "nine": ct.NINE,
    "tools-in-system": ct.TOOLS_IN_SYSTEM,
    "none": None,
}


def calls(arguments: Any = ARGUMENTS, **also: Any) -> str:
    return json.dumps([{**also, "name": "weather", "arguments": arguments}])


def agent(
    content: str = "", arguments: Any = ARGUMENTS, *, null: bool = True, call: str | None = "abcdefghi"
) -> Conversation:
    named = {} if call is None else {"id": call}
    turns = (
        Turn("user", "Rain in Oslo?"),
        Turn("assistant", content, calls(arguments, **named), null=null),
        Turn("tool", '"rain"\n', tool_call_id=call, name="weather"),
        Turn("assistant", "It rains."),
    )
    return Conversation(turns, TOOLS)


def chat(*turns: tuple[str, str]) -> Conversation:
    return Conversation(tuple(Turn(role, content) for role, content in turns))  # type: ignore[arg-type]


def answers(
    template: str | None, conversation: Conversation, *, last_only: bool = False
) -> tuple[str, list[str]]:
    """The rendered text, and what of it is trained on."""
    text, found = ChatTemplate(ct.byte_level(template)).responses(conversation, last_only=last_only)
    return text, [text[each.start : each.stop] for each in found]


# Calls


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("content", ["", "Let me look."])
@pytest.mark.parametrize("arguments", [ARGUMENTS, json.loads(ARGUMENTS)])
@pytest.mark.parametrize("call", ["abcdefghi", "call_1", None])
def test_every_family_trains_on_the_call_and_on_the_answer(
    family: str, content: str, arguments: Any, call: str | None
) -> None:
    text, (asked, told) = answers(ALL[family], agent(content, arguments, call=call))
    assert "weather" in asked
    assert ARGUMENTS in asked
    assert content in asked
    assert "It rains." in told
    assert "It rains." not in asked
    for piece in ("Rain in Oslo?", "Tells the weather.", "city", "rain"):
        assert piece in text
    assert "None" not in text


def test_a_call_without_content_is_trained_as_the_template_writes_it() -> None:
    _, (asked, told) = answers(ct.QWEN3, agent())
    assert asked == f'<tool_call>\n{{"name": "weather", "arguments": {ARGUMENTS}}}\n</tool_call><|im_end|>'
    assert told == "<think>\n\n</think>\n\nIt rains.<|im_end|>"


@pytest.mark.parametrize(
    "written", ['{"b":1,"a":null}', '{ "q": "\\u00e9\\n" }', '{"n": 12345678901234567890123}', "{}"]
)
def test_arguments_are_the_row_s_own_text_where_the_template_takes_text(written: str) -> None:
    for template in (ct.QWEN3, ct.JOINED_ARGUMENTS, ct.CHATML):
        assert written in answers(template, agent(arguments=written))[1][0]


def test_arguments_become_what_the_template_prints_where_it_wants_an_object() -> None:
    _, (asked, _) = answers(ct.CHANNELS, agent(arguments='{"b":1,"a":null,"n":12345678901234567890123}'))
    assert asked == ' to=weather<|message|>{"b": 1, "a": null, "n": 12345678901234567890123}<|call|>'


def test_broken_arguments_stay_what_the_model_wrote() -> None:
    assert '{"city": Oslo' in answers(ct.QWEN3, agent(arguments='{"city": Oslo'))[1][0]


def test_ids_of_the_row_are_kept_where_the_template_takes_them() -> None:
    text, (asked, _) = answers(ct.NINE, agent())
    assert asked.endswith("abcdefghi</s>")
    assert "[RESULT]abcdefghi" in text


@pytest.mark.parametrize("call", ["call_1", None])
def test_ids_of_another_form_are_made_so_that_results_still_name_their_calls(call: str | None) -> None:
    text, (asked, _) = answers(ct.NINE, agent(call=call))
    made = asked.removesuffix("</s>")[-9:]
    assert made.isalnum()
    assert f"[RESULT]{made}" in text
    assert text.startswith("<s>[TOOLS]")


def test_results_of_several_calls_name_each_its_own_in_whatever_order() -> None:
    two = json.dumps([{"id": name, "name": name, "arguments": {}} for name in ("one", "two")])
    turns = (
        Turn("user", "Both?"),
        Turn("assistant", "", two, null=True),
        *(Turn("tool", f"of {name}", tool_call_id=name) for name in ("two", "one")),
        Turn("assistant", "Done."),
    )
    text, (asked, _) = answers(ct.NINE, Conversation(turns))
    first, second = (asked.partition(f'"{name}", "arguments": {{}}}}')[2][:9] for name in ("one", "two"))
    assert f"[RESULT]{second} of two" in text
    assert f"[RESULT]{first} of one" in text
    assert first != second


def test_calls_that_a_template_passes_over_become_lines_of_the_content() -> None:
    _, (asked, _) = answers(ct.JOINED_ARGUMENTS, agent("Let me look.", null=False))
    assert asked.startswith("Let me look.\n<tool_call>\n")
    assert asked.endswith("</tool_call></s>")


def test_all_of_several_calls_are_there_or_the_form_is_another() -> None:
    two = json.dumps([{"name": name, "arguments": {}} for name in ("one", "two")])
    turns = (Turn("user", "Both?"), Turn("assistant", "", two, null=True))
    _, (asked,) = answers(ct.CHANNELS, Conversation(turns))
    assert '"name": "one"' in asked
    assert '"name": "two"' in asked


def test_a_row_that_speaks_of_a_call_in_other_quotes_is_rendered_all_the_same() -> None:
    spoken = f"I would call with {json.loads(ARGUMENTS)} or '\"{{}}\"'."
    turns = (Turn("user", spoken), *agent(arguments=json.loads(ARGUMENTS)).turns[1:])
    for template in (ct.QWEN3, ct.CHANNELS):
        text, (asked, _) = answers(template, Conversation(turns, TOOLS))
        assert ARGUMENTS in asked
        assert spoken in text


def test_null_content_is_not_written_as_the_word_none() -> None:
    printing = ct.CHATML.replace(
        "m['content'] +", "(m['content'] ~ (m.tool_calls | tojson if m.tool_calls)) +"
    )
    for null in (True, False):
        text, (asked, _) = answers(printing, agent(null=null))
        assert "None" not in text
        assert "weather" in asked


# Tools


@pytest.mark.parametrize("wrapped", [True, False])
def test_tools_reach_templates_in_the_wrapping_that_they_read(wrapped: bool) -> None:
    bare = ct.CHATML.replace(
        "{%- for m in messages -%}",
        "{%- for t in tools or [] -%}{{- '<' + t.name + ': ' + t.description -}}"
        "{%- for p in t.parameters.properties -%}{{- ' ' + p -}}{%- endfor -%}{{- '>' -}}{%- endfor -%}"
        "{%- for m in messages -%}",
    )
    schemas = json.loads(TOOLS)
    tools = json.dumps(schemas if wrapped else [schema["function"] for schema in schemas])
    text, _ = answers(bare, Conversation(agent().turns, tools))
    assert text.startswith("<weather: Tells the weather. city>")
    text, _ = answers(ct.QWEN3, Conversation(agent().turns, tools))
    assert text.startswith("<|im_start|>system\n# Tools\n" + TOOLS)


def test_tools_reach_a_template_that_looks_for_them_in_the_system_turn() -> None:
    with_system = Conversation((Turn("system", "Be brief."), *agent().turns), TOOLS)
    text, _ = answers(ct.TOOLS_IN_SYSTEM, with_system)
    assert text.startswith(f"<|system|>Be brief.<|tool|>{TOOLS}<|/tool|><|end|>")
    text, _ = answers(ct.TOOLS_IN_SYSTEM, agent())
    assert text.startswith(f"<|system|><|tool|>{TOOLS}<|/tool|><|end|>")


def test_a_template_that_speaks_of_tools_but_writes_none_gets_them_as_text() -> None:
    forgetful = ct.CHATML.replace(
        "{%- for m", "{%- if tools -%}{{- 'You have tools.' -}}{%- endif -%}{%- for m", 1
    )
    text, _ = answers(forgetful, agent())
    assert f"Tools:\n{TOOLS}" in text


def test_results_that_have_no_role_become_user_turns() -> None:
    text, found = answers(ct.GEMMA, agent())
    assert '<start_of_turn>user\n<tool_response>\n"rain"\n\n</tool_response><end_of_turn>' in text
    assert "<start_of_turn>tool" not in text
    assert found[1] == "It rains.<end_of_turn>"


# System turns

HELLO = (("user", "Hi"), ("assistant", "Hello."))


def test_several_system_turns_are_joined_or_moved_as_the_template_asks() -> None:
    two = chat(("system", "Be kind."), ("system", "Be brief."), *HELLO)
    later = chat(*HELLO, ("system", "In French."), ("user", "And now?"), ("assistant", "Bonjour."))
    assert answers(ct.CHATML, two)[0].count("<|im_start|>system") == 2
    assert "<|message|>Be kind.\n\nBe brief.<|end|>" in answers(ct.CHANNELS, two)[0]
    assert "<start_of_turn>user\nBe kind.\n\nBe brief.\n\nHi<end_of_turn>" in answers(ct.GEMMA, two)[0]
    assert answers(ct.JOINED_ARGUMENTS, two)[0].startswith("<s>Be kind.\n\nBe brief.")
    for template in (ct.CHANNELS, ct.GEMMA, ct.NINE):
        text, found = answers(template, later)
        assert "In French.\n\nAnd now?" in text
        assert "system" not in text
        assert len(found) == 2


@pytest.mark.parametrize("family", ALL)
def test_no_family_loses_a_system_turn_wherever_it_stands(family: str) -> None:
    first, later = ("system", "Be kind."), ("system", "In French.")
    more = (("user", "And now?"), ("assistant", "Bonjour."))
    for turns in (
        (first, *HELLO),
        (first, later, *HELLO),
        (*HELLO, later, *more),
        (first, *HELLO, later, *more),
        (HELLO[0], later, HELLO[1]),
    ):
        text, found = answers(ALL[family], chat(*turns))
        assert all(content in text for _, content in turns)
        assert not any(content in "".join(found) for role, content in turns if role != "assistant")


def test_system_text_before_an_answer_goes_to_the_question() -> None:
    text, _ = answers(ct.GEMMA, chat(HELLO[0], ("system", "In French."), HELLO[1]))
    assert "<start_of_turn>user\nHi\n\nIn French.<end_of_turn>" in text


def test_the_reason_is_that_of_the_form_which_asks_least() -> None:
    faulty = chat(("system", "Be brief."), ("user", "Hi"), ("user", "Are you there?"), ("assistant", "Yes."))
    with pytest.raises(RefusedError, match="roles must alternate"):
        answers(ct.GEMMA, faulty)


# What is left out


def test_rows_that_are_refused_for_one_reason_keep_nothing_of_each_other() -> None:
    template = ChatTemplate(ct.byte_level(ct.GEMMA))
    depths = []
    for _ in range(3):
        with pytest.raises(RefusedError) as caught:
            template.responses(
                chat(("user", "Hi"), ("user", "There?"), ("assistant", "Yes.")), last_only=False
            )
        depths.append(len(caught.traceback))
    assert depths[1] == depths[2]


def test_a_question_that_a_template_passes_over_refuses_the_row_by_name() -> None:
    last_question = ct.CHATML.replace(
        "{%- for m in messages -%}",
        "{%- for m in messages if m['role'] != 'user' or m == (messages | selectattr('role', 'eq', 'user') "
        "| list)[-1] -%}",
    )
    assert len(answers(last_question, chat(*HELLO))[1]) == 1
    with pytest.raises(RefusedError, match=r"leaves out turn 0 \(user\)"):
        answers(last_question, chat(*HELLO, ("user", "More?"), ("assistant", "No.")))


def test_a_text_that_a_template_cuts_is_missed_in_the_row_that_has_it() -> None:
    cutting = ct.CHATML.replace("m['content'] +", "m['content'].split('###')[0] +")
    assert answers(cutting, chat(*HELLO))[1] == ["Hello.<|im_end|>"]
    with pytest.raises(RefusedError, match=r"leaves out turn 0 \(user\)"):
        answers(cutting, chat(("user", "Hi ### there"), HELLO[1]))


def test_prompt_text_may_be_spaced_otherwise_or_be_a_json_string() -> None:
    dense = ct.CHATML.replace("m['content'] +", "m['content'] | replace('\\n\\n', '\\n') +")
    assert answers(dense, chat(("user", "Hi\n\nthere"), HELLO[1]))[1] == ["Hello.<|im_end|>"]
    quoting = ct.CHATML.replace(
        "m['content'] +", "(m['content'] | tojson if m.role == 'user' else m.content) +"
    )
    assert answers(quoting, chat(("user", 'Say "hi"\né'), HELLO[1]))[1] == ["Hello.<|im_end|>"]


# Reasoning

THOUGHT = "<think>\nAdd 2 to 2.\n</think>\n4."


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("qwen3", "<think>\nAdd 2 to 2.\n</think>\n\n4.<|im_end|>"),
        ("chatml", f"{THOUGHT}<|im_end|>"),
        ("marked", f"{THOUGHT}<|im_end|>"),
        ("none", f"{THOUGHT}</s>"),
        (
            "channels",
            "<|channel|>analysis<|message|>Add 2 to 2.<|end|>"
            "<|start|>assistant<|channel|>final<|message|>4.<|end|>",
        ),
    ],
)
def test_reasoning_is_trained_on_in_the_form_that_the_template_has_for_it(family: str, expected: str) -> None:
    assert answers(ALL[family], chat(("user", "2 + 2?"), ("assistant", THOUGHT)))[1] == [expected]


def test_reasoning_beside_calls_is_trained_on_with_them() -> None:
    conversation = agent("<think>\nI need the weather.\n</think>\n")
    _, (asked, told) = answers(ct.QWEN3, conversation)
    assert asked.startswith("<think>\nI need the weather.\n</think>\n\n<tool_call>")
    assert asked.endswith("</tool_call><|im_end|>")
    assert told == "<think>\n\n</think>\n\nIt rains.<|im_end|>"


def test_reasoning_that_a_template_drops_refuses_the_row_by_name() -> None:
    dropping = ct.CHATML.replace("m['content'] +", "m['content'].split('</think>')[-1] +")
    with pytest.raises(RefusedError, match="leaves out the reasoning of turn 1"):
        answers(dropping, chat(("user", "2 + 2?"), ("assistant", THOUGHT)))
    two = chat(("user", "2 + 2?"), ("assistant", THOUGHT), ("user", "Sure?"), ("assistant", "Yes."))
    for template in (ct.QWEN3, ct.CHANNELS):
        with pytest.raises(RefusedError, match=r"reasoning of turn 1 .*train on the last turn only"):
            answers(template, two)
        assert "Yes." in answers(template, two, last_only=True)[1][0]


# What is not trained on


def test_turns_that_the_row_keeps_from_training_are_read_and_not_trained_on() -> None:
    turns = (Turn("user", "One?"), Turn("assistant", "BAD", untrained="weight 0"), Turn("user", "Two?"))
    text, found = answers(ct.QWEN3, Conversation((*turns, Turn("assistant", "GOOD"))))
    assert "BAD" in text
    assert found == ["<think>\n\n</think>\n\nGOOD<|im_end|>"]


def test_a_last_turn_that_is_not_to_be_trained_on_leaves_nothing_when_only_it_is() -> None:
    turns = (Turn("user", "One?"), Turn("assistant", "GOOD"), Turn("user", "Two?"))
    conversation = Conversation((*turns, Turn("assistant", "BAD", untrained="weight 0")))
    assert answers(ct.CHATML, conversation)[1] == ["GOOD<|im_end|>"]
    with pytest.raises(RefusedError, match=r"not to train on turn 3 \(weight 0\)"):
        answers(ct.CHATML, conversation, last_only=True)
