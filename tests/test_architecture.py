"""The map of the project names every room, in the order that the contracts hold them to."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
MAP = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def _rooms() -> list[str]:
    """Each package of ours, and each module that lies beside packages."""
    found = ["api/", "migrations/"]
    for package in ("datapruner", "scorers"):
        inside = [path for path in sorted((ROOT / package).iterdir()) if not path.name.startswith("__")]
        found += [f"{package}/{path.name}/" for path in inside if (path / "__init__.py").is_file()]
        found += [f"{package}/{path.name}" for path in inside if path.suffix == ".py"]
    return found


def _contracts() -> list[dict[str, Any]]:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts: list[dict[str, Any]] = document["tool"]["importlinter"]["contracts"]
    return contracts


@pytest.mark.parametrize("room", _rooms())
def test_every_room_is_on_the_map(room: str) -> None:
    loose = room.rpartition("/")[2]
    assert f"`{room}`" in MAP or (loose and f"`{loose}`" in MAP)


def test_every_file_and_folder_on_the_map_is_there() -> None:
    named = re.findall(r"`((?:api|datapruner|scorers|input|corpora|runs|service|curation)/[\w/.]*)`", MAP)
    missing = [
        name
        for name in named
        if not any(
            (base / name).exists() or (base / f"{name}.py").exists() for base in (ROOT, ROOT / "datapruner")
        )
    ]
    assert named
    assert missing == []


def test_the_rooms_of_the_map_stand_in_the_order_of_the_contracts() -> None:
    [layers] = [
        each["layers"]
        for each in _contracts()
        if each["type"] == "layers" and each.get("containers") == ["datapruner"]
    ]
    height = {room.strip(): floor for floor, line in enumerate(layers) for room in re.split(r"[|:]", line)}
    order = [height[room] for room in re.findall(r"^\| `datapruner/(\w+)(?:/|\.py)`", MAP, re.M)]
    assert len(order) > 10
    assert order == sorted(order)


def test_no_line_of_the_map_asks_for_more_than_a_page() -> None:
    assert len(MAP.splitlines()) <= 90
