"""What the columns of a run's tables are: of every run, here; of methods and stages, where those write them.

Notable choice: packages that bring methods are only looked at for a column that nothing of ours describes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from datapruner.curation import calibration
from scorers.column import Column, by_name
from scorers.method import Method
from scorers.methods import registry
from scorers.methods.ppl import PPL
from scorers.signals.columns import SAMPLE_SIGNALS, TOKEN_SIGNALS

_ALWAYS = [column for method in registry.OWN for column in method.columns if column.always]
_ALWAYS.sort(key=lambda column: column.kind == "text")  # numbers stand beside numbers
_SAMPLE_ID = Column("sample_id", "hash of the conversation; null for a rejected row", kind="text")
_ROW = Column("row", "0-based index in the input, rejected rows included", kind="whole")

COLUMNS: Mapping[str, Column] = by_name(
    _SAMPLE_ID,
    _ROW,
    SAMPLE_SIGNALS["n_prompt_tokens"],
    SAMPLE_SIGNALS["n_response_tokens"],
    Column(
        "n_kept_tokens",
        "tokens trained on in what is exported; 0 unless kept, null if not counted",
        "selection",
        "whole",
        unit="tokens",
        at_least=0,
    ),
    Column("n_truncated", "response tokens lost to max_length", kind="whole", unit="tokens", at_least=0),
    PPL,
    *(SAMPLE_SIGNALS[name] for name in ("entropy", "el2n", "head_grad_norm", "head_grad_dot")),
    *(column for column in _ALWAYS if column.of != "token"),
    Column("keep", "whether the sample is in the subset", "selection", "truth"),
    Column("reason", "why", "selection", "text"),
    Column(
        "status",
        "what became of the row",
        "selection",
        "text",
        values=("kept", "pruned", "scored", "rejected", "error"),
    ),
)
"""Columns of `sample_scores` in every run."""

OF_METHODS = frozenset(column.name for column in _ALWAYS if column.of != "token")
"""Those of them that only some methods fill."""

COUNTS = frozenset(column.name for column in COLUMNS.values() if column.unit == "tokens")
"""Those of them that are numbers and no scores."""

MEASURED: Mapping[str, Column] = {
    name: column
    for name, column in COLUMNS.items()
    if column.of == "sample" and name not in OF_METHODS | {"sample_id", "row"}
}
"""Those of them that measuring fills, whatever the method."""

TOKEN_COLUMNS: Mapping[str, Column] = by_name(
    _SAMPLE_ID,
    _ROW,
    TOKEN_SIGNALS["position"],
    Column("turn", "0-based turn that the token belongs to", "token", "whole"),
    Column("char_start", "first character of the token in the turn's content", "token", "whole"),
    Column(
        "char_end",
        "character after its last; equal to char_start for a token of the template",
        "token",
        "whole",
    ),
    *(TOKEN_SIGNALS[name] for name in ("is_end", "nll", "entropy")),
    *(column for column in _ALWAYS if column.of == "token"),
    Column(
        "keep",
        "whether the token is trained on; null where nothing was to be pruned or the text was rewritten",
        "token",
        "truth",
    ),
    Column(
        "token_weight",
        "factor of the token's loss, 0 where it is not trained on; null where the run weights no tokens",
        "token",
        at_least=0,
    ),
)
"""Columns of `token_scores` in every run."""


def sample_texts(names: Collection[str]) -> dict[str, str]:
    """What these columns of `sample_scores` mean; those that nothing here describes are left out."""
    return _texts("sample", names, {**COLUMNS, **by_name(*calibration.COLUMNS)})


def token_texts(names: Collection[str]) -> dict[str, str]:
    """What these columns of `token_scores` mean, likewise."""
    return _texts("token", names, TOKEN_COLUMNS)


def _texts(table: str, names: Collection[str], plain: Mapping[str, Column]) -> dict[str, str]:
    """Columns of methods begin with the methods' names, those in `plain` only if methods alone fill them."""
    of_runs = {name: column.text for name, column in plain.items() if not column.always}
    known = _of_methods(registry.OWN, table) | of_runs
    if not known.keys() >= set(names):
        known = _of_methods(registry.methods().values(), table) | of_runs
    return {name: known[name] for name in names if name in known}


def _of_methods(methods: Iterable[Method[Any]], table: str) -> dict[str, str]:
    writers: dict[str, tuple[Column, list[str]]] = {}
    for method in methods:
        for column in method.columns:
            if column.place[0] == table:
                writers.setdefault(column.name, (column, []))[1].append(method.name)
    return {name: f"{', '.join(of)}: {column.text}" for name, (column, of) in writers.items()}
