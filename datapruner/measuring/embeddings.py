"""Sentence embeddings of a corpus's samples: a vector signal beside those of the proxy model, cached alike.

What methods of diversity compare, instead of the proxy's mean hidden state: unit vectors of a
sentence-embedding model (Sentence-BERT, arXiv 1908.10084) on the text of a sample. A sample is embedded once
for each model.

Notable choices:
- the shards are those of the signal cache, and the process that writes them is driven by the same executor,
  so that a crash costs one task and an interrupted embedding goes on where it was;
- a sample without text has no embedding, with that reason, rather than that of the empty text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from datapruner.corpora import texts
from datapruner.corpora.corpus import Corpus
from datapruner.errors import ModelError
from datapruner.measuring.measure import Machine, spec_of
from datapruner.measuring.signal_cache import ProxyKey, SignalCache
from datapruner.measuring.workers import local
from datapruner.measuring.workers.start import START
from datapruner.progress import Count, Progress
from datapruner.request.config import Measuring
from scorers.models import encoders
from scorers.models.encoders import EncoderFolder
from scorers.models.sources import ModelSourceError
from scorers.signals.columns import SENTENCE_EMBEDDING, Vectors

DEFAULT_ENCODER = "all-minilm-l6-v2"
EMBEDDING_VERSION = 2
"""Raised whenever an embedding's value would change; part of the cache key."""

OF_SENTENCES = "sentence:all"
"""Instead of a template's hash in an embedding's key."""
WORKER = (*START, "embedder")
TASK_SAMPLES = 512
_NO_TEXT = "the sample has no text to embed"


@dataclass(frozen=True, slots=True)
class Embedded:
    """Where the embeddings of a corpus are. errors: sample id -> reason why it has none."""

    cache: SignalCache
    errors: dict[str, str]

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """Unit vectors of these samples, in their order, (N, D). All of them must have been embedded."""
        return self.cache.vectors(ids, SENTENCE_EMBEDDING)


def model_of(measuring: Measuring) -> str:
    """The embedding model of a run that needs one."""
    return measuring.embedder or DEFAULT_ENCODER


def wanted(models: Path, model: str) -> tuple[EncoderFolder, ProxyKey]:
    """The embedding model, fetched into `models` if need be, and its vectors' key. Raises ModelError."""
    try:
        encoder = encoders.resolve(model, models)
    except ModelSourceError as error:
        raise ModelError(str(error)) from error
    return encoder, ProxyKey(
        model=model,
        revision=encoder.revision,
        template_hash=OF_SENTENCES,
        dtype="float32",
        max_length=encoder.max_length,
        overflow="truncate",
        train_on="all",
        tied=False,
        signal_version=EMBEDDING_VERSION,
    )


def embed(
    corpus: Corpus,
    home: Path,
    machine: Machine,
    *,
    model: str,
    progress: Progress,
) -> Embedded:
    """Embed every sample of the corpus that the cache lacks.

    `model` is an alias, a folder or a Hub name; texts are cut where its own configuration says. Raises
    ModelError when the model cannot be found or used, WorkerError when embedding cannot start.
    """
    progress.stage("finding the embedding model", None, "steps")
    encoder, key = wanted(machine.models or home, model)
    cache = SignalCache(home, key)
    index = corpus.sample_index().filter(pl.col("duplicate_of").is_null())
    known = set(cache.status(index["sample_id"].to_list())["sample_id"])
    missing = index.filter(~pl.col("sample_id").is_in(list(known)))
    cache.create()
    spec = spec_of(encoder, key, machine)
    progress.stage("embedding", len(missing), "samples")
    wordless: dict[str, str] = {}
    count = Count(progress)
    failed: dict[str, str] = {}
    if len(missing):
        failed = machine.run(spec, _tasks(corpus, known, cache.folder, wordless), count, WORKER)
    return Embedded(SignalCache(home, key), failed | wordless)


def _tasks(corpus: Corpus, known: set[str], folder: Path, wordless: dict[str, str]) -> Iterator[local.Task]:
    """Samples that have no embedding yet, cut into tasks of about equal length; fills `wordless`."""
    for _, ids, chunk in texts.sample_texts(corpus, "all"):
        wanted = []
        for sample_id, text in zip(ids, chunk, strict=True):
            if sample_id in known:
                continue
            if text.strip():
                wanted.append({"id": sample_id, "text": text})
            else:
                wordless[sample_id] = _NO_TEXT
        wanted.sort(key=lambda sample: (len(sample["text"]), sample["id"]))
        for start in range(0, len(wanted), TASK_SAMPLES):
            yield local.Task(wanted[start : start + TASK_SAMPLES], folder)
