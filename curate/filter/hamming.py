"""Find 64-bit hashes that differ in a few bits, among very many.

The 64 bits are split into `distance + 2` bands. Hashes within `distance` bits share at least two bands, so
only hashes that share a pair of bands are compared: among a million with distance 4, about ten each.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus.columns import Indices, Mask

Hashes = NDArray[np.uint64]
FEW = 1024  # hashes up to which all are compared with all, without an index
MAX_BANDED = 6  # bits; above, bands are so short that nearly all hashes share a pair of them
BLOCK = 8192  # hashes searched at a time
MAX_COMPARISONS = 1 << 21  # comparisons held in memory
MIXER = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio


def find_neighbours(hashes: Hashes, distance: int, kept: Mask) -> Iterator[tuple[int, Indices]]:
    """(i, the rows after i whose hash is within `distance` bits), for i in order.

    A row that is no longer `kept` at its turn is skipped as i; the caller updates `kept`. A later row
    may appear twice. At most 2 million comparisons are in memory at a time.
    """
    banded = len(hashes) > FEW and distance <= MAX_BANDED
    finder: Finder = Bands(hashes, distance) if banded else AllPairs(len(hashes))
    for start in range(0, len(hashes), BLOCK):
        waiting = np.arange(start, min(start + BLOCK, len(hashes)))
        while len(waiting := waiting[kept[waiting]]):
            totals = np.cumsum(finder.counts(waiting))
            count = max(1, int(np.searchsorted(totals, MAX_COMPARISONS, "right")))
            now, waiting = waiting[:count], waiting[count:]
            yield from filter_near(hashes, distance, *finder.pairs(now), kept)


def filter_near(
    hashes: Hashes, distance: int, a: Indices, b: Indices, kept: Mask
) -> Iterator[tuple[int, Indices]]:
    """The comparisons a-b that are near, grouped by a."""
    near = (b > a) & (np.bitwise_count(hashes[a] ^ hashes[b]) <= distance)
    a, b = a[near], b[near]
    order = np.argsort(a, kind="stable")
    a, b = a[order], b[order]
    starts = np.flatnonzero(np.diff(a, prepend=-1))
    for start, end in zip(starts, np.append(starts, len(a))[1:], strict=True):
        if kept[a[start]]:
            yield int(a[start]), b[start:end]


class Finder(Protocol):
    """Proposes the hashes to compare a hash with."""

    def counts(self, indices: Indices) -> NDArray[np.int64]:
        """The maximum number of comparisons of each row."""
        ...

    def pairs(self, indices: Indices) -> tuple[Indices, Indices]:
        """The comparisons of the rows with later rows (and possibly others)."""
        ...


class AllPairs:
    """Compares each hash with all later ones."""

    def __init__(self, size: int) -> None:
        self.size = size

    def counts(self, indices: Indices) -> NDArray[np.int64]:
        return self.size - 1 - indices

    def pairs(self, indices: Indices) -> tuple[Indices, Indices]:
        return expand_ranges(indices, indices + 1, np.full(len(indices), self.size))


class Bands:
    """Compares hashes that share two bands; an index for each pair of bands sorts hashes by slot."""

    def __init__(self, hashes: Hashes, distance: int) -> None:
        self.hashes, self.bits = hashes, int(np.log2(len(hashes)))
        edges = [64 * n // (distance + 2) for n in range(distance + 3)]
        bands = [(1 << b) - (1 << a) for a, b in pairwise(edges)]
        self.tables = []
        for first, second in combinations(bands, 2):
            mask = np.uint64(first | second)
            slots = self.slots(hashes, mask)
            order = np.argsort(slots, kind="stable").astype(np.int32)
            counts = np.bincount(slots, minlength=1 << self.bits)
            starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
            self.tables.append((mask, order, starts))

    def slots(self, hashes: Hashes, mask: np.uint64) -> NDArray[np.int64]:
        """A number below 2**bits, equal where the masked bits are."""
        bits = hashes & mask
        bits ^= bits >> np.uint64(32)
        return ((bits * MIXER) >> np.uint64(64 - self.bits)).astype(np.int64)

    def counts(self, indices: Indices) -> NDArray[np.int64]:
        totals = np.zeros(len(indices), np.int64)
        for mask, _, starts in self.tables:
            slots = self.slots(self.hashes[indices], mask)
            totals += starts[slots + 1] - starts[slots]
        return totals

    def pairs(self, indices: Indices) -> tuple[Indices, Indices]:
        candidates = []
        for mask, order, starts in self.tables:
            slots = self.slots(self.hashes[indices], mask)
            a, at = expand_ranges(indices, starts[slots], starts[slots + 1])
            candidates.append((a, order[at].astype(np.int64)))
        return np.concatenate([a for a, _ in candidates]), np.concatenate(
            [b for _, b in candidates]
        )


def expand_ranges(
    indices: Indices, starts: NDArray[Any], ends: NDArray[Any]
) -> tuple[Indices, Indices]:
    """Repeat each row for every number from its start to its end; returns the rows and the numbers."""
    lengths = ends - starts
    first = np.cumsum(lengths) - lengths
    numbers = np.arange(int(lengths.sum())) + np.repeat(starts - first, lengths)
    return np.repeat(indices, lengths), numbers
