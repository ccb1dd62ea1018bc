"""Best of n: of the candidates for one prompt and reference only the best stay."""

from __future__ import annotations

import numpy as np

from stylear.curate.corpus.columns import rank_within_group
from stylear.curate.filter.rows import Rows


def keep_best(rows: Rows, best_of: int) -> None:
    """Keep the `best_of` best of each candidate group that are still there."""
    places = np.flatnonzero(rows.kept & (rows["group"] >= 0))
    _, position = rank_within_group(rows["order"][places], rows["group"][places])
    rows.drop(places[position >= best_of], "not-best")
