"""Thresholds: drop pairs whose score is out of range."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus.columns import Mask
from stylear.curate.filter.rows import Rows

if TYPE_CHECKING:
    from stylear.curate.recipe import Threshold


def apply_threshold(rows: Rows, threshold: Threshold) -> None:
    """Drop pairs out of range; NaN is out of range. Pairs without the score (raw, for style) pass."""
    for failed, why in list(find_failures(rows, threshold)):
        rows.drop(failed, f"{threshold.score}-{why}")


def find_failures(rows: Rows, threshold: Threshold) -> Iterator[tuple[Mask, str]]:
    """Masks of the kept pairs that are out of range, each with its reason; a pair may have several."""
    scores, has_score = rows.score(threshold.score)
    has_score &= rows.kept
    is_nan = np.isnan(scores)
    yield has_score & is_nan, "not-a-number"
    if threshold.min is not None:
        yield has_score & (scores < threshold.min), "below-min"
    if threshold.max is not None:
        yield has_score & (scores > threshold.max), "above-max"
    if threshold.percentile is not None:
        indices = np.flatnonzero(has_score & rows.stylized & ~is_nan)
        pool = rows["style"][indices] if threshold.within == "style" else np.zeros_like(indices)
        failed = np.zeros(len(rows), bool)
        failed[indices] = mask_below_percentile(scores[indices], pool, threshold.percentile)
        yield failed, "below-percentile"


def mask_below_percentile(
    scores: NDArray[np.float64], pool: NDArray[np.integer], percentile: float
) -> Mask:
    """A mask of the scores (N,) below the percentile of their pool (N,).

    These are the lowest floor(n * percentile / 100) of the n in a pool, except ties with the next one.
    """
    pools, numbers, counts = np.unique(pool, return_inverse=True, return_counts=True)
    if len(pools) < 2:
        first = (
            np.partition(scores, at)[at] if (at := int(len(scores) * percentile / 100)) else -np.inf
        )
        return scores < first
    ordered = scores[np.lexsort((scores, numbers))]
    starts = np.cumsum(counts) - counts
    firsts = ordered[starts + (counts * percentile / 100).astype(np.int64)]
    below: Mask = scores < firsts[numbers]
    return below
