"""Near hashes: the index finds what comparing everything with everything finds."""

from __future__ import annotations

import numpy as np
import pytest

from stylear.curate.filter import hamming as near
from stylear.curate.filter.hamming import expand_ranges, find_neighbours


def hashes(count: int, seed: int = 0) -> np.ndarray:
    """Some hashes at random, most of them a few bits away from an earlier one."""
    draw = np.random.default_rng(seed)
    values = draw.integers(0, 2**64, count, dtype=np.uint64)
    for place in range(count // 10, count):
        flipped = draw.choice(64, draw.integers(0, 9), replace=False)
        mask = sum(1 << int(bit) for bit in flipped)
        values[place] = values[draw.integers(0, place)] ^ np.uint64(mask)
    return values


def brute(values: np.ndarray, distance: int) -> set[tuple[int, int]]:
    return {
        (i, j)
        for i in range(len(values))
        for j in range(i + 1, len(values))
        if (int(values[i]) ^ int(values[j])).bit_count() <= distance
    }


@pytest.mark.parametrize("distance", [0, 1, 4, 6, 7])
@pytest.mark.parametrize("few", [0, 10_000])
def test_all_near_places_and_no_others_are_found(
    distance: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near, "FEW", few)
    monkeypatch.setattr(near, "BLOCK", 50)
    monkeypatch.setattr(near, "MAX_COMPARISONS", 300)
    values = hashes(400)
    neighbours = find_neighbours(values, distance, np.ones(400, bool))
    pairs = [(i, int(j)) for i, later in neighbours for j in later]
    expected = brute(values, distance)
    assert set(pairs) == expected
    assert len(expected) > 30
    assert [i for i, _ in pairs] == sorted(i for i, _ in pairs)


def test_dropped_rows_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "FEW", 0)
    values, kept = np.zeros(1000, np.uint64), np.ones(1000, bool)
    compared = []
    for i, later in find_neighbours(values, 4, kept):
        compared.append(i)
        kept[later] = False
    assert compared == [0]
    assert np.flatnonzero(kept).tolist() == [0]


def test_spread_counts_from_start_to_end() -> None:
    places, numbers = expand_ranges(np.array([7, 8, 9]), np.array([2, 5, 1]), np.array([4, 5, 2]))
    assert places.tolist() == [7, 7, 9]
    assert numbers.tolist() == [2, 3, 1]
