"""Original columns whose names are needed for ours: they are called `original_<name>` beside them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import orjson

from datapruner.rows.json_text import members

TOKEN_COLUMNS = frozenset(
    {
        "input_ids",
        "attention_mask",
        "token_type_ids",
        "position_ids",
        "seq_lengths",
        "labels",
        "label",
        "label_ids",
        "loss_mask",
        "completion_mask",
        "assistant_masks",
        "token_keep",
        "token_weight",
    }
)
"""Names by which trainers find token ids, what is trained on, and what goes with them. One of an original
column would be taken for ours: of `label`, collators make labels before they look at `labels`."""


def has_name(column: str, names: Collection[str]) -> bool:
    """Whether a column is called one of these names, in lower case, whatever the case of its own."""
    return column.strip().casefold() in names


def renamed(names: Sequence[str], aside: Collection[str], taken: Collection[str]) -> dict[str, str]:
    """What each original column is called: those `aside` `original_<name>`, so that none has a name that is
    `taken`, the others as before."""
    used = {*taken, *(name for name in names if name not in aside)}
    found = {}
    for name in names:
        free = name
        if name in aside:
            free = f"original_{name}"
            while free in used:
                free = f"original_{free}"
            used.add(free)
        found[name] = free
    return found


def renamed_keys(line: bytes, names: Mapping[str, str]) -> bytes:
    """An object of JSON with new names for its keys, and its values as they stand there."""
    parts = (
        orjson.dumps(names.get(name, name)).decode() + ":" + value for name, value in members(line).items()
    )
    return ("{" + ",".join(parts) + "}").encode()
