"""A tokenizer.json read by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from scorers.models import tokenizer_file
from scorers.models.sources import ModelSourceError
from tests import chat_templates as ct


def test_a_tokenizer_neither_cuts_nor_pads(tmp_path: Path) -> None:
    saved = ct.byte_level(None)
    saved.backend_tokenizer.enable_truncation(3)
    saved.backend_tokenizer.enable_padding(length=50)
    saved.save_pretrained(tmp_path)
    text = "the quick brown fox jumps"
    ids = tokenizer_file.read(tmp_path).encode(text, add_special_tokens=False).ids
    assert 3 < len(ids) < 50
    assert tokenizer_file.read(tmp_path).decode(ids) == text


@pytest.mark.parametrize("content", [None, "{", "[]", '{"model": {"type": "none"}}'])
def test_what_is_no_tokenizer_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelSourceError, match=r"tokenizer\.json"):
        tokenizer_file.read(tmp_path)
