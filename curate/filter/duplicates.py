"""Duplicates: keep the best pair of each group of copies."""

from __future__ import annotations

import numpy as np

from stylear.curate.corpus.columns import rank_within_group
from stylear.curate.filter.rows import Rows


def keep_best_copy(rows: Rows, groups: str, reason: str) -> None:
    """Keep the best kept pair of each group (`exact` or `near`) and drop the others as its duplicates.

    Captions of one source image are not duplicates of each other: with a raw image that is kept, the best
    pair of each of its contents is kept.
    """
    indices = np.flatnonzero(rows.kept & (rows[groups] >= 0))
    order, group, content = (rows[name][indices] for name in ("order", groups, "content"))
    duplicate_of, _ = rank_within_group(order, group)
    source = rows["source"][indices]
    caption = np.flatnonzero(~rows.stylized[indices] & (source == source[duplicate_of]))
    first, _ = rank_within_group(order[caption], group[caption], content[caption])
    duplicate_of[caption] = caption[first]
    repeated = np.flatnonzero(duplicate_of != np.arange(len(indices)))
    rows.duplicate_of[indices[repeated]] = indices[duplicate_of[repeated]]
    rows.drop(indices[repeated], reason)
