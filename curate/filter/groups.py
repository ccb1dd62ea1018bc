"""Groups of duplicates, within raw and within each style reference. No threshold changes them.

Exact: the same stored bytes. Near: from the best pair to the worst, each pair that is in no group yet starts
one with every later, ungrouped pair near it. So all pairs of a group are near its best pair, and no chain of
small steps joins images that look different.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus.columns import NONE, Ids, Indices, Mask, first_occurrence
from stylear.curate.corpus.looks import COLOUR_DISTANCE
from stylear.curate.filter.hamming import find_neighbours
from stylear.curate.filter.rows import Numbers


def group_exact_duplicates(pool: Numbers, image: Ids, kept: Mask) -> Numbers:
    """Find for each pair the row of the first pair with the same bytes; -1 if they are unique."""
    indices = np.flatnonzero(kept & (image != NONE))
    first = first_occurrence(pool[indices], image[indices])
    shared = np.bincount(first, minlength=len(indices))[first] > 1
    groups = np.full(len(kept), -1, np.int32)
    groups[indices[shared]] = indices[first[shared]]
    return groups


def group_near_duplicates(
    pool: Numbers,
    order: Numbers,
    phash: NDArray[np.uint64],
    colour: NDArray[np.uint8],
    eligible: Mask,
    distance: int,
) -> Numbers:
    """Find for each pair the row of the best pair of its group; -1 without near duplicates.

    pool, order, phash (N,), colour (N, 12); `eligible` masks the pairs to group. Two pairs are near if their
    hashes differ in at most `distance` bits and their colours by at most COLOUR_DISTANCE.
    """
    indices = np.flatnonzero(eligible)
    indices = indices[np.lexsort((order[indices], pool[indices]))]
    groups = np.full(len(eligible), -1, np.int32)
    for part in np.split(indices, np.flatnonzero(np.diff(pool[indices])) + 1):
        if len(part) > 1:
            groups[part] = group_pool(part, phash[part], colour[part].astype(np.int16), distance)
    return groups


def group_pool(
    indices: Indices, phash: NDArray[np.uint64], colour: NDArray[np.int16], distance: int
) -> Numbers:
    """The groups of near duplicates of one pool, whose pairs come best first."""
    group = np.full(len(indices), -1, np.int32)
    free = np.ones(len(indices), bool)
    for i, later in find_neighbours(phash, distance, free):
        like = np.abs(colour[later] - colour[i]).max(axis=1, initial=0) <= COLOUR_DISTANCE
        near = later[like & free[later]]
        if len(near):
            group[near] = group[i] = indices[i]
            free[near] = False
    return group
