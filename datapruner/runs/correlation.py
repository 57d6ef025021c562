"""How alike two columns of numbers rank."""

from __future__ import annotations

import polars as pl


def spearman(values: pl.DataFrame) -> float | None:
    """Spearman's rank correlation of the two columns, equal values sharing their mean rank.

    None when either column is constant, as there is none.
    """
    if any(values[column].n_unique() < 2 for column in values.columns):
        return None
    coefficient = values.select(pl.corr(*values.columns, method="spearman")).item()
    return max(-1.0, min(1.0, float(coefficient)))
