"""The OpenAPI document as a file: `python -m api.openapi` writes openapi.json, which is committed; a test
compares the two.
"""

from __future__ import annotations

import json
from pathlib import Path

from api.app import create_app
from datapruner.settings import Settings

FILE = Path(__file__).parents[1] / "openapi.json"


def text() -> str:
    """The document of this version, as it is committed."""
    return json.dumps(create_app(Settings()).openapi(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
