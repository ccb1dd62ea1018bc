"""Rows grouped by the style that they show.

N rows, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
UNKNOWN_STYLE = ""  # the group of images whose style nothing is known of


@dataclass(frozen=True)
class StyleGroups:
    """Rows by the style they show."""

    names: Sequence[str]
    group: npt.NDArray[np.int32]  # (N,) the group of each row
    members: Rows  # (N,) rows, group by group
    ends: Rows  # the end of each group in `members`

    @classmethod
    def of(cls, column: Any) -> StyleGroups:
        """The groups of a text column (pyarrow)."""
        encoded = column.combine_chunks().dictionary_encode()
        group = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
        names = encoded.dictionary.to_pylist()
        ends = np.cumsum(np.bincount(group, minlength=len(names)))
        return cls(names, group, np.argsort(group, kind="stable"), ends)

    @property
    def is_known(self) -> npt.NDArray[np.bool_]:
        """Whether a group is a style, and not all images of unknown style."""
        return np.array([name != UNKNOWN_STYLE for name in self.names])

    @property
    def sizes(self) -> Rows:
        """The number of rows of each group."""
        return np.diff(self.ends, prepend=0)

    def draw_siblings(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """A random other row (B,) of the same style for each row.

        The row itself if it is the only one, or if its style is unknown.
        """
        groups = self.group[rows]
        ends, sizes = self.ends[groups], self.sizes[groups]
        others = (rng.random(len(rows)) * (sizes - 1)).astype(np.int64)
        siblings = self.members[ends - sizes + others]
        # one of all but the last; the last takes the place of the row itself
        siblings = np.where(siblings == rows, self.members[ends - 1], siblings)
        return np.where(self.is_known[groups], siblings, rows)
