"""How large the blocks of a DuckDB file are. A file is made of whole ones, several for each table.

Five rows cost a corpus 1.3 MB and a run 0.8 MB in blocks of the default size, 0.09 and 0.06 MB in the
smallest. But those pack numbers worse: a run of 60,000 tokens is larger in them, one of 8 million twice as
large.
"""

from __future__ import annotations

from pathlib import Path

import duckdb
import polars as pl

SMALL, DEFAULT = 16_384, 262_144
"""Bytes of a block: the smallest, and DuckDB's own choice."""
_FEW_CHARACTERS, _OF_A_ROW = 100_000, 50
"""Up to so many characters a corpus is small; a row itself counts as some."""


def create(path: Path, index: pl.DataFrame) -> None:
    """Make the empty file of a run over the corpus with this `sample_index`; `path` must not exist."""
    few = int(index["n_chars"].sum()) + _OF_A_ROW * len(index) <= _FEW_CHARACTERS
    duckdb.connect(str(path), config={"default_block_size": str(SMALL if few else DEFAULT)}).close()
