"""Groups of duplicates, raw and of each style reference apart. No threshold changes them.

Exact: the same stored bytes. Near: going from the best pair to the worst, each that is in no group yet
takes into its own every later one that is in none and near it. So all of a group are near its best pair: no
chain of small steps joins pictures that look different.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus.columns import NONE, Ids, Mask, Places, first_occurrence
from stylear.curate.filter.hamming import neighbours
from stylear.curate.filter.rows import Numbers

COLOUR_DISTANCE = 16  # ours: levels; a red and a blue heart are no duplicates of each other


def exact_groups(pool: Numbers, image: Ids, kept: Mask) -> Numbers:
    """For each pair the place of the first with its bytes; -1 when nobody else has them."""
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
    """For each pair the place of the best of its group; -1 without near duplicates.

    pool, order, phash (N,), colour (N, 12); `there`: which pairs take part. Near are hashes at most
    `distance` bits apart whose colours differ by COLOUR_DISTANCE at most.
    """
    places = np.flatnonzero(there)
    places = places[np.lexsort((order[places], pool[places]))]
    found = np.full(len(there), -1, np.int32)
    for part in np.split(places, np.flatnonzero(np.diff(pool[places])) + 1):
        if len(part) > 1:
            found[part] = grouped(part, phash[part], colour[part].astype(np.int16), distance)
    return found


def grouped(
    places: Places, phash: NDArray[np.uint64], colour: NDArray[np.int16], distance: int
) -> Numbers:
    """The same in one pool, whose pairs come best first."""
    group = np.full(len(places), -1, np.int32)
    free = np.ones(len(places), bool)
    for i, later in neighbours(phash, distance, free):
        like = np.abs(colour[later] - colour[i]).max(axis=1, initial=0) <= COLOUR_DISTANCE
        near = later[like & free[later]]
        if len(near):
            group[near] = group[i] = places[i]
            free[near] = False
    return group
