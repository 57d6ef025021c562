"""Trained tokens of rewritten texts, counted as measuring would count them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from datapruner.corpora.corpus import Corpus
from datapruner.corpora.ingest import ingest
from datapruner.errors import ModelError
from datapruner.rewriting.counting import counted, renderer
from datapruner.rewriting.outcomes import Rewritten
from datapruner.rewriting.tables import line
from scorers.models.sources import ProxyFolder

ROWS = [
    {"prompt": "Why?", "completion": "<think>\nOne.\n\nTwo.\n</think>\nBlue."},
    {"prompt": "Who?", "completion": "I."},
    {"prompt": "How?", "completion": "<think>\nThree.\n\nFour.\n</think>\nSo."},
]


def of(folder: Path) -> ProxyFolder:
    return ProxyFolder(folder, revision="", template_hash="", source="")


def test_each_new_text_is_counted_and_one_that_cannot_be_rendered_is_an_error_of_its_row(
    tiny_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    template = AutoTokenizer.from_pretrained(folder).chat_template
    refusal = "{% if 'Four' in messages[-1]['content'] %}{{ raise_exception('no fours') }}{% endif %}"
    (folder / "chat_template.jinja").write_text(refusal + template)
    ingest(ROWS, out=tmp_path / "corpus.duckdb")
    texts = ["<think>\nTwo.\n</think>\nBlue.", "I.", "<think>\nFour.\n</think>\nSo."]
    tokens: dict[str, int] = {}
    with Corpus(tmp_path / "corpus.duckdb") as corpus:
        ids = corpus.sample_index()["sample_id"].to_list()
        outcomes = [Rewritten("rewritten" if row != 1 else "original", texts[row], "so") for row in range(3)]
        batch = [line(row, ids[row], outcomes[row]) for row in range(3)]
        [found] = counted(iter([batch]), corpus, renderer(of(folder), "all"), tokens)
    assert [each["status"] for each in found] == ["rewritten", "original", "error"]
    assert found[:2] == batch[:2]
    assert (found[2]["text"], "no fours" in found[2]["reason"]) == (None, True)
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    expected = tokenizer(texts[0], add_special_tokens=False).input_ids
    assert tokens == {ids[0]: len(expected) + 1}  # and the token that ends the turn


def test_a_folder_without_a_tokenizer_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the tokenizer cannot be used"):
        renderer(of(tmp_path), "all")
