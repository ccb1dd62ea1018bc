"""Groups of duplicates, within raw and within each style reference. No threshold changes them.

Exact: the same stored bytes. Near: from the best pair to the worst, each pair that is in no group yet starts
one with every later, ungrouped pair near it. So all pairs of a group are near its best pair, and no chain of
small steps joins images that look different.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus.columns import NONE, Ids, Mask, Places, first_occurrence
from stylear.curate.corpus.looks import COLOUR_DISTANCE
from stylear.curate.filter.hamming import find_neighbours
from stylear.curate.filter.rows import Numbers


def exact_groups(pool: Numbers, image: Ids, kept: Mask) -> Numbers:
    """For each pair the place of the first pair with its bytes; -1 if they are unique."""
    places = np.flatnonzero(kept & (image != NONE))
    first = first_occurrence(pool[places], image[places])
    shared = np.bincount(first, minlength=len(places))[first] > 1
    found = np.full(len(kept), -1, np.int32)
    found[places[shared]] = places[first[shared]]
    return found


def near_groups(
    pool: Numbers,
    order: Numbers,
    phash: NDArray[np.uint64],
    colour: NDArray[np.uint8],
    there: Mask,
    distance: int,
) -> Numbers:
    """For each pair the place of the best pair of its group; -1 without near duplicates.

    pool, order, phash (N,), colour (N, 12); `there` masks the pairs to group. Two pairs are near if their
    hashes differ in at most `distance` bits and their colours by at most COLOUR_DISTANCE.
    """
    places = np.flatnonzero(there)
    places = places[np.lexsort((order[places], pool[places]))]
    found = np.full(len(there), -1, np.int32)
    for part in np.split(places, np.flatnonzero(np.diff(pool[places])) + 1):
        if len(part) > 1:
            found[part] = group_pool(part, phash[part], colour[part].astype(np.int16), distance)
    return found


def group_pool(
    places: Places, phash: NDArray[np.uint64], colour: NDArray[np.int16], distance: int
) -> Numbers:
    """The groups of near duplicates of one pool, whose pairs come best first."""
    group = np.full(len(places), -1, np.int32)
    free = np.ones(len(places), bool)
    for i, later in find_neighbours(phash, distance, free):
        like = np.abs(colour[later] - colour[i]).max(axis=1, initial=0) <= COLOUR_DISTANCE
        near = later[like & free[later]]
        if len(near):
            group[near] = group[i] = places[i]
            free[near] = False
    return group
