"""For LLaMA-Factory: a dataset on disk that is tokenized already.

A `tokenized_path` that exists is loaded as it is; whatever else is said of data is ignored then, `cutoff_len`
and `packing` among it, so the length is settled here. The three columns alone, as its collator cannot pad any
other. Checked with LLaMA-Factory 0.9.5.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from datapruner.outputs.trainers import columns
from datapruner.outputs.trainers.trainer import AsFolder, quoted
from datapruner.outputs.training_rows import TrainingRows


def _write(folder: Path, rows: TrainingRows) -> None:
    streamed = folder / "rows.arrow"
    _stream(streamed, rows)
    if rows.counts.written:
        _save(streamed, folder)
    streamed.unlink()


def _stream(path: Path, rows: TrainingRows) -> None:
    writer: pa.ipc.RecordBatchStreamWriter | None = None
    with path.open("xb") as file:
        for batch in rows:
            table = pa.table(columns.tokens(batch, batch.labels))
            writer = writer or pa.ipc.new_stream(file, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()


def _save(streamed: Path, folder: Path) -> None:
    import datasets  # a second of imports that only this needs

    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        rows = datasets.Dataset.from_file(str(streamed))  # mapped: no row of it is in memory
        datasets.DatasetDict({"train": rows}).save_to_disk(folder)
    finally:
        if bars:
            datasets.enable_progress_bars()


def _note(path: Path, rows: TrainingRows) -> str:
    return f"""\
model_name_or_path: {quoted(rows.model)}
stage: sft
do_train: true
finetuning_type: full
template: empty
tokenized_path: {quoted(str(path))}
dataset: datapruner  # some name is asked for, and not looked at
cutoff_len: {rows.counts.longest}  # the longest row; rows are neither cut nor packed any more
output_dir: trained
"""


LLAMAFACTORY = AsFolder("llamafactory", _write, _note)
