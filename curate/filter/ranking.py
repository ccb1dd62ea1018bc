"""Ranking: the score by which pairs are ordered from best to worst."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus.columns import Mask, to_bytes
from stylear.curate.filter.rows import Numbers, to_float64

if TYPE_CHECKING:
    import pyarrow as pa

    from stylear.curate.recipe import Recipe

Scores = NDArray[np.float64]  # (N,)


def rank_pairs(
    scores: Mapping[str, pa.FloatArray], stylized: Mask, text: str | None, style: str | None
) -> Scores:
    """Rank stylized pairs by the harmonic mean of text and style score, or by the only one; raw ones by text.

    NaN without a score.
    """
    ranks = np.full(len(stylized), np.nan)
    named = [to_float64(scores[name]) for name in (text, style) if name is not None]
    if named:
        ranks = np.where(stylized, harmonic_mean(named[0], named[-1]), ranks)
    if text is not None:
        ranks = np.where(stylized, ranks, np.maximum(0.0, named[0]))
    return ranks


def harmonic_mean(text: Scores, style: Scores) -> Scores:
    """2ts / (t + s) of two scores, clamped at 0; NaN if one is missing or NaN."""
    text, style = np.maximum(0.0, text), np.maximum(0.0, style)
    total = text + style
    with np.errstate(invalid="ignore"):  # of infinite scores
        means: Scores = np.divide(
            2 * text * style, total, out=np.zeros_like(total), where=total != 0
        )
    return means


def choose_ranking_scores(recipe: Recipe) -> tuple[str | None, str | None]:
    """The scores that rank: the recipe's, else the first clip-text, and csd, texture or clip-image."""

    def first(kind: str) -> str | None:
        return next((score.name for score in recipe.score if score.type == kind), None)

    text = recipe.filter.text_score or first("clip-text")
    style = recipe.filter.style_score or first("csd") or first("texture") or first("clip-image")
    return text, style


def rank_order(ranks: Scores, key: pa.StringArray) -> Numbers:
    """The position of each pair from best to worst; ties go to the lower key, unranked pairs come last."""
    order = np.empty(len(ranks), np.int32)
    order[np.lexsort((to_bytes(key), -np.nan_to_num(ranks, nan=-1.0)))] = np.arange(len(ranks))
    return order
