"""Pairs of all kinds to be written as shards, for tests."""

from __future__ import annotations

from builders.pictures_folder import raw_pair
from stylear.pair import Pair

KINDS = ("PNG", "JPEG", "WEBP")


def some_pairs(count: int = 7) -> list[Pair]:
    """Pairs of all image types; each third has no image and is dropped."""
    return [raw_pair(i, image=i % 3 != 2, kind=KINDS[i % 3]) for i in range(count)]
