"""Rows: all pairs of a corpus as the rules see them, numbers only, one array a column.

A number names what it is equal with: pairs of one content have one number in `content`; -1 is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus.columns import DictionaryColumn, Mask, Places, valid_mask
from stylear.curate.score import DECIMALS

if TYPE_CHECKING:
    import pyarrow as pa

Numbers = NDArray[np.int32]  # (N,)
NUMBERS = {
    "reference": "the style reference; -1 for raw pairs",
    "style": "the style that it shows; -1 for raw pairs",
    "content": "the content",
    "source": "the source",
    "group": "candidates of one prompt, content and reference; -1 for raw pairs",
    "exact": "the same stored bytes, raw or of one reference; -1: nobody else has them",
    "near": "near duplicates, raw or of one reference; -1: there are none",
    "order": "the place among all pairs from best to worst; no two are equal",
}


@dataclass(slots=True, eq=False)
class Rows:
    """The columns that the rules at hand need, and the verdicts so far."""

    kept: Mask
    stylized: Mask
    reason: DictionaryColumn
    numbers: dict[str, Numbers]
    scores: dict[str, pa.FloatArray]
    styles: list[str]  # names of the numbers in `style`
    phash: NDArray[np.uint64] | None = None
    colour: NDArray[np.uint8] | None = None  # (N, 12)
    hashed: Mask | None = None  # which pairs have a hash
    twin: Numbers = field(init=False)  # place of the pair that a duplicate repeats; -1: none

    def __post_init__(self) -> None:
        self.twin = np.full(len(self.kept), -1, np.int32)

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, name: str) -> Numbers:
        return self.numbers[name]

    def drop(self, where: Mask | Places, reason: str) -> None:
        """Drop the pairs of a mask or of places, unless they are dropped already."""
        chosen = np.zeros(len(self), bool)
        chosen[where] = True
        chosen &= self.kept
        self.kept[chosen] = False
        self.reason.set(chosen, reason)

    def score(self, name: str) -> tuple[NDArray[np.float64], Mask]:
        """Scores with the decimals that they were written with, and which pairs have one."""
        column = self.scores[name]
        return values_of(column), valid_mask(column)


def values_of(column: pa.FloatArray) -> NDArray[np.float64]:
    """A column of scores without telling a missing one from NaN."""
    count, width = len(column), np.dtype(column.type.to_pandas_dtype())
    numbers = np.frombuffer(column.buffers()[1], width)[column.offset : column.offset + count]
    found = numbers.astype(np.float64)
    if column.null_count:
        found[~valid_mask(column)] = np.nan
    return np.round(found, DECIMALS, out=found)
