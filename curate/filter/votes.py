"""Votes: several thresholds judge a pair, and enough of them must agree to keep it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stylear.curate.filter.rows import Rows
from stylear.curate.filter.thresholds import find_failures

if TYPE_CHECKING:
    from stylear.curate.recipe import Threshold

OUTVOTED = "outvoted"


def drop_outvoted(rows: Rows, votes: Sequence[Threshold], min_votes: int) -> None:
    """Drop pairs that pass fewer than `min_votes` thresholds.

    A missing score counts in favour of the pair. All votes judge the pairs that were kept before the first.
    """
    against = np.zeros(len(rows), np.int16)
    for vote in votes:
        outside = np.zeros(len(rows), bool)
        for failed, _ in find_failures(rows, vote):
            outside |= failed
        against += outside
    rows.drop(against > len(votes) - min_votes, OUTVOTED)
