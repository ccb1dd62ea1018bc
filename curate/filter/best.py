"""Best of n: keep only the best candidates of each prompt and reference."""

from __future__ import annotations

import numpy as np

from stylear.curate.corpus.columns import rank_within_group
from stylear.curate.filter.rows import Rows


def keep_best(rows: Rows, best_of: int) -> None:
    """Keep the `best_of` best pairs of each candidate group, of those still kept."""
    indices = np.flatnonzero(rows.kept & (rows["group"] >= 0))
    _, position = rank_within_group(rows["order"][indices], rows["group"][indices])
    rows.drop(indices[position >= best_of], "not-best")
