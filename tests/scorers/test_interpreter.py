"""Processes of ours take no modules from the working directory: tests/test_safe_names.py shows it at work."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.compose import ROOT


def _starts(path: Path) -> Iterator[list[ast.expr]]:
    """The lists in a file that begin with this Python: commands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.List | ast.Tuple)
            and node.elts
            and ast.unparse(node.elts[0]) == "sys.executable"
        ):
            yield node.elts


def test_no_command_of_ours_begins_with_python_alone() -> None:
    """-I, of the SQL processes, leaves out the working directory as well."""
    found = {
        f"{path.relative_to(ROOT)}:{command[0].lineno}": [ast.unparse(option) for option in command[1:2]]
        for package in ("api", "datapruner", "migrations", "scorers")
        for path in sorted((ROOT / package).rglob("*.py"))
        for command in _starts(path)
    }
    assert any(name.startswith("scorers/interpreter.py:") for name in found)
    assert [name for name, option in found.items() if option not in (["'-P'"], ["'-I'"])] == []
