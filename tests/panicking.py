"""A real panic, of a library in Rust."""

from __future__ import annotations

from decimal import Decimal
from typing import NoReturn

import polars as pl
import pyarrow as pa


def panic() -> NoReturn:
    pl.DataFrame(pa.table({"wide": pa.array([Decimal(1)], pa.decimal256(50, 0))}))
    raise AssertionError("polars has learnt decimals of 256 bits; find it something else")
