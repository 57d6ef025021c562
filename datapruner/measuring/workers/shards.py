"""A shard: what a worker measured of a few hundred samples, as one Parquet file of the signal cache.

The first columns describe the rendered sample, the others what the proxy model said of it; a sample that
cannot be measured has `error` set and every other column null. Column meanings: `scorers.signals.columns`.

Notable choice: no dictionaries, which make a column larger, and slower to read, where hardly a number comes
twice (`benchmarks/disk.py`). Every float of a token stays as it was measured; of vectors see
`datapruner.measuring.vectors`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datapruner.measuring import vectors
from datapruner.system.files import publishing

if TYPE_CHECKING:
    from scorers.conversations.chat import Encoded
    from scorers.signals.forward import Measured

_COUNTS = ("n_tokens", "n_prompt_tokens", "n_response_tokens", "n_truncated", "n_tokens_full")
_INTS, _FLOATS, _BOOLS = pa.list_(pa.int32()), pa.list_(pa.float32()), pa.list_(pa.bool_())
TOKENS = pa.schema(
    [
        ("sample_id", pa.string()),
        ("error", pa.string()),
        ("input_ids", _INTS),
        ("position", _INTS),
        ("turn", _INTS),
        ("char_start", _INTS),
        ("char_end", _INTS),
        ("is_end", _BOOLS),
        *((name, pa.int64()) for name in _COUNTS),
    ]
)
"""What describes the rendered sample: all that a shard has of samples that no model has read."""


def schema(projection: int, hidden: int, *, lora: bool = False) -> pa.Schema:
    """Arrow schema of a shard whose vectors have `projection` and `hidden` dimensions, with `lora` effort."""
    doubles = (
        "nll_mean",
        "entropy_mean",
        "el2n_mean",
        "head_grad_norm",
        "head_grad_dot",
        "head_norm",
        "tied_grad_norm",
        "tied_grad_dot",
        *(("lora_effort",) if lora else ()),
    )
    return pa.schema(
        [
            *TOKENS,
            ("nll", _FLOATS),
            ("entropy", _FLOATS),
            ("el2n", _FLOATS),
            ("top1", _BOOLS),
            *((name, pa.float64()) for name in doubles),
            ("head_grad_projection", vectors.packed(projection)),
            ("mean_hidden", vectors.packed(hidden)),
            ("weighted_hidden", vectors.packed(hidden)),
        ]
    )


def tokens_row(sample_id: str, encoded: Encoded) -> dict[str, Any]:
    """What a shard's row has of a rendered sample, measured or not."""
    return {
        "sample_id": sample_id,
        "input_ids": encoded.input_ids,
        "position": encoded.position,
        "turn": encoded.turn,
        "char_start": encoded.char_start,
        "char_end": encoded.char_end,
        "is_end": encoded.is_end,
        "n_tokens": len(encoded.input_ids),
        "n_prompt_tokens": len(encoded.input_ids) - len(encoded.position),
        "n_response_tokens": len(encoded.position),
        "n_truncated": encoded.n_truncated,
        "n_tokens_full": encoded.n_tokens_full,
    }


def measured_row(sample_id: str, encoded: Encoded, measured: Measured, head_norm: float) -> dict[str, Any]:
    """One shard row of a measured sample."""
    return {
        **tokens_row(sample_id, encoded),
        "nll": measured.nll,
        "entropy": measured.entropy,
        "el2n": measured.el2n,
        "top1": measured.top1,
        "nll_mean": float(measured.nll.mean(dtype=np.float64)),
        "entropy_mean": float(measured.entropy.mean(dtype=np.float64)),
        "el2n_mean": float(measured.el2n.mean(dtype=np.float64)),
        "head_grad_norm": measured.head_grad_norm,
        "head_grad_dot": measured.head_grad_dot,
        "head_norm": head_norm,
        "tied_grad_norm": measured.tied_grad_norm,
        "tied_grad_dot": measured.tied_grad_dot,
        "lora_effort": measured.lora_effort,
        "head_grad_projection": measured.head_grad_projection,
        "mean_hidden": measured.mean_hidden,
        "weighted_hidden": measured.weighted_hidden,
    }


def write(path: Path, rows: Sequence[Mapping[str, Any]], shape: pa.Schema) -> None:
    """Publish the rows of a finished task as a shard."""
    columns = [_column([row.get(field.name) for row in rows], field.type) for field in shape]
    publish(path, pa.Table.from_arrays(columns, schema=shape))


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_struct(kind):
        return vectors.pack(values, vectors.width(kind))
    return pa.array(values, type=kind)


def publish(path: Path, table: pa.Table) -> None:
    """Make a shard appear."""
    with publishing(path) as file:
        pq.write_table(table, file, compression="zstd", use_dictionary=False)
