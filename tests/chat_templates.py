"""Chat templates in the manner of well-known model families, and small tokenizers to run them with."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CHATML = """\
{%- for m in messages -%}
{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""

CHATML_MARKED = """\
{%- for m in messages -%}
{{ '<|im_start|>' + m['role'] + '\\n' }}
{%- if m['role'] == 'assistant' -%}
{%- generation -%}{{ m['content'] + '<|im_end|>' }}{%- endgeneration -%}
{%- else -%}{{ m['content'] + '<|im_end|>' }}{%- endif -%}
{{ '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""

# Trims every content, and writes today's date.
LLAMA3 = """\
{{- bos_token + '<|start_header_id|>system<|end_header_id|>\\n\\n' -}}
{{- 'Today: ' + strftime_now('%d %b %Y') + '<|eot_id|>' -}}
{%- for m in messages -%}
{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}
"""

# No system role, another name for the assistant, strict alternation.
GEMMA = """\
{{- bos_token -}}
{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('System role not supported') }}{%- endif -%}
{%- for m in messages -%}
{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('Conversation roles must alternate') }}
{%- endif -%}
{{- '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' -}}
{{- m['content'] | trim + '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
"""

# The last answer is written with its reasoning (an empty block if it has none), earlier ones without.
QWEN3 = """\
{%- if tools -%}{{- '<|im_start|>system\\n# Tools\\n' + (tools | tojson) + '<|im_end|>\\n' -}}{%- endif -%}
{%- for m in messages -%}
{%- if m['role'] == 'assistant' -%}
{%- set content, reasoning = m['content'], '' -%}
{%- if '</think>' in content -%}
{%- set reasoning = content.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}
{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if loop.last -%}{{- '<think>\\n' + reasoning + '\\n</think>\\n\\n' -}}{%- endif -%}
{{- content -}}
{%- for call in m.get('tool_calls', []) -%}
{{- '\\n<tool_call>\\n' + (call.function | tojson) + '\\n</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- else -%}{{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""

# A space before every answer, its content trimmed, end-of-text directly after.
MISTRAL = """\
{{- bos_token -}}
{%- for m in messages -%}
{%- if m['role'] == 'assistant' -%}{{- ' ' + m['content'] | trim + eos_token -}}
{%- else -%}{{- '[INST] ' + m['content'] + ' [/INST]' -}}{%- endif -%}
{%- endfor -%}
"""

# Closes only the last answer.
END_AT_LAST = """\
{%- for m in messages -%}
{{- m['role'] + ': ' + m['content'] + (eos_token if loop.last and m['role'] == 'assistant' else '\\n') -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'assistant: ' -}}{%- endif -%}
"""

# Prompts for an answer with words that it never writes before one.
PRIMED = CHATML.replace(
    "'<|im_start|>assistant\\n' }}{%- endif", "'<|im_start|>assistant\\n<think>\\n' }}{%- endif"
)

ALL = {
    "chatml": CHATML,
    "chatml-marked": CHATML_MARKED,
    "llama3": LLAMA3,
    "gemma": GEMMA,
    "qwen3": QWEN3,
    "mistral": MISTRAL,
    "end-at-last": END_AT_LAST,
    "none": None,
}

SPECIAL = [
    *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]"),
]
_TEXT = [
    "the quick brown fox jumps over the lazy dog",
    "user assistant system model answer think \n\n",
    "0123456789",
]


def _wrap(backend: Tokenizer, template: str | None) -> Any:
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, chat_template=template, bos_token="<s>", eos_token="</s>"
    )


def byte_level(template: str | None, *, trim_offsets: bool = False, bos: bool = False) -> Any:
    """Byte-level BPE; with `trim_offsets` a post-processor hides leading spaces, as GPT-2's does."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(_TEXT, trainer)
    wrapped = _wrap(backend, template)
    if trim_offsets:
        wrapped.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    if bos:
        start = [("<s>", wrapped.convert_tokens_to_ids("<s>"))]
        wrapped.backend_tokenizer.post_processor = processors.TemplateProcessing(
            "<s> $A", special_tokens=start
        )
    return wrapped


def sentencepiece_like(template: str | None) -> Any:
    """BPE over words with a marked space in front, unknown characters falling back to bytes."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False)
    backend.train_from_iterator(_TEXT, trainer)
    learned = json.loads(backend.to_str())["model"]
    vocabulary = dict(learned["vocab"])
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    vocabulary["<unk>"] = len(vocabulary)
    merges = [tuple(merge) for merge in learned["merges"]]
    full = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    full.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    full.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _wrap(full, template)
