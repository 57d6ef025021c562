"""A dry run: what a run's methods would ask of a teacher, and what that would cost. Nothing is asked.

Notable choice: of all samples that are no copies, as what a recipe drops or a model cannot read is not known
without doing it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from datapruner.corpora import store
from datapruner.corpora.corpus import Corpus
from datapruner.judging.rows import all_questions
from datapruner.progress import Progress
from datapruner.teacher import Estimate, TeacherSettings, estimate


def rehearse(
    needs: Collection[str],
    rows: Any,
    mapping: Mapping[str, str],
    home: Path,
    progress: Progress,
    settings: TeacherSettings,
) -> Estimate:
    """What rating these rows as `needs` ask would ask. Neither a model nor a teacher is needed.

    Raises as ingest does.
    """
    path = store.ingest_to(rows, mapping, home, progress)
    with Corpus(path) as corpus:
        progress.stage("counting questions", corpus.counts().unique, "samples")
        return estimate(all_questions(corpus, needs, progress), settings)
