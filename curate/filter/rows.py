"""Rows: all pairs of a corpus as the rules see them, one array of numbers for each column.

Equal numbers mean equal values: pairs of one content have the same number in `content`; -1 is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus.columns import DictionaryColumn, Indices, Mask, valid_mask
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
    "exact": "the same stored bytes, raw or of one reference; -1: unique",
    "near": "near duplicates, raw or of one reference; -1: none",
    "order": "the position among all pairs from best to worst; no two are equal",
}


@dataclass(slots=True, eq=False)
class Rows:
    """The columns that the rules need, and the verdicts so far."""

    kept: Mask
    stylized: Mask
    reason: DictionaryColumn
    numbers: dict[str, Numbers]
    scores: dict[str, pa.FloatArray]
    styles: list[str]  # names of the numbers in `style`
    phash: NDArray[np.uint64] | None = None
    colour: NDArray[np.uint8] | None = None  # (N, 12)
    hashed: Mask | None = None  # which pairs have a hash
    duplicate_of: Numbers = field(init=False)  # row of the pair that a duplicate repeats; -1: none
    votes_keep: Numbers = field(init=False)  # number of reviewers who keep the pair
    votes_drop: Numbers = field(init=False)  # number of reviewers who drop it

    def __post_init__(self) -> None:
        self.duplicate_of = np.full(len(self.kept), -1, np.int32)
        self.votes_keep, self.votes_drop = np.zeros((2, len(self.kept)), np.int32)

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, name: str) -> Numbers:
        return self.numbers[name]

    def drop(self, selected: Mask | Indices, reason: str) -> None:
        """Drop the pairs of a mask or of row indices that are still kept."""
        chosen = np.zeros(len(self), bool)
        chosen[selected] = True
        chosen &= self.kept
        self.kept[chosen] = False
        self.reason.set(chosen, reason)

    def score(self, name: str) -> tuple[NDArray[np.float64], Mask]:
        """Scores, rounded to the decimals they were written with, and a mask of the pairs that have one."""
        column = self.scores[name]
        return to_float64(column), valid_mask(column)


def to_float64(column: pa.FloatArray) -> NDArray[np.float64]:
    """A column of scores as float64; missing ones become NaN."""
    count, width = len(column), np.dtype(column.type.to_pandas_dtype())
    numbers = np.frombuffer(column.buffers()[1], width)[column.offset : column.offset + count]
    values = numbers.astype(np.float64)
    if column.null_count:
        values[~valid_mask(column)] = np.nan
    return np.round(values, DECIMALS, out=values)
