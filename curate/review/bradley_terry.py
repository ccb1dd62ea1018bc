"""Bradley-Terry strengths from pairwise comparisons, with bootstrap intervals.

K models, C clusters, D draws of the bootstrap. `wins[i, j]` counts how often i was preferred to j; a tie
counts half for both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
DRAWS = 1000  # ours: resamples of the bootstrap
QUANTILES = (0.025, 0.975)
MAX_ROUNDS = 2000
TOLERANCE = 1e-9


def fit_strengths(wins: Numbers) -> Numbers:
    """The strengths (..., K), which add up to 1, of win counts (..., K, K).

    The maximum likelihood by Hunter's MM algorithm (Annals of Statistics 32, 2004, equation 3): the model
    says that i is preferred to j with probability p_i / (p_i + p_j). A model that never wins has strength 0.
    """
    count = wins.shape[-1]
    won = wins.sum(axis=-1)
    compared = wins + np.swapaxes(wins, -1, -2)
    strengths = np.full(won.shape, 1.0 / count)
    for _ in range(MAX_ROUNDS):
        sums = strengths[..., :, None] + strengths[..., None, :]
        weights = np.divide(compared, sums, out=np.zeros_like(sums), where=sums > 0).sum(axis=-1)
        updated = np.divide(won, weights, out=np.zeros_like(won), where=weights > 0)
        total = updated.sum(axis=-1, keepdims=True)
        updated = np.divide(updated, total, out=np.full_like(updated, 1.0 / count), where=total > 0)
        change = np.abs(updated - strengths).max(initial=0)
        strengths = updated
        if change < TOLERANCE:
            break
    return strengths


def win_rates(wins: Numbers) -> Numbers:
    """The share of its comparisons that each model won (..., K); NaN without comparisons."""
    won, lost = wins.sum(axis=-1), wins.sum(axis=-2)
    rates: Numbers = np.full_like(won, np.nan)
    np.divide(won, won + lost, out=rates, where=won + lost > 0)
    return rates


def resample_clusters(clusters: Numbers, seed: int, draws: int = DRAWS) -> Numbers:
    """Win counts (D, K, K) of as many clusters (C, K, K), drawn with replacement, as there are."""
    count = len(clusters)
    draw_counts = np.random.default_rng(seed).multinomial(
        count, np.full(count, 1 / count), size=draws
    )
    resampled: Numbers = np.tensordot(draw_counts.astype(np.float64), clusters, axes=1)
    return resampled


def interval(values: Numbers) -> tuple[Numbers, Numbers]:
    """The 95% percentile interval of draws (D, ...), without those that are not defined."""
    low, high = np.nanquantile(values, QUANTILES, axis=0)
    return low, high


def is_connected(wins: Numbers) -> bool:
    """Whether comparisons connect all models of win counts (K, K): only then are strengths comparable."""
    joined = (wins + wins.T > 0) | np.eye(len(wins), dtype=bool)
    for _ in range(len(wins)):
        joined = joined @ joined
    return bool(joined.all())
