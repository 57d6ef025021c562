"""The prompts that teachers are given: one file each, named and versioned, with the row's text fenced in.

A file is the system message, a line of three hyphens, and the user message. `$name` stands for what the
caller fills in. Answers are stored under the prompt's id, `dap-single@1` for the file `dap-single.v1.md`.

Notable choices:
- a published version never changes: other wording is another version;
- text of a row is put between tags that carry a digest of that very text. No text can hold its own digest, so
  none can end its fence early, and the same row always makes the same request;
- filling in is a single pass: a `$trace` inside a row stays what it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template

_USER = "\n---\n"


@dataclass(frozen=True, slots=True)
class Prompt:
    """The two messages of a prompt before anything is filled in."""

    system: str
    user: str

    def messages(self, **texts: str) -> list[dict[str, str]]:
        """The two messages with every `$name` filled in. Raises KeyError when one has no text."""
        return [
            {"role": "system", "content": Template(self.system).substitute(texts)},
            {"role": "user", "content": Template(self.user).substitute(texts)},
        ]


@cache
def prompt(name: str) -> Prompt:
    """The prompt with this id, such as "dap-single@1"."""
    system, user = text(name).split(_USER)
    return Prompt(system, user)


@cache
def text(name: str) -> str:
    """A whole file by its id, without blank ends."""
    return files(__name__).joinpath(name.replace("@", ".v") + ".md").read_text(encoding="utf-8").strip()


def problem(messages: Sequence[Mapping[str, str]]) -> str:
    """What a response answers, fenced: a lone user turn as it is, a longer conversation with its roles."""
    if len(messages) == 1:
        return fenced("problem", messages[0]["content"])
    return fenced("problem", "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in messages))


def fenced(label: str, content: str) -> str:
    """`content` between two tags that it cannot hold."""
    code = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"<{label}-{code}>\n{content}\n</{label}-{code}>"
