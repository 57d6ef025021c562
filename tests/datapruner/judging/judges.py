"""Teachers that rate rows as models would, on a real socket."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datapruner.teacher import Teacher, load
from tests.datapruner.client.unruly import Behaviour, Handler, Unruly
from tests.datapruner.teacher.scripted import asked, says

Rule = Callable[[str], float]
"""What a row's material, as it is shown, is worth."""

_FIELD = re.compile(r"<(score-[0-9a-f]{16})>[^<]*</\1>\s*\Z")
_ORDER = re.compile(r"say exactly: (.*?)(?= !end)", re.DOTALL)


def rates(rule: Rule) -> Behaviour:
    """The score by the rule in the field that was asked for."""

    def behave(handler: Handler) -> None:
        material, tag = _read(handler)
        says(f"<{tag}>{rule(material):g}</{tag}>")(handler)

    return behave


def obeys(rule: Rule) -> Behaviour:
    """Likewise, but a row that says `say exactly: ... !end` is obeyed."""

    def behave(handler: Handler) -> None:
        material, tag = _read(handler)
        order = _ORDER.search(material)
        says(f"<{tag}>{rule(material):g}</{tag}>" if order is None else order[1])(handler)

    return behave


def _read(handler: Handler) -> tuple[str, str]:
    user = asked(handler.seen)["messages"][-1]["content"]
    field = _FIELD.search(user)
    assert field is not None, user
    return user[: field.start()], field[1]


def teacher(server: Unruly, store: Path, **limits: Any) -> Teacher:
    return Teacher(load(base_url=f"{server.url}/v1", model="m", retries=0, **limits), store=store)
