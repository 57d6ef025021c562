"""For Megatron-Bridge: rows packed to a length, in Parquet, which it reads in place of pickled arrays.

A pack is rows one after another, with `seq_start_id` where each begins. `loss_mask` is of the token that
follows, for the trainer shifts the ids and takes the mask as it stands. To what follows an end token it gives
no loss, whatever the mask says. To the sources of Megatron-Bridge 0.6.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa

from datapruner.outputs.trainers import columns
from datapruner.outputs.trainers.trainer import AsFolder
from datapruner.outputs.training_rows import IGNORED, Int64s, TrainingBatch, TrainingRows, offsets

_ROWS, _ABOUT = "train.idx.parquet", "packs.json"


@dataclass(slots=True)
class _Packs:
    """What Megatron-Bridge wants to know of packs where it pads their boundaries to one shape."""

    pack_size: int
    min_packed_seqlen: int
    dataset_max_seqlen: int = 0
    max_samples_per_bin: int = 0

    def add(self, lengths: Int64s) -> None:
        """A pack of rows with these many tokens; of each the trainer feeds all but the last."""
        fed = lengths - 1
        self.dataset_max_seqlen = max(self.dataset_max_seqlen, int(fed.max()))
        self.max_samples_per_bin = max(self.max_samples_per_bin, len(lengths))
        self.min_packed_seqlen = min(self.min_packed_seqlen, int(fed.sum()))


def packed(lengths: Int64s, size: int) -> list[Int64s]:
    """Which rows go together, so that none of the packs has more than `size` tokens.

    The longest first, each into the first pack with room for it (first fit decreasing). lengths: (N,), none
    above `size`.
    """
    room = np.full(len(lengths), size)
    packs: list[list[int]] = []
    for row in np.argsort(-lengths, kind="stable").tolist():
        pack = int(np.argmax(room >= lengths[row]))
        room[pack] -= lengths[row]
        if pack == len(packs):
            packs.append([])
        packs[pack].append(row)
    return [np.array(each, dtype=np.int64) for each in packs]


def _write(folder: Path, rows: TrainingRows) -> None:
    assert rows.max_length is not None, "what is packed has a limit"
    packs = _Packs(rows.max_length, min_packed_seqlen=rows.max_length)

    def tables() -> Iterator[pa.Table]:
        for batch in rows:
            yield _table(batch, packs)

    with (folder / _ROWS).open("xb") as file:
        columns.write(file, tables(), rows)
    (folder / _ABOUT).write_bytes(orjson.dumps([asdict(packs)]))


def _table(batch: TrainingBatch, about: _Packs) -> pa.Table:
    """The rows of a batch, packed."""
    together = packed(batch.lengths, about.pack_size)
    for pack in together:
        about.add(batch.lengths[pack])
    begins = batch.offsets
    chosen = np.concatenate([np.arange(begins[row], begins[row + 1]) for pack in together for row in pack])
    tokens = offsets([batch.lengths[pack].sum() for pack in together])
    starts = np.concatenate([offsets(batch.lengths[pack])[:-1] for pack in together])
    mask = (columns.next_labels(batch) != IGNORED).astype(np.int8)
    return pa.table(
        columns.lists(tokens, {"input_ids": batch.input_ids[chosen], "loss_mask": mask[chosen]})
        | columns.lists(offsets([len(pack) for pack in together]), {"seq_start_id": starts.astype(np.int32)})
    )


def _note(path: Path, rows: TrainingRows) -> str:
    return f"""\
from megatron.bridge.data.packing.config import PackedSequenceSpecs

packing = PackedSequenceSpecs(
    packed_sequence_size={rows.max_length},
    tokenizer_model_name={rows.model!r},
    packed_train_data_path={str(path / _ROWS)!r},
    packed_metadata_path={str(path / _ABOUT)!r},
)
"""


MEGATRON = AsFolder("megatron", _write, _note, packed=True)
