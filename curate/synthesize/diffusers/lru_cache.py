"""A least-recently-used cache whose values are computed on demand."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")


class LruCache(Generic[V]):
    """At most `size` values by name; the least recently used one is evicted first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[str, V] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __getitem__(self, name: str) -> V:
        self._values.move_to_end(name)
        return self._values[name]

    def __setitem__(self, name: str, value: V) -> None:
        self._values[name] = value
        self._values.move_to_end(name)
        while len(self._values) > self._size:
            self._values.popitem(last=False)

    def get_or_make(self, name: str, make: Callable[[], V]) -> V:
        """The value of a name, computed by `make` and cached if it is missing."""
        if name not in self._values:
            self[name] = make()
        return self[name]
