"""What becomes of one raw row: a sample or a rejection."""

from __future__ import annotations

from typing import Any

from datapruner.input.shapes import Limits, Rejection, RowParser, Sample

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def sample(row: Any, mapping: dict[str, str] | None = None) -> Sample:
    result = RowParser(mapping).parse(row)
    assert isinstance(result, Sample), result
    return result


def rejection(row: Any, mapping: dict[str, str] | None = None, limits: Limits | None = None) -> Rejection:
    result = RowParser(mapping, limits or Limits()).parse(row)
    assert isinstance(result, Rejection), result
    return result


def texts(row: Any, mapping: dict[str, str] | None = None) -> list[tuple[str, str]]:
    return [(role, content) for role, content, _ in sample(row, mapping).turns]
