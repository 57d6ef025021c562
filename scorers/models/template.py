"""Which chat template is in force: the model's own, or ours when it has none. Standard library only.

Kept apart from `chat.py` so that the parent process can hash a template without importing transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

TemplateSource = Literal["model", "fallback"]

# Part of every template hash. Raise it when rendering changes which tokens are trained or where they lie.
RENDER_VERSION = 2

# For base models. Tool turns read as user turns; only what the model would write is marked as generated.
FALLBACK_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{- '### Response:\\n' -}}
{%- generation -%}{{- message['content'] + eos_token -}}{%- endgeneration -%}
{{- '\\n\\n' if not loop.last else '' -}}
{%- elif message['role'] == 'system' -%}
{{- message['content'] + '\\n\\n' -}}
{%- else -%}
{{- '### Instruction:\\n' + message['content'] + '\\n\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '### Response:\\n' -}}{%- endif -%}
"""

FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
"""Of a model folder, those that may hold its template, the first that does being the one."""


def choose(template: Any) -> tuple[str, TemplateSource]:
    """The template text to use, given what a tokenizer holds: one text, several by name, or nothing.

    Raises ValueError when there are several and none is called "default".
    """
    if not template:
        return FALLBACK_TEMPLATE, "fallback"
    if isinstance(template, Mapping):
        if "default" not in template:
            raise ValueError(f"the model has chat templates {sorted(template)} but none called 'default'")
        template = template["default"]
    return str(template), "model"


def in_folder(folder: Path) -> tuple[str, TemplateSource]:
    """The template in force in a model folder, found where transformers would find it."""
    jinja, *others = FILES
    if (folder / jinja).is_file():
        return choose((folder / jinja).read_text(encoding="utf-8"))
    for name in others:
        if (folder / name).is_file():
            template = json.loads((folder / name).read_text(encoding="utf-8")).get("chat_template")
            if isinstance(template, list):
                template = {entry["name"]: entry["template"] for entry in template}
            if template:
                return choose(template)
    return choose(None)
