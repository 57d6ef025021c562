"""For ms-swift: JSON lines of token ids, each with its factor of the loss, and a template that adds nothing.

A row is an answer to nothing whose tokens are given. The templates that ms-swift has, `dummy` among them,
know an end token: one to train on is added to every row and, with `add_eos` false too, one that was pruned
is trained on where the token before it is. So `ms_swift_template.py`, which has none, goes with the rows.

Factors other than 0 and 1 are taken for 1 unless it is told that there are some
(`--is_binary_loss_scale false`); then each token's loss is multiplied by its own, and the sum divided by the
number of tokens that are trained on (`swift/trainers/seq2seq_trainer.py`).
Checked with ms-swift 4.6.
"""

from __future__ import annotations

import shlex
from importlib import resources
from pathlib import Path

import numpy as np
import orjson

from datapruner.outputs.trainers.trainer import AsFolder
from datapruner.outputs.training_rows import IGNORED, TrainingRows

_NOTHING = {"role": "user", "content": ""}


def _write(folder: Path, rows: TrainingRows) -> None:
    with (folder / "rows.jsonl").open("xb") as file:
        for batch in rows:
            for _, input_ids, labels, weights in batch.rows():
                scale = (labels != IGNORED).astype(np.int8) if weights is None else weights
                answer = {"token_ids": input_ids, "loss_scale": scale}
                messages = [_NOTHING, {"role": "assistant", "content": answer}]
                option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
                file.write(orjson.dumps({"messages": messages}, option=option))
    template = resources.files(__package__) / "ms_swift_template.py"
    (folder / "template.py").write_bytes(template.read_bytes())


def _note(path: Path, rows: TrainingRows) -> str:
    weighted = " --is_binary_loss_scale false" if rows.counts.weighted else ""
    return f"""\
swift sft --model {shlex.quote(rows.model)} \\
  --external_plugins {shlex.quote(str(path / "template.py"))} --template datapruner \\
  --dataset {shlex.quote(str(path / "rows.jsonl"))} --lazy_tokenize false \\
  --max_length {rows.counts.longest}{weighted}
"""


MS_SWIFT = AsFolder(
    "ms-swift",
    _write,
    _note,
    weights="`loss_scale`, with `--is_binary_loss_scale false`; divided by the number of trained tokens",
)
