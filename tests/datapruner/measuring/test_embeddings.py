"""Embeddings of a corpus, cached like signals, with a tiny encoder in a real process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from datapruner import library
from datapruner.corpora import store
from datapruner.corpora.corpus import Corpus
from datapruner.errors import ModelError, UsageError
from datapruner.measuring import embeddings
from datapruner.measuring.measure import Machine
from datapruner.progress import Silent
from scorers.models.sentences import SentenceEncoder
from tests.tiny_encoder import save_tiny_encoder

MACHINE = Machine(("cpu",), threads=1)
ROWS = [
    {"instruction": "the sea", "output": "is salty"},
    {"instruction": "rain", "output": "is not"},
    {"instruction": "the sea", "output": "is salty"},
    {"instruction": "deep", "output": "the deep sea and rain"},
]
_STORED = 2e-4  # what storing may change of a unit vector


def test_samples_are_embedded_once_and_come_out_in_the_order_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, home = tmp_path / "encoder", tmp_path / "home"
    folder.mkdir()
    save_tiny_encoder(folder)
    path = store.ingest_to(ROWS, {}, home, Silent())
    with Corpus(path) as corpus:
        ids = corpus.sample_index()["sample_id"].to_list()
        first = embeddings.embed(corpus, home, MACHINE, model=str(folder), progress=Silent())
        monkeypatch.setattr(embeddings, "WORKER", ("-c", "raise SystemExit('nothing is to be embedded')"))
        again = embeddings.embed(corpus, home, MACHINE, model=str(folder), progress=Silent())
        assert first.errors == again.errors == {}
    found = again.vectors([ids[3], ids[0], ids[1]])
    texts = ["deep\nthe deep sea and rain", "the sea\nis salty", "rain\nis not"]
    alone = {at: vector for at, vector, _ in SentenceEncoder(folder, pooling="mean").encode(texts)}
    assert found[np.arange(3)] == pytest.approx(np.stack([alone[at] for at in range(3)]), abs=_STORED)


def test_a_model_that_is_not_there_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with (
        Corpus(store.ingest_to(ROWS, {}, tmp_path, Silent())) as corpus,
        pytest.raises(ModelError, match="no sentence-embedding model called 'nothing'"),
    ):
        embeddings.embed(corpus, tmp_path, MACHINE, model="nothing", progress=Silent())


def test_a_method_that_reads_sentence_embeddings_gets_those_of_the_model_named(
    tmp_path: Path, tiny_folder: Path
) -> None:
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    save_tiny_encoder(encoder)
    options = {"embedding": "sentence_embedding"}
    run = {"model": str(tiny_folder), "device": "cpu", "home": tmp_path / "home", "options": options}
    rows = [*ROWS, {"instruction": "the sea", "output": "the deep sea"}]
    result = library.prune(rows, "divprune", 2, embedder=str(encoder), **run)
    table = result.scores.filter(pl.col("divprune_pick") >= 0).sort("divprune_pick")
    assert table["keep"].to_list() == [True, True]
    assert result.run.lineage["embedder"]["model"] == str(encoder)
    assert result.report.duplicates == 1

    # The two farthest apart, by a loop over the encoder's own vectors of the four different rows.
    texts = ["the sea\nis salty", "rain\nis not", "deep\nthe deep sea and rain", "the sea\nthe deep sea"]
    rows_of = [0, 1, 3, 4]
    vectors = {at: v for at, v, _ in SentenceEncoder(encoder, pooling="mean").encode(texts)}
    apart = [min(1 - float(vectors[i] @ vectors[j]) for j in range(4) if j != i) for i in range(4)]
    first, second = (rows_of.index(row) for row in table["row"])
    assert apart[first] == pytest.approx(max(apart), abs=_STORED)
    distances = [1 - float(vectors[first] @ vectors[j]) for j in range(4)]
    assert distances[second] == pytest.approx(max(distances), abs=_STORED)
    assert table["divprune_distance"][1] == pytest.approx(max(distances), abs=_STORED)


def test_an_embedder_that_no_method_reads_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(UsageError, match="no sentence embedding is read by ppl"):
        library.prune(ROWS, "ppl", 2, embedder="all-minilm-l6-v2", model=str(tiny_folder), home=tmp_path)
