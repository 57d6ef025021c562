"""GGUF file -> a folder with config, safetensors and tokenizer, for the rest of the package to load.

Run as `python -m scorers.models.convert FILE.gguf FOLDER`, so that the caller never imports torch.

Notable choices:
- weights are stored in float32: a dequantised value is scale * q + offset, which neither half format
  holds exactly (211 of the 272 tensors of SmolLM2-135M change in float16);
- the tokenizer is built here from the GGUF's own vocabulary, because how text is cut before BPE is not in
  the file, only its name (`tokenizer.ggml.pre`), and a wrong cut gives other tokens without any error.
  Names whose published rule is known are in PRE_TOKENIZERS; any other is refused;
- a `tokenizer.json` beside the GGUF wins over all that, once its vocabulary is seen to be the same.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scorers.models.sources import ModelSourceError

_GPT2_SPLIT = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_BYTES_ONLY = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def _split(digits: str) -> dict[str, Any]:
    """The pre-tokenizer that Llama 3 and Qwen 2 share but for how many digits go together."""
    regex = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    first = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [first, _BYTES_ONLY]}


_SMOLLM: dict[str, Any] = {
    "pre_tokenizer": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, _GPT2_SPLIT],
    }
}
_LLAMA3: dict[str, Any] = {"pre_tokenizer": _split(r"\p{N}{1,3}"), "ignore_merges": True}

# tokenizer.ggml.pre -> the parts of the published tokenizer.json that a GGUF leaves out.
PRE_TOKENIZERS: Mapping[str, Mapping[str, Any]] = {
    "gpt-2": {"pre_tokenizer": _GPT2_SPLIT},
    "smollm": _SMOLLM,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": {"pre_tokenizer": _split(r"\p{N}"), "normalizer": {"type": "NFC"}},
}

_CONTROL, _USER_DEFINED = 3, 4  # GGUF token types that are matched whole, before any cutting


def read_metadata(gguf: Path) -> dict[str, Any]:
    """The key-value part of a GGUF file. Raises ModelSourceError when it is not one."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(gguf)
    except (ValueError, OSError, IndexError) as error:
        raise ModelSourceError(f"{gguf} cannot be read as GGUF: {error}") from error
    return {name: field.contents() for name, field in reader.fields.items()}


def tokenizer_json(metadata: Mapping[str, Any]) -> str:
    """The `tokenizer.json` that a byte-level BPE GGUF describes.

    Raises ModelSourceError for another kind of vocabulary or an unknown pre-tokenizer.
    """
    kind, pre = metadata.get("tokenizer.ggml.model"), str(metadata.get("tokenizer.ggml.pre"))
    if kind != "gpt2" or pre not in PRE_TOKENIZERS:
        raise ModelSourceError(
            f"the GGUF's tokenizer is {kind!r} with pre-tokenizer {pre!r}, whose exact rule is not known",
            remedy="put the model's own tokenizer.json in the same folder as the .gguf file; "
            f"without one, 'gpt2' with any of {', '.join(PRE_TOKENIZERS)} works",
        )
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    types: list[int] = metadata.get("tokenizer.ggml.token_type", [])
    rules = PRE_TOKENIZERS[pre]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": index, "content": token, **flags, "special": token_type == _CONTROL}
        for index, (token, token_type) in enumerate(zip(tokens, types, strict=False))
        if token_type in (_CONTROL, _USER_DEFINED)
    ]
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": rules.get("normalizer"),
            "pre_tokenizer": rules["pre_tokenizer"],
            "post_processor": None,
            "decoder": {
                "type": "ByteLevel",
                "add_prefix_space": True,
                "trim_offsets": True,
                "use_regex": True,
            },
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": "",
                "end_of_word_suffix": "",
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": rules.get("ignore_merges", False),
                "vocab": {token: index for index, token in enumerate(tokens)},
                "merges": [merge.split(" ") for merge in metadata["tokenizer.ggml.merges"]],
            },
        },
        ensure_ascii=False,
    )


def load_tokenizer(gguf: Path) -> Any:
    """A fast tokenizer for a GGUF file, with its special tokens and chat template.

    Raises ModelSourceError when it cannot be built with certainty.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    metadata = read_metadata(gguf)
    tokens: list[str] = metadata.get("tokenizer.ggml.tokens", [])
    beside = gguf.parent / "tokenizer.json"
    text = beside.read_text(encoding="utf-8") if beside.is_file() else tokenizer_json(metadata)
    backend = Tokenizer.from_str(text)
    differing = next((i for i, token in enumerate(tokens) if backend.id_to_token(i) != token), None)
    if differing is not None:
        raise ModelSourceError(
            f"{beside} is not the tokenizer of {gguf.name}: token {differing} is "
            f"{backend.id_to_token(differing)!r} in one and {tokens[differing]!r} in the other",
            remedy="move one of them to another folder",
        )
    special = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        index = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if index is not None:
            special[f"{name}_token"] = tokens[index]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=metadata.get("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        **special,
    )


def convert(gguf: Path, folder: Path) -> None:
    """Write `gguf` to `folder` as config.json, float32 safetensors, tokenizer and a short README.md.

    Raises ModelSourceError when the tokenizer or the architecture is not supported.
    """
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    tokenizer = load_tokenizer(gguf)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
    except (ValueError, KeyError, NotImplementedError) as error:
        raise ModelSourceError(f"transformers cannot load {gguf}: {error}") from error
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    licence = read_metadata(gguf).get("general.license", "not stated")
    note = (
        f"---\nlicense: {licence}\n---\nConverted from the GGUF file {gguf.name}, dequantised to float32.\n"
    )
    (folder / "README.md").write_text(note, encoding="utf-8")


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: python -m scorers.models.convert FILE.gguf FOLDER", file=sys.stderr)
        return 2
    try:
        convert(Path(arguments[0]), Path(arguments[1]))
    except ModelSourceError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
