"""GGUF files become folders that load, with the tokenizer of the model they came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from scorers.models import convert, sources
from scorers.models.sources import ModelSourceError

DATA = Path(__file__).parents[3] / ".." / "shared" / "data"
WIDTH = 32
ODD_TEXTS = [
    "",
    "\n\n1.",
    "In 1999, 3.14159 and 10,000,000 and ٣٤٥ and ½ and Ⅻ",
    "  leading, trailing  \t\n\r\n",
    "Ωμέγα 日本語 🙂👩‍👩‍👧 e\u0301 \u00a0 \u200b \ufeff",
    "it's I'LL they'VE <|im_start|>user<|im_end|> <repo_name><|im_endx",
    "def f(x):\n\treturn x**2  # 42\n" * 3,
]


def byte_level_metadata(pre: str) -> dict[str, Any]:
    """A vocabulary of the 256 bytes, one merge and two added tokens."""
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = ["<|end|>", *sorted(ByteLevel.alphabet()), "ab", "<think>"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, *[1] * 257, 4],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.eos_token_id": 0,
    }


def write_gguf(path: Path, pre: str = "gpt-2") -> dict[str, np.ndarray[Any, Any]]:
    """A random Llama of one layer; returns its tensors."""
    metadata = byte_level_metadata(pre)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_license("mit")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(metadata["tokenizer.ggml.tokens"]))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(metadata["tokenizer.ggml.tokens"])
    writer.add_token_types(metadata["tokenizer.ggml.token_type"])
    writer.add_token_merges(metadata["tokenizer.ggml.merges"])
    writer.add_eos_token_id(0)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    shapes = {
        "token_embd": (len(metadata["tokenizer.ggml.tokens"]), WIDTH),
        **{f"blk.0.attn_{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")},
        **{f"blk.0.ffn_{name}": (2 * WIDTH, WIDTH) for name in ("gate", "up")},
        "blk.0.ffn_down": (WIDTH, 2 * WIDTH),
        **dict.fromkeys(("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"), (WIDTH,)),
    }
    generator = np.random.default_rng(0)
    tensors = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def pieces(pre: str, text: str) -> list[str]:
    """How a pre-tokenizer cuts a text."""
    tokenizer = Tokenizer.from_str(convert.tokenizer_json(byte_level_metadata(pre)))
    return [text[a:b] for _, (a, b) in tokenizer.pre_tokenizer.pre_tokenize_str(text)]


@pytest.fixture(scope="module")
def reference() -> Tokenizer:
    path = DATA / "models/smollm2-135m-instruct-tokenizer.json"
    if not path.exists():
        pytest.skip(f"needs {path}")
    return Tokenizer.from_file(str(path))


@pytest.fixture(scope="module")
def converted(smollm2: Path) -> Tokenizer:
    return Tokenizer.from_file(str(smollm2 / "tokenizer.json"))


def test_smollm2_cuts_text_as_its_published_tokenizer_does(
    converted: Tokenizer, reference: Tokenizer
) -> None:
    ours, theirs = (json.loads(tokenizer.to_str()) for tokenizer in (converted, reference))
    for part in ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model"):
        assert ours[part] == theirs[part], part


def test_smollm2_gives_odd_texts_the_published_token_ids(converted: Tokenizer, reference: Tokenizer) -> None:
    for text in ODD_TEXTS:
        assert converted.encode(text).ids == reference.encode(text).ids, text


@pytest.mark.parametrize(
    ("file", "column"),
    [
        ("alpaca/alpaca_52k", "output"),
        ("longcot/mip_reasoning_models", "thinking"),
        ("code/code_alpaca_2k", "output"),
    ],
)
def test_smollm2_gives_real_texts_the_published_token_ids(
    converted: Tokenizer, reference: Tokenizer, file: str, column: str
) -> None:
    path = DATA / f"{file}.parquet"
    if not path.exists():
        pytest.skip(f"needs {path}")
    found = pl.read_parquet(path, columns=[column], n_rows=300)[column]
    texts = found.drop_nulls().str.head(3000).to_list()
    ours, theirs = (tokenizer.encode_batch(texts) for tokenizer in (converted, reference))
    assert [encoding.ids for encoding in ours] == [encoding.ids for encoding in theirs]


def test_digits_go_together_as_each_family_was_trained() -> None:
    assert pieces("smollm", "a 1234") == ["a", " ", "1", "2", "3", "4"]
    assert pieces("gpt-2", "a 1234") == ["a", " 1234"]
    assert pieces("llama-bpe", "a 1234") == ["a", " ", "123", "4"]
    assert pieces("qwen2", "a 1234") == ["a", " ", "1", "2", "3", "4"]


def test_the_qwen2_rule_is_the_one_transformers_ships() -> None:
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    rule = convert.PRE_TOKENIZERS["qwen2"]["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    assert rule == PRETOKENIZE_REGEX


def test_control_tokens_are_special_and_user_defined_ones_only_whole() -> None:
    tokenizer = Tokenizer.from_str(convert.tokenizer_json(byte_level_metadata("gpt-2")))
    assert tokenizer.encode("<|end|><think>").ids == [0, 258]
    special = {index: token.special for index, token in tokenizer.get_added_tokens_decoder().items()}
    assert special == {0: True, 258: False}


@pytest.mark.parametrize(
    "changed",
    [{"tokenizer.ggml.pre": "default"}, {"tokenizer.ggml.pre": None}, {"tokenizer.ggml.model": "llama"}],
)
def test_a_tokenizer_whose_rule_is_unknown_is_refused_with_a_remedy(changed: dict[str, Any]) -> None:
    with pytest.raises(ModelSourceError, match=r"put the model's own tokenizer\.json in the same folder"):
        convert.tokenizer_json({**byte_level_metadata("gpt-2"), **changed})


def test_a_tokenizer_beside_the_file_is_used_if_it_is_the_same_vocabulary(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", pre="unheard-of")
    beside = tmp_path / "tokenizer.json"
    beside.write_text(convert.tokenizer_json(byte_level_metadata("smollm")))
    assert convert.load_tokenizer(tmp_path / "m.gguf").eos_token == "<|end|>"
    other = byte_level_metadata("smollm")
    other["tokenizer.ggml.tokens"] = other["tokenizer.ggml.tokens"][::-1]
    beside.write_text(convert.tokenizer_json(other))
    with pytest.raises(
        ModelSourceError, match=r"tokenizer\.json is not the tokenizer of m\.gguf: token 0 is"
    ):
        convert.load_tokenizer(tmp_path / "m.gguf")


def test_a_file_that_is_not_gguf_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"not a model, but some bytes")
    with pytest.raises(ModelSourceError, match=r"m\.gguf cannot be read as GGUF"):
        convert.read_metadata(path)


@pytest.mark.slow
def test_a_gguf_file_resolves_to_a_folder_with_its_weights(tmp_path: Path) -> None:
    tensors = write_gguf(tmp_path / "tiny.gguf")
    found = sources.resolve(str(tmp_path / "tiny.gguf"), tmp_path / "home")
    assert found.path.parent == tmp_path / "home" / "models"
    assert (found.path / "README.md").read_text().startswith("---\nlicense: mit\n---\n")
    weights = load_file(found.path / "model.safetensors")
    assert (weights["model.embed_tokens.weight"] == tensors["token_embd"]).all()
    assert (weights["model.layers.0.mlp.down_proj.weight"] == tensors["blk.0.ffn_down"]).all()
    assert (found.path / "chat_template.jinja").read_text() == "{{ messages[0]['content'] }}"
    written = (found.path / "model.safetensors").stat().st_mtime_ns
    assert sources.resolve(str(tmp_path / "tiny.gguf"), tmp_path / "home") == found
    assert (found.path / "model.safetensors").stat().st_mtime_ns == written


@pytest.mark.slow
def test_a_failed_conversion_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", pre="unheard-of")
    with pytest.raises(ModelSourceError, match=r"tiny\.gguf could not be converted.*'unheard-of'"):
        sources.resolve(str(tmp_path / "tiny.gguf"), tmp_path / "home")
    assert not [path for path in (tmp_path / "home" / "models").iterdir() if path.is_dir()]
