"""Quotas: a maximum number of pairs per content and per style; the best are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stylear.curate.corpus.columns import Mask, rank_within_group
from stylear.curate.filter.rows import Numbers, Rows

if TYPE_CHECKING:
    from stylear.curate.recipe import FilterSettings


def apply_quotas(rows: Rows, rules: FilterSettings) -> None:
    """Apply the quotas of contents, then of styles, so that a style's pairs spread over contents.

    Raw and stylized pairs of one content are counted separately.
    """
    if rules.per_content is not None:
        for kind in (rows.stylized, ~rows.stylized):
            apply_quota(rows, kind, rows["content"], rules.per_content, "content-quota")
    if rules.per_style is not None:
        apply_quota(rows, rows.stylized, rows["style"], rules.per_style, "style-quota")


def apply_quota(rows: Rows, kind: Mask, groups: Numbers, quota: int, reason: str) -> None:
    """Keep the `quota` best pairs of each group."""
    indices = np.flatnonzero(rows.kept & kind)
    _, position = rank_within_group(rows["order"][indices], groups[indices])
    rows.drop(indices[position >= quota], reason)
