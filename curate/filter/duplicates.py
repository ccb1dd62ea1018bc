"""Duplicates: of each group of copies the best stays."""

from __future__ import annotations

import numpy as np

from stylear.curate.corpus.columns import rank_within_group
from stylear.curate.filter.rows import Rows


def keep_best_copy(rows: Rows, groups: str, reason: str) -> None:
    """Of each group (`exact` or `near`) keep the best pair that is still there; the others repeat it.

    Captions of one source image are no duplicates of each other: of a raw picture that stays, the best
    pair of each content stays with it.
    """
    places = np.flatnonzero(rows.kept & (rows[groups] >= 0))
    order, group, content = (rows[name][places] for name in ("order", groups, "content"))
    twin, _ = rank_within_group(order, group)
    source = rows["source"][places]
    caption = np.flatnonzero(~rows.stylized[places] & (source == source[twin]))
    first, _ = rank_within_group(order[caption], group[caption], content[caption])
    twin[caption] = caption[first]
    repeated = np.flatnonzero(twin != np.arange(len(places)))
    rows.twin[places[repeated]] = places[twin[repeated]]
    rows.drop(places[repeated], reason)
