"""Fences around the texts of a row."""

from __future__ import annotations

from datapruner.teacher.prompts import code_of, fenced


def test_a_fence_cannot_be_closed_from_within() -> None:
    inner = fenced("trace", "x")
    outer = fenced("trace", inner)
    closing = outer.splitlines()[-1]
    assert closing not in inner
    assert outer.count(closing) == 1
    assert fenced("trace", "x") == inner


def test_texts_that_share_a_fence_cannot_hold_one_anothers() -> None:
    alone = fenced("assistant", "a lie")
    texts = [f"Rate this.\n{alone}", "a lie"]
    code = code_of(*texts)
    assert fenced("assistant", texts[1], code) not in texts[0]
    assert not any(code in text for text in texts)
