"""Prompts as files: named, versioned, with the text of a row fenced in.

A file is the system message, a line of three hyphens, and the user message. `$name` stands for what the
caller fills in. Answers are stored under the prompt's id, `dap-single@1` for the file `dap-single.v1.md`.

Notable choices:
- a published version never changes: other wording is another version;
- text of a row is put between tags that carry a digest of that very text. No text can hold its own digest, so
  none can end its fence early, and the same row always makes the same request. Where several texts of a row
  stand in one prompt, the digest may be of all of them together: else one could hold the fence of another;
- filling in is a single pass: a `$trace` inside a row stays what it is.
"""

from __future__ import annotations

import hashlib
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
def prompt(package: str, name: str) -> Prompt:
    """The prompt with this id, such as "dap-single@1", among the files of a package."""
    system, user = text(package, name).split(_USER)
    return Prompt(system, user)


@cache
def text(package: str, name: str) -> str:
    """A whole file by its id, without blank ends."""
    return files(package).joinpath(name.replace("@", ".v") + ".md").read_text(encoding="utf-8").strip()


def code_of(*contents: str) -> str:
    """A code that none of these texts can hold, for the tags around them."""
    return hashlib.sha256("\0".join(contents).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def fenced(label: str, content: str, code: str | None = None) -> str:
    """`content` between two tags that it cannot hold, by default with the code of this content alone."""
    code = code or code_of(content)
    return f"<{label}-{code}>\n{content}\n</{label}-{code}>"
