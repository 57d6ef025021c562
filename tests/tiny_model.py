"""A proxy model small enough to measure with in milliseconds, and a corpus with a bit of everything in it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.chat_templates import CHATML, LLAMA3, word_piece

POSITIONS = 192
"""The longest sequence that the model allows: what a row of more tokens is cut to."""

FACTS = [
    ("Name a colour.", "Blue."),
    ("Name two rivers.", "The Rhine and the Nile."),
    ("What is 7 times 6?", "7 times 6 is 42."),
    ("Say hello in French.", "Bonjour!"),
    ("Who wrote Faust?", "Johann Wolfgang von Goethe wrote it over some sixty years."),
    (
        "Why is the sky blue?",
        "Air scatters short waves more than long ones, so blue light comes from all sides.",
    ),
    ("Give me one letter.", "x"),
    ("Translate 'thank you' into Japanese.", "ありがとう 🙏"),
    ("List three fruits.", "- apple\n- pear\n- plum\n"),
    ("Write code that adds two numbers.", "def add(a, b):\n    return a + b"),
    ("What is the capital of Peru?", "Lima"),
    ("Explain rain.", "Water rises as vapour, cools, and falls again in drops."),
    ("Sort: 3, 1, 2", "1, 2, 3"),
    ("Is the earth flat?", "No. It is very nearly a sphere."),
    ("Give a synonym of 'fast'.", "quick"),
    ("Finish: to be or not to be,", "that is the question."),
    ("What do bees make?", "Honey, and wax for the cells that hold it."),
    ("Convert 2 km to metres.", "2 km are 2000 m."),
    ("Name a prime above 10.", "11"),
    ("Write a haiku about snow.", "Snow on the dark pines\nand under it the river\nkeeps its one secret"),
]

LINES = [
    *(
        {"instruction": question, "input": "", "output": answer, "id": i}
        for i, (question, answer) in enumerate(FACTS)
    ),
    {
        "instruction": "Who wrote Faust?",
        "input": "",
        "output": FACTS[4][1],
        "id": 20,
        "keep": "a copy of row 4",
    },
    {"instruction": "Who wrote Faust?", "output": FACTS[4][1], "id": 21},
    {"instruction": "An empty answer.", "input": "", "output": "", "id": 22},
    {"instruction": "No answer.", "input": "", "output": None, "id": 23},
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "What is two plus two?"},
            {"role": "assistant", "content": "Four."},
            {"role": "user", "content": "And squared?"},
            {"role": "assistant", "content": "Sixteen, which is four times four."},
        ],
        "id": 24,
    },
    {
        "conversations": [
            {"from": "human", "value": "Tell a joke."},
            {"from": "gpt", "value": "Why did the hen cross the road?"},
            {"from": "human", "value": "I don't know."},
            {"from": "gpt", "value": "To get to the other side."},
        ],
        "id": 25,
    },
    {"instruction": "Count to two hundred.", "output": " ".join(map(str, range(1, 201))), "id": 26},
    {"instruction": "Summarise. " + "All work and no play. " * 80, "output": "Dull.", "id": 27},
    {"instruction": "Summarise. " + "All work and no play. " * 80, "output": "Dull.", "id": 28},
    "{ this is no JSON",
    {"instruction": "Name the days of the weekend.", "input": "", "output": "Saturday and Sunday.", "id": 30},
]
"""Rows of a JSON lines file. By row number: 20 and 21 copy 4, 22, 23 and 29 are rejected, 24 and 25 have
several turns, 26 is cut to the model's length, 27 has no response left after that, and 28 copies 27."""

REJECTED, COPIES, CUT, TOO_LONG = (22, 23, 29), {20: 4, 21: 4, 28: 27}, 26, (27, 28)
MEASURED = [row for row in range(len(LINES)) if row not in {*REJECTED, *COPIES, *TOO_LONG}]


def text_of(line: Any) -> str:
    """A line of the file as it is written."""
    return line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)


def write_corpus(path: Path) -> Path:
    path.write_text("\n".join(map(text_of, LINES)) + "\n", encoding="utf-8")
    return path


def messages_of(line: dict[str, Any]) -> list[dict[str, str]]:
    """The chat that a sound line stands for."""
    if "messages" in line:
        messages: list[dict[str, str]] = line["messages"]
        return messages
    if "conversations" in line:
        roles = {"human": "user", "gpt": "assistant"}
        return [{"role": roles[m["from"]], "content": m["value"]} for m in line["conversations"]]
    return [
        {"role": "user", "content": line["instruction"]},
        {"role": "assistant", "content": line["output"]},
    ]


def save_tiny_model(folder: Path, *, seed: int = 7) -> Path:
    """A random Llama with tied embeddings, a byte-level BPE tokenizer and a ChatML template."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    backend.train_from_iterator([text for pair in FACTS for text in pair] * 3, trainer)
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=CHATML,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        additional_special_tokens=special,
    )
    config = tf.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    model = tf.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def with_other_tokens(folder: Path, template: str = LLAMA3) -> Path:
    """A model with larger tokens for words, and another template."""
    tokenizer = word_piece(template)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = tf.LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=4096, num_key_value_heads=2, **sizes
    )
    tf.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def teach(folder: Path, texts: list[str], *, positions: int, steps: int = 60) -> Path:
    """Train a tiny model on texts for a moment, and let it read `positions` tokens: it is surprised far less
    than by chance, as real models are."""
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    model = tf.LlamaForCausalLM.from_pretrained(folder, max_position_embeddings=positions)
    tokenizer.model_max_length = positions
    torch.manual_seed(1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(steps):
        some = [texts[(step * 8 + at) % len(texts)] for at in range(8)]
        batch = tokenizer(some, return_tensors="pt", padding=True, truncation=True, max_length=128)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(**batch, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rendered(tokenizer: Any, messages: list[dict[str, str]]) -> tuple[list[int], list[int]]:
    """Token ids of a chat and the positions of its response tokens, by looking for characters."""
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    spans = [m.span(1) for m in re.finditer(r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)", text, re.DOTALL)]
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = encoded["input_ids"][:POSITIONS]
    response = [
        position
        for position, (start, stop) in enumerate(encoded["offset_mapping"][:POSITIONS])
        if any(start < end and stop > begin for begin, end in spans)
    ]
    return ids, response
