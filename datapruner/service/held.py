"""What takes long to make, held for whoever asks next: the last of it, as much as is allowed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Held(Generic[T]):
    """Things by their keys; `size_of` one is in the unit of `most`. The last one is held whatever its size.

    Whoever asks for what is being made waits for it. May be used by any number of threads.
    """

    def __init__(self, most: int, size_of: Callable[[T], int]) -> None:
        self._most, self._size_of = most, size_of
        self._held: OrderedDict[Hashable, T] = OrderedDict()
        self._making: dict[Hashable, Lock] = {}
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is held under the key, or else what `make` makes; raises as it does."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
            making = self._making.setdefault(key, Lock())
        with making:
            with self._lock:
                if key in self._held:  # made while this thread waited
                    return self._held[key]
            try:
                made = make()
                self._hold(key, made)
            finally:
                with self._lock:
                    self._making.pop(key, None)
            return made

    def _hold(self, key: Hashable, made: T) -> None:
        with self._lock:
            self._held[key] = made
            size = sum(map(self._size_of, self._held.values()))
            while size > self._most and len(self._held) > 1:
                size -= self._size_of(self._held.popitem(last=False)[1])
