"""A nested document as a list of names and values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def flat(document: dict[str, Any], under: str = "") -> Iterator[tuple[str, str]]:
    """Every value of a nested document under its path."""
    for name, value in document.items():
        path = f"{under}.{name}" if under else str(name)
        if isinstance(value, dict) and value:
            yield from flat(value, path)
        else:
            yield path, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
