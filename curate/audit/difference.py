"""What an audit finds: differences, and checks that passed or failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from stylear.errors import StylearError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference from what was expected: `kind` (missing, changed, keys, split, ...) at `where`."""

    kind: str
    where: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.where}: expected {self.expected}, found {self.found}"


def read_or_report(read: Callable[[], T], where: str) -> tuple[T | None, list[Difference]]:
    """What `read` returns, or the difference that stopped it."""
    try:
        return read(), []
    except StylearError as error:
        return None, [Difference("unreadable", where, "a readable file", error.message)]
