"""DataComp subsets: files of uids that select rows of a list."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from stylear.errors import SourceEmpty, SourceError

if TYPE_CHECKING:
    import numpy as np

UID = re.compile(r"[0-9a-fA-F]{32}")


class Subset:
    """The uids of a memory-mapped .npy file of dtype `u8,u8` (high and low half).

    Raises SourceError when the file is missing or of another kind.
    """

    def __init__(self, path: Path) -> None:
        import numpy as np

        self.path, self.found = path, 0
        try:
            halves = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise SourceError(
                f"{path}: expected a subset of uids (.npy), found: {error}",
                hint="give the published file of the subset",
            ) from error
        if halves.dtype != np.dtype("u8,u8") or halves.ndim != 1:
            raise SourceError(
                f"{path}: expected one dimension of u8,u8, found {halves.ndim} of {halves.dtype}"
            )
        self._high, self._low = halves["f0"], halves["f1"]
        if not _is_sorted(self._high, self._low):
            ordered = np.sort(halves)
            self._high, self._low = ordered["f0"], ordered["f1"]

    def __len__(self) -> int:
        return len(self._high)

    def has(self, uid: object) -> bool:
        """Whether a uid (32 hex digits) is in the subset; counted in `found`."""
        import numpy as np

        if not isinstance(uid, str) or not UID.fullmatch(uid):
            return False
        high, low = np.uint64(int(uid[:16], 16)), np.uint64(int(uid[16:], 16))
        start, end = (int(np.searchsorted(self._high, high, side)) for side in ("left", "right"))
        at = start + int(np.searchsorted(self._low[start:end], low))
        inside = at < end and bool(self._low[at] == low)
        self.found += inside
        return inside

    def require_found(self, what: object) -> None:
        """Raise SourceEmpty if no row was in the subset."""
        if not self.found:
            raise SourceEmpty(
                f"{what}: expected rows of the subset {self.path.name}, found none",
                hint="the list must be of the pool that the subset was drawn from (column uid)",
            )


def _is_sorted(high: np.ndarray, low: np.ndarray) -> bool:
    """Whether (high, low) is sorted; checked in pieces to keep a large file on the disk."""
    step = 1 << 20
    for start in range(0, max(0, len(high) - 1), step):
        a, b = high[start : start + step + 1], low[start : start + step + 1]
        if not bool(((a[1:] > a[:-1]) | ((a[1:] == a[:-1]) & (b[1:] >= b[:-1]))).all()):
            return False
    return True
