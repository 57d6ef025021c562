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

# Reasoning only of the answers after the last question, an empty block before the last one; calls as JSON
# whose arguments may be text; results in a user turn. Reasoning has a key of its own or is in the content.
QWEN3 = """\
{%- if tools -%}{{- '<|im_start|>system\\n# Tools\\n' + (tools | tojson) + '<|im_end|>\\n' -}}{%- endif -%}
{%- set ns = namespace(asked=0) -%}
{%- for m in messages -%}
{%- if m['role'] == 'user' -%}{%- set ns.asked = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for m in messages -%}
{%- if m['role'] == 'assistant' -%}
{%- set content, reasoning = m['content'], m.get('reasoning_content') or '' -%}
{%- if not reasoning and '</think>' in content -%}
{%- set reasoning = content.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}
{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if loop.index0 > ns.asked and (loop.last or reasoning) -%}
{{- '<think>\\n' + reasoning + '\\n</think>\\n\\n' -}}
{%- endif -%}
{{- content -}}
{%- for call in m.get('tool_calls', []) -%}
{{- '\\n' if content or not loop.first -}}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' -}}
{{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson -}}
{{- '}\\n</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- elif m['role'] == 'tool' -%}
{{- '<|im_start|>user\\n<tool_response>\\n' + m['content'] + '\\n</tool_response><|im_end|>\\n' -}}
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

# One instruction turn at the beginning, others are passed over; channels; a call's arguments as an object,
# the first call alone; reasoning under a key of its own, of the last answer only; results as JSON strings.
CHANNELS = """\
{%- set rest = messages -%}
{%- if messages[0]['role'] == 'system' -%}
{{- '<|start|>developer<|message|>' + messages[0]['content'] + '<|end|>' -}}{%- set rest = messages[1:] -%}
{%- endif -%}
{%- if tools -%}{{- '<|start|>tools<|message|>' -}}{%- for t in tools -%}
{{- '// ' + t.function.description + '\\ntype ' + t.function.name + ' = (' -}}
{%- for name in t.function.parameters.properties -%}{{- name + ', ' -}}{%- endfor -%}{{- ')' -}}
{%- endfor -%}{{- '<|end|>' -}}{%- endif -%}
{%- for m in rest -%}
{%- if m['role'] == 'user' -%}{{- '<|start|>user<|message|>' + m['content'] + '<|end|>' -}}
{%- elif m['role'] == 'tool' -%}
{{- '<|start|>tool to=assistant<|message|>' + (m['content'] | tojson) + '<|end|>' -}}
{%- elif m['role'] == 'assistant' and 'tool_calls' in m -%}
{{- '<|start|>assistant to=' + m.tool_calls[0].function.name + '<|message|>' -}}
{{- (m.tool_calls[0].function.arguments | tojson) + '<|call|>' -}}
{%- elif m['role'] == 'assistant' -%}
{%- if loop.last and 'thinking' in m -%}
{{- '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' -}}
{%- endif -%}
{{- '<|start|>assistant<|channel|>final<|message|>' + m['content'] + '<|end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start|>assistant' -}}{%- endif -%}
"""

# Arguments are joined as text, and null content is what tells calls from answers; only the last system turn.
JOINED_ARGUMENTS = """\
{%- set ns = namespace(system='') -%}
{%- for m in messages if m['role'] == 'system' -%}{%- set ns.system = m['content'] -%}{%- endfor -%}
{{- bos_token + ns.system -}}
{%- for m in messages -%}
{%- if m['role'] == 'user' -%}{{- '<|user|>' + m['content'] -}}
{%- elif m['role'] == 'tool' -%}{{- '<|result|>' + m['content'] -}}
{%- elif m['role'] == 'assistant' and m['content'] is none -%}
{{- '<|assistant|>' -}}
{%- for c in m['tool_calls'] -%}
{{- '<|call|>' + c['function']['name'] + '\\n' + c['function']['arguments'] -}}
{%- endfor -%}{{- eos_token -}}
{%- elif m['role'] == 'assistant' -%}{{- '<|assistant|>' + m['content'] + eos_token -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""

# Ids of nine letters and digits, tools before the last question, the system text in it while it is the last.
NINE = """\
{%- macro check(id) -%}
{%- if id is not defined or id | length != 9 -%}
{{- raise_exception('ids have nine characters') -}}
{%- endif -%}
{%- endmacro -%}
{%- set system = messages[0]['content'] + '\\n\\n' if messages[0]['role'] == 'system' else '' -%}
{%- set rest = messages[1:] if system else messages -%}
{%- set questions = rest | selectattr('role', 'equalto', 'user') | list -%}
{{- bos_token -}}
{%- for m in rest -%}
{%- if m['role'] == 'system' -%}{{- raise_exception('one system turn, at the beginning') -}}
{%- elif m['role'] == 'user' -%}
{%- if tools and m == questions[-1] -%}{{- '[TOOLS]' + (tools | tojson) + '[/TOOLS]' -}}{%- endif -%}
{{- '[INST]' + (system if loop.last else '') + m['content'] + '[/INST]' -}}
{%- elif m['role'] == 'tool' -%}
{{- check(m.tool_call_id) + '[RESULT]' + m.tool_call_id + ' ' + m['content'] -}}
{%- elif m.tool_calls is defined -%}
{{- '[CALLS]' -}}
{%- for c in m.tool_calls -%}{{- check(c.id) + (c.function | tojson) + c.id -}}{%- endfor -%}{{- eos_token -}}
{%- else -%}{{- m['content'] + eos_token -}}
{%- endif -%}
{%- endfor -%}
"""

# Tools are looked for in the system turn alone.
TOOLS_IN_SYSTEM = """\
{%- for m in messages -%}
{{- '<|' + m['role'] + '|>' + m['content'] -}}
{%- if m['role'] == 'system' and m.get('tools') -%}{{- '<|tool|>' + m['tools'] + '<|/tool|>' -}}{%- endif -%}
{{- '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- else -%}{{- eos_token -}}{%- endif -%}
"""

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
    *("<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]", "<|end|>", "<|call|>"),
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


def word_piece(template: str | None) -> Any:
    """Words cut into known pieces, what stands between them in no token, unknown words as one token."""
    backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["<unk>"], show_progress=False)
    backend.train_from_iterator(_TEXT, trainer)
    return _wrap(backend, template)


def unigram(template: str | None) -> Any:
    """Likeliest pieces of words with a marked space in front."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trainer = trainers.UnigramTrainer(
        vocab_size=120, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    backend.train_from_iterator(_TEXT, trainer)
    return _wrap(backend, template)
