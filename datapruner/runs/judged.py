"""When a run's samples are rated by a teacher: before the filter where that reads ratings, else after it.

Notable choice: a rating costs money, so that what is dropped before, or could not be measured, is not rated,
and what the filter drops only if it has to be.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import polars as pl

from datapruner.corpora.corpus import Corpus
from datapruner.errors import NothingSurvivedError
from datapruner.judging.ratings import Ratings
from datapruner.progress import Progress
from datapruner.request import needs
from datapruner.request.config import MethodChoice, RunConfig, find
from scorers.methods.topsis_columns import NAME as TOPSIS
from scorers.signals.columns import RATING, corpus_settings


def asked(config: RunConfig) -> frozenset[str]:
    """The ratings that a run's methods read, as they ask for them."""
    return _ratings(needs.needs(config.methods, config.combine))


def before_filter(config: RunConfig) -> list[MethodChoice]:
    """The methods whose scores the filter may read: all of them if it reads one that takes ratings, else
    those that take none."""
    without = [choice for choice in config.methods if not _ratings(needs.needs([choice]))]
    written = {
        column.name
        for choice in config.methods
        if choice not in without
        for column in find(choice.name).columns
    }
    shows_others = any(choice.name == TOPSIS for choice in config.methods if choice not in without)
    if shows_others or _named(config.filter or "", written):
        return config.methods
    return without


def rated(
    corpus: Corpus, chosen: pl.DataFrame, wanted: frozenset[str], teacher: Any, progress: Progress
) -> tuple[pl.DataFrame, Ratings]:
    """These lines of the sample index without the samples that got no rating, and the ratings.

    Raises NothingSurvivedError when none got one, and what stops a teacher.
    """
    if not wanted or chosen.is_empty():
        return chosen, Ratings()
    from datapruner.judging.rows import rate  # few runs do, and its libraries take time

    found = rate(corpus, chosen["row"].to_list(), wanted, teacher, progress)
    left = chosen.filter(~pl.col("sample_id").is_in(list(found.errors)))
    if left.is_empty():
        raise NothingSurvivedError(
            f"none of {len(chosen):,} samples got a rating",
            remedy=f"the first: {next(iter(found.errors.values()))}",
        )
    return left, found


def document(wanted: Collection[str]) -> Mapping[str, Any]:
    """What a run's lineage says of the rubrics that it rated by."""
    from datapruner.judging import rows, rubrics

    return {name: rubrics.document(name) for name in rows.rubrics(wanted)}


def _ratings(names: Collection[str]) -> frozenset[str]:
    settings = {name: corpus_settings(name) for name in names}
    return frozenset(name for name, about in settings.items() if about is not None and about[0] == RATING)


def _named(text: str, names: Collection[str]) -> bool:
    return bool(names) and re.search(rf"\b({'|'.join(names)})\b", text, re.IGNORECASE) is not None
