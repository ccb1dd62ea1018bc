"""What was made last, so that it is not made again; older things are forgotten."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")


class Remembered(Generic[V]):
    """Up to `size` things by name; the one that was asked for longest ago goes first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._known: OrderedDict[str, V] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def __getitem__(self, name: str) -> V:
        self._known.move_to_end(name)
        return self._known[name]

    def __setitem__(self, name: str, value: V) -> None:
        self._known[name] = value
        self._known.move_to_end(name)
        while len(self._known) > self._size:
            self._known.popitem(last=False)

    def get(self, name: str, make: Callable[[], V]) -> V:
        """The thing of a name, made now if it is not known."""
        if name not in self._known:
            self[name] = make()
        return self[name]
