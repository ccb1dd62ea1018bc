"""What an audit finds: differences, each with the file, the key, what was expected and what was found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from stylear.errors import StylearError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference from what was expected: `kind` is missing, changed, shard, keys, split, ...

    `file` is a path in the corpus, or a folder of shards; `key` names the pair, the entry or the setting in
    it, None where the whole file differs.
    """

    kind: str
    file: str
    expected: str
    found: str
    key: str | None = None

    @property
    def where(self) -> str:
        """The file, and the key in it."""
        return self.file if self.key is None else f"{self.file} {self.key}"

    def __str__(self) -> str:
        return f"{self.where}: expected {self.expected}, found {self.found}"


def read_or_report(read: Callable[[], T], file: str) -> tuple[T | None, list[Difference]]:
    """What `read` returns, or the difference that stopped it."""
    try:
        return read(), []
    except StylearError as error:
        return None, [Difference("unreadable", file, "a readable file", error.message)]
