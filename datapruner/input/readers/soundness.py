"""Whether the offsets of a record batch stay inside it, whatever its strings hold.

Arrow checks both at once. A string that is not UTF-8 is the fault of its row, which can be found by taking
the rows one by one; where offsets are wrong, taking a row could read anything.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def check_layout(batch: pa.RecordBatch) -> None:
    """Raise ArrowInvalid when the batch cannot be read at all."""
    for column in batch.columns:
        pa.array(_Reread(column)).validate(full=True)


class _Reread:
    """An array for which strings are mere bytes, by Arrow's protocol for exchange."""

    def __init__(self, array: pa.Array) -> None:
        self._array = array

    def __arrow_c_array__(self, requested_schema: Any = None) -> tuple[Any, Any]:
        _, values = self._array.__arrow_c_array__()
        return _bytes(self._array.type).__arrow_c_schema__(), values


_PLAIN = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}


def _bytes(kind: pa.DataType) -> pa.DataType:
    """The type with the same layout in which strings are binaries."""
    if isinstance(kind, pa.BaseExtensionType):
        return _bytes(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _bytes(kind.value_type), kind.ordered)
    if pa.types.is_run_end_encoded(kind):
        return pa.run_end_encoded(kind.run_end_type, _bytes(kind.value_type))
    if pa.types.is_map(kind):
        return pa.map_(_bytes(kind.key_type), _bytes(kind.item_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_bytes(field.type)) for field in kind])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_bytes(kind.value_type), kind.list_size)
    for is_kind, made in (
        (pa.types.is_list, pa.list_),
        (pa.types.is_large_list, pa.large_list),
        (pa.types.is_list_view, pa.list_view),
        (pa.types.is_large_list_view, pa.large_list_view),
    ):
        if is_kind(kind):
            return made(_bytes(kind.value_type))
    return _PLAIN.get(kind, kind)
