"""IFD against a loop over single samples that follows the published scripts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

from scorers.conversations.chat import ChatRenderer, Encoded
from scorers.methods.ifd import Ifd, IfdOptions, ifd
from scorers.signals.columns import Signals
from scorers.signals.forward import ForwardPass, Measured
from tests.chats import of_messages
from tests.proxies import Proxy
from tests.signal_factory import make_signals, reorder, sample_ids, sample_signals

PLAIN = """\
{%- for m in messages -%}
{%- if m['role'] == 'assistant' -%}
{%- generation -%}{{ m['content'] + eos_token }}{%- endgeneration -%}
{%- else -%}{{ m['content'] + '\\n' }}{%- endif -%}
{%- endfor -%}"""
"""Superfiltering's prompt: the instruction and a line break, then the answer."""
PAIRS = [
    ("Name a colour.", "Blue."),
    ("Why is the sky blue?", "Air scatters short waves more than long ones."),
    ("Name two rivers in Europe and say where they end.", "The Rhine ends in the North Sea."),
    ("Sort: 3, 1, 2", "1, 2, 3"),
    ("Hi", "Give three fruits: apple, pear, plum. There are others, and each of them has its season."),
]


@pytest.fixture(scope="module")
def gpt2(tiny_folder: Path) -> tuple[Any, Any]:
    """A random GPT-2 and its tokenizer."""
    tokenizer = tf.AutoTokenizer.from_pretrained(tiny_folder)
    config = tf.GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=128,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(3)
    model = tf.GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    return model.eval().requires_grad_(False), tokenizer


def mean_loss(model: Any, ids: list[int], start: int) -> float:
    """Mean loss of the tokens from `start` on, as a model reports it when the labels before are masked."""
    labels = torch.tensor([[-100] * start + ids[start:]])
    return float(model(torch.tensor([ids]), labels=labels).loss)


def measured(gpt2: tuple[Any, Any], template: str, max_length: int | None = None) -> Signals:
    """The pairs, and the same without their prompts, as datapruner measures them."""
    model, tokenizer = gpt2
    tokenizer.chat_template = template
    conversations = [
        of_messages([{"role": "user", "content": question}, {"role": "assistant", "content": answer}])
        for question, answer in PAIRS
    ]
    forward = ForwardPass(Proxy(model, torch.device("cpu")))

    def signals(context: Any) -> Signals:
        rendered = ChatRenderer(tokenizer, context=context, max_length=max_length).render(conversations)
        encoded = [each for each in rendered if isinstance(each, Encoded)]
        assert len(encoded) == len(PAIRS), rendered
        found = dict(forward.measure(encoded))
        results = [found[i] for i in range(len(PAIRS))]
        nll = [each.nll for each in results if isinstance(each, Measured)]
        return Signals(
            sample_ids(len(PAIRS)),
            {"nll": np.array([each.mean(dtype=np.float64) for each in nll])},
            {"nll": np.concatenate(nll), "is_end": np.concatenate([each.is_end for each in encoded])},
            np.concatenate([[0], np.cumsum([len(each) for each in nll])]),
        )

    return replace(signals("full"), others={"free": signals("header"), "bare": signals("bare")})


@pytest.mark.parametrize("max_length", [None, 36])
@pytest.mark.parametrize("mode", ["loss", "ppl"])
def test_the_bare_form_is_what_superfiltering_computes(
    gpt2: tuple[Any, Any], mode: Any, max_length: int | None
) -> None:
    model, tokenizer = gpt2
    options = IfdOptions(mode=mode, without_prompt="bare")
    found = Ifd().scores(measured(gpt2, PLAIN, max_length), options, 0)["ifd"]
    for (question, answer), value in zip(PAIRS, found, strict=True):
        prompt = tokenizer.encode(question + "\n", add_special_tokens=False)
        whole = tokenizer.encode(question + "\n" + answer, add_special_tokens=False)[:max_length]
        alone = tokenizer.encode(answer, add_special_tokens=False)[: len(whole) - len(prompt)]
        with_prompt, without = mean_loss(model, whole, len(prompt)), mean_loss(model, alone, 1)
        expected = with_prompt / without if mode == "loss" else np.exp(with_prompt) / np.exp(without)
        assert value == pytest.approx(expected, rel=1e-4)


