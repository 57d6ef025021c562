"""The reference model of methods that compare with one: the proxy, trained for a moment on clean rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datapruner.corpora.corpus import Corpus
from datapruner.corpora.store import ingest_to
from datapruner.evaluation.rows import tokenised
from datapruner.measuring.measure import Machine, proxy_for
from datapruner.progress import Silent
from datapruner.request.config import Measuring
from datapruner.tuning.training import Trainee

_RATE, _ROWS_A_STEP, _EPOCHS = 1.5e-3, 8, 1


def fine_tuned(rows: Sequence[Mapping[str, Any]], home: Path, device: str, model: str) -> Path:
    """A folder with the model trained on these rows, made once."""
    wanted = proxy_for(Measuring(model=model), home, (device,))
    corpus = ingest_to(list(rows), {}, home, Silent())
    name = hashlib.sha256(f"{corpus.stem} {wanted.proxy.revision} {_RATE} {_EPOCHS}".encode()).hexdigest()[
        :16
    ]
    folder = home / "reference" / name
    if (folder / "done").exists():
        return folder
    with Corpus(corpus) as opened:
        samples = tokenised(opened, wanted, home, Machine((device,)), Silent())
    ids = samples.index["sample_id"].to_list() * _EPOCHS
    trainee = Trainee(wanted.proxy.path, device, full=False)
    trainee.train(samples.examples(ids), seed=0, rate=_RATE, number=max(1, len(ids) // _ROWS_A_STEP))
    trainee.save(folder)
    (folder / "done").touch()
    return folder
