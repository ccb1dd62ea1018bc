"""The forward pass of a training step. B' styled rows, K style tokens, D the decoder's width."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from stylear.errors import WeightsError
from stylear.model.style_model import StyleModel
from stylear.train.data import TrainingBatch, forward_logits
from stylear.train.precision import autocast


def compute_logits(
    model: StyleModel,
    batch: TrainingBatch,
    precision: str,
    sigma: tuple[float, float] = (0.0, 0.0),
    seed: int = 0,
    step: int = 0,
) -> Tensor:
    """Logits (N, V) at the code positions of a batch, with noise on its style tokens.

    The noise of a row depends on (seed, step) and on its position in the global batch alone.
    """
    device = model.device
    with autocast(precision, device.type):
        tokens = None
        if batch.features is not None and len(batch.features):
            if model.resampler is None:
                raise WeightsError(f"{model.name}: expected a resampler, found none")
            tokens = model.resampler(batch.features.to(device))
            if sigma[1]:
                shape = (tokens.shape[1], tokens.shape[2])
                noise = draw_noise(shape, sigma, seed, step, batch.styled_positions.tolist())
                tokens = tokens + noise.to(tokens)
        return forward_logits(model, batch.batch.to(device), tokens)


def draw_noise(
    shape: tuple[int, int],
    sigma: tuple[float, float],
    seed: int,
    step: int,
    positions: Iterable[int],
) -> Tensor:
    """Noise (B', K, D) for style tokens of `shape` (K, D), one row for each position in the global batch.

    A row's standard deviation is drawn uniformly from the range `sigma`. Drawn on the CPU in float32, so that
    it is the same on every device.
    """
    low, high = sigma
    rows = []
    for position in positions:
        state = np.random.SeedSequence([seed, step, position]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]))
        deviation = low + (high - low) * torch.rand((), generator=generator)
        rows.append(deviation * torch.randn(shape, generator=generator))
    return torch.stack(rows)
