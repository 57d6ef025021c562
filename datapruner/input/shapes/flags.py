"""Columns that say of a whole row whether it is to be trained on.

    column                                              effect
    label: false (KTO)                                  rejected: an answer that is undesirable
    train, training, trainable: false; weight: 0        rejected: the row says so
    chosen beside rejected                              rejected without a mapping, which says which is meant
    mask, masks, loss_mask, ...: a list                 rejected: what is meant by its numbers nobody can tell

Notable choices:
* A weight other than 0 stays what it is: a column of the row, which comes out with it.
* A class label is a number or a name, so only a boolean counts as KTO's; beside `completion`, KTO's own
  column, 0 and the text "false" count too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datapruner.input.shapes.rejections import reject

_SWITCHES = ("train", "training", "trainable")
_MASKS = ("mask", "masks", "loss_mask", "loss_masks", "assistant_masks", "completion_mask")
_TRAIN = "remove the row, or the column to train on it all the same"
_WEIGH = "give the messages of the assistant weight 0 or 1 instead"
FLAG_COLUMNS = frozenset((*_SWITCHES, *_MASKS, "weight", "label", "chosen"))


def check_flags(row: Mapping[str, Any], *, mapped: bool) -> None:
    """Reject a row that says not to train on it, or says it in a way that we cannot follow.

    mapped: the caller has named the columns to read, which settles which of several answers is meant. Raises
    RejectedRowError.
    """
    label = row.get("label")
    if label is False or ("completion" in row and _says_no(label)):
        reason = "'label' is false: the answer is an example of what not to write (KTO)"
        reject("not_to_train", "label", reason, _TRAIN)
    for name in (*_SWITCHES, "weight"):
        if _says_no(row.get(name)):
            reject("not_to_train", name, f"'{name}' says not to train on the row", _TRAIN)
    if not mapped and row.get("chosen") is not None and row.get("rejected") is not None:
        reason = "the row is a pair of answers, 'chosen' and 'rejected', of which one is not to be trained on"
        reject("preference_pair", "chosen", reason, "map the answer: prompt=prompt and response=chosen, say")
    for name in _MASKS:
        if isinstance(row.get(name), list):
            reason = f"'{name}' masks parts of the row, and does not say which number means trained"
            reject("unsupported_mask", name, reason, _WEIGH)


def _says_no(value: object) -> bool:
    """Whether a value means no: false or 0, as CSV writes them too."""
    if isinstance(value, str):
        return value.strip().lower() in ("false", "0", "0.0")
    return isinstance(value, bool | int | float) and value == 0
