"""Metrics of generated pictures, as pure functions of embeddings.

B pictures, R references, D embedding size. Embeddings have length one.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

DRAWS = 1000  # our choice: resamples of the bootstrap
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 95% bootstrap confidence interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def pair_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of each row of a (B, D) with the same row of b (B, D): (B,)."""
    return (a * b).sum(dim=-1)


def harmonic_mean(text: Tensor, style: Tensor) -> Tensor:
    """2ts / (t + s) of scores (B,), each clamped at 0 first; 0 where either is 0."""
    text, style = text.clamp(min=0), style.clamp(min=0)
    total = text + style
    return torch.where(total > 0, 2 * text * style / total.clamp(min=1e-12), 0.0)


def prompt_recall(pictures: Tensor, texts: Tensor, own: Tensor) -> Tensor:
    """1 where a picture (B, D) is nearest to its own one of the texts (P, D), else 0: (B,).

    `own` (B,) is the row of each picture's text. NaN with fewer than two texts.
    """
    if len(texts) < 2:
        return torch.full((len(pictures),), torch.nan)
    return ((pictures @ texts.T).argmax(dim=1) == own).float()


def content_leakage(pictures: Tensor, own: Tensor, contents: Tensor, others: Tensor) -> Tensor:
    """How much closer each picture is to the content of its own reference than to other contents (B,).

    cos(picture, own content) minus the mean of cos(picture, c) over the other contents c.
    `pictures` (B, D); `own` (B,) the row of the picture's reference in `contents` (R, D);
    `others` (R, R) bool, True where column c is another content to compare row r with.
    Contents are caption embeddings, or embeddings of references of the same style. If all
    references are used equally often, pictures that ignore their reference average exactly 0.
    NaN if a reference has no other content.
    """
    cosines = pictures @ contents.T  # (B, R)
    compared = others[own].to(cosines.dtype)
    mean_of_others = (cosines * compared).sum(dim=1) / compared.sum(dim=1)
    return cosines.gather(1, own[:, None])[:, 0] - mean_of_others


def bootstrap(
    values: Sequence[float] | Tensor,
    clusters: Sequence[Hashable],
    *,
    seed: int = 0,
    draws: int = DRAWS,
) -> Estimate | None:
    """The mean of `values` and its percentile bootstrap interval over clusters; None without finite values.

    Whole clusters are resampled with replacement (Davison & Hinkley 1997, section 3.8), so that several
    seeds of one (reference, prompt) count as one observation. NaN values are ignored.
    """
    numbers = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(numbers)
    if not finite.any():
        return None
    ids = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    cluster_ids = np.array([ids[cluster] for cluster in clusters])[finite]
    _, cluster_ids = np.unique(cluster_ids, return_inverse=True)
    sums = np.bincount(cluster_ids, weights=numbers[finite])
    sizes = np.bincount(cluster_ids)
    picks = np.random.default_rng(seed).integers(0, len(sums), (draws, len(sums)))
    means = sums[picks].sum(axis=1) / sizes[picks].sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(sums.sum() / sizes.sum()), float(low), float(high))


def win_rate(
    own: Sequence[float], other: Sequence[float], clusters: Sequence[Hashable], *, seed: int = 0
) -> Estimate | None:
    """Share of picture pairs in which the own picture scores higher, ties half, with its 95% interval.

    `own[i]` and `other[i]` are scores of the pictures that two models drew for the same reference,
    prompt and seed. None without such pairs.
    """
    wins = [0.5 if a == b else float(a > b) for a, b in zip(own, other, strict=True)]
    return bootstrap(wins, clusters, seed=seed)