def test_the_default_form_keeps_what_the_template_opens_an_answer_with(
    gpt2: tuple[Any, Any], tiny_folder: Path
) -> None:
    """As Cherry LLM, which leaves the words before the answer; here those of ChatML."""
    model, tokenizer = gpt2
    chatml = (tiny_folder / "chat_template.jinja").read_text()
    found = Ifd().scores(measured(gpt2, chatml), IfdOptions(), 0)
    for at, (question, answer) in enumerate(PAIRS):
        header = "<|im_start|>assistant\n"
        prompt = f"<|im_start|>user\n{question}<|im_end|>\n{header}"
        losses = []
        for before in (prompt, header):
            start = len(tokenizer.encode(before, add_special_tokens=False))
            ids = tokenizer.encode(f"{before}{answer}<|im_end|>", add_special_tokens=False)
            losses.append(mean_loss(model, ids, start))
        assert found["nll_without_prompt"][at] == pytest.approx(losses[1], rel=1e-4)
        assert found["ifd"][at] == pytest.approx(losses[0] / losses[1], rel=1e-4)


def signals_with(with_prompt: Any, alone: Any) -> Signals:
    return replace(sample_signals(nll=with_prompt), others={"free": sample_signals(nll=alone)})


def test_the_two_ratios_rank_differently() -> None:
    signals = signals_with([1.0, 4.0], [2.0, 5.5])
    loss, ppl = (Ifd().scores(signals, IfdOptions(mode=mode), 0)["ifd"] for mode in ("loss", "ppl"))
    assert loss.tolist() == [0.5, 4 / 5.5]
    assert ppl == pytest.approx(np.exp([-1.0, -1.5]))


def test_the_highest_below_one_are_kept_and_fewer_when_there_are_not_so_many() -> None:
    signals, options = signals_with([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 2.5, 3.0, 3.0, 6.0]), IfdOptions()
    scores = Ifd().scores(signals, options, 0)
    two, all_ = (Ifd().select(signals, scores, share, options, 0) for share in (0.4, 1.0))
    assert two.keep.tolist() == [False, True, False, False, True]
    assert [two.reasons[i] for i in two.reason][:3] == [
        "IFD not among the highest 40 % of those below 1",
        "IFD among the highest 40 % of those below 1",
        "IFD at least 1: the prompt does not help to predict the response",
    ]
    assert all_.keep.tolist() == [True, True, False, False, True]
    assert all_.thresholds == {"ifd_kept": 0.5, "ifd_dropped": 1.0}


def test_where_none_is_below_one_the_lowest_is_kept_and_said_so() -> None:
    signals, options = signals_with([3.0, 2.0], [1.0, 1.5]), IfdOptions()
    chosen = Ifd().select(signals, Ifd().scores(signals, options, 0), 1.0, options, 0)
    assert chosen.keep.tolist() == [False, True]
    assert chosen.reasons[chosen.reason[1]] == "IFD the lowest where none is below 1"


def test_a_response_that_is_certain_without_its_prompt_has_a_finite_score() -> None:
    zero, one = np.zeros(2), np.array([0.0, 1.0])
    assert ifd(one, zero, "loss").tolist() == [1.0, np.finfo(np.float64).max]
    assert np.isfinite(ifd(np.array([1e6]), np.zeros(1), "ppl")).all()


def test_the_order_of_the_samples_does_not_matter() -> None:
    signals, order = make_signals(50, seed=4), np.random.default_rng(0).permutation(50)
    for options in (IfdOptions(), IfdOptions(mode="ppl", without_prompt="bare")):
        kept = []
        for each in (signals, reorder(signals, order)):
            chosen = Ifd().select(each, Ifd().scores(each, options, 0), 0.3, options, 0)
            kept.append(set(each.ids[chosen.keep]))
        assert kept[0] == kept[1]
        assert len(kept[0]) == 15


def test_without_the_second_pass_the_remedy_is_named() -> None:
    with pytest.raises(ValueError, match=r"the view 'free' .* was not measured; ask for it in needs"):
        Ifd().scores(sample_signals(nll=[1.0]), IfdOptions(), 0)


def test_no_samples_are_no_error() -> None:
    signals, options = signals_with([], []), IfdOptions()
    assert len(Ifd().select(signals, Ifd().scores(signals, options, 0), 0.5, options, 0).keep) == 0
