"""The forward pass of a training step."""

from __future__ import annotations

from torch import Tensor

from stylear.errors import WeightsError
from stylear.model.style_model import StyleModel
from stylear.model.style_tokens import add_noise
from stylear.train.data import TrainingBatch, forward_logits, make_step_generator


def compute_logits(
    model: StyleModel, batch: TrainingBatch, sigma: float, seed: int, step: int
) -> Tensor:
    """Logits (N, V) of a step; the noise depends only on (seed, step)."""
    tokens = None
    if batch.features is not None and len(batch.features):
        if model.resampler is None:
            raise WeightsError(f"{model.name}: expected a resampler, found none")
        tokens = model.resampler(batch.features.to(model.device))
        tokens = add_noise(tokens, sigma, make_step_generator(seed, step))
    return forward_logits(model, batch.batch.to(model.device), tokens)
