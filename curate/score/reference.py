"""Cosines of images with texts and with their style references."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stylear.curate.score.scorer import Context, Feature, MeasuredShard


def cosines(rows: Sequence[Tensor], others: Tensor) -> list[float]:
    """The cosine of each row (D,) with the same row of `others` (N, D); all have length one."""
    values: list[float] = (torch.stack(list(rows)) * others).sum(dim=-1).tolist()
    return values


def compute_reference_cosines(
    shard: MeasuredShard, feature: Feature, context: Context
) -> list[float | None]:
    """The cosine of each image with its style reference; None without an image or a reference.

    The rows of `feature` have length one. Raises CorpusError for a reference that the recipe lacks.
    """
    rows = {
        index: row
        for index, row in shard.rows(feature).items()
        if shard.pairs[index].origin.reference is not None
    }
    values: list[float | None] = [None] * len(shard.pairs)
    if rows:
        others = [context.reference_row(shard.pairs[index], feature) for index in rows]
        scores = cosines(list(rows.values()), torch.stack(others))
        for index, value in zip(rows, scores, strict=True):
            values[index] = value
    return values
