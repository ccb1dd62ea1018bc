"""Wrong codes among those that a picture is predicted from.

In training a code is predicted from the true codes before it, in sampling from what the model drew itself.
A model that has seen wrong codes goes on sensibly after its own mistakes; without, a small corpus leads to
pictures that fall apart (exposure bias, as scheduled sampling treats it, arXiv 1506.03099).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from stylear.model.layout import TokenLayout
from stylear.train.data import TrainingBatch


def add_code_noise(
    part: TrainingBatch, layout: TokenLayout, highest: float, *, seed: int, step: int
) -> TrainingBatch:
    """The batch with some codes of its input replaced by others of the same picture; its targets stay.

    The share of a row is drawn uniformly from 0 to `highest`; everything drawn depends on (seed, step) and
    on the row's position in the global batch alone.
    """
    batch = part.batch
    ids = batch.ids.clone()
    for row, position in enumerate(part.positions.tolist()):
        here = (batch.code_rows == row).nonzero()[:, 0]
        codes = batch.codes[here]
        state = np.random.SeedSequence([seed, step, position, 1]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]))
        share = highest * torch.rand((), generator=generator)
        wrong = torch.rand(len(codes), generator=generator) < share
        others = codes[torch.randint(len(codes), (len(codes),), generator=generator)]
        ids[row, batch.code_columns[here]] = layout.code_ids[torch.where(wrong, others, codes)]
    return replace(part, batch=replace(batch, ids=ids))
