"""Quotas: at most so many pairs of one content, and of one style; the best stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stylear.curate.corpus.columns import Mask, rank_within_group
from stylear.curate.filter.rows import Numbers, Rows

if TYPE_CHECKING:
    from stylear.curate.recipe import FilterSettings


def fill_quotas(rows: Rows, rules: FilterSettings) -> None:
    """Contents first, so that what a style keeps is spread over contents and fills its quota after that.

    Raw and stylized pairs of one content are counted apart.
    """
    if rules.per_content is not None:
        for kind in (rows.stylized, ~rows.stylized):
            fill(rows, kind, rows["content"], rules.per_content, "content-quota")
    if rules.per_style is not None:
        fill(rows, rows.stylized, rows["style"], rules.per_style, "style-quota")


def fill(rows: Rows, kind: Mask, of: Numbers, quota: int, reason: str) -> None:
    """Keep the `quota` best of each number in `of`."""
    places = np.flatnonzero(rows.kept & kind)
    _, position = rank_within_group(rows["order"][places], of[places])
    rows.drop(places[position >= quota], reason)
