"""The prompts that rewriting gives to teachers: one file each, as `datapruner.teacher.prompts` reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from datapruner.teacher import prompts
from datapruner.teacher.prompts import Prompt, fenced


def prompt(name: str) -> Prompt:
    """The prompt with this id, such as "dap-single@1"."""
    return prompts.prompt(__name__, name)


def text(name: str) -> str:
    """A whole file by its id, without blank ends."""
    return prompts.text(__name__, name)


def problem(messages: Sequence[Mapping[str, str]]) -> str:
    """What a response answers, fenced: a lone user turn as it is, a longer conversation with its roles."""
    if len(messages) == 1:
        return fenced("problem", messages[0]["content"])
    return fenced("problem", "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in messages))
