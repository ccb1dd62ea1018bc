"""The loss on the held-out split."""

from __future__ import annotations

from pathlib import Path

import torch

from stylear.model.style_model import StyleModel
from stylear.train.data import EncodedSet, open_encoded
from stylear.train.forward import compute_logits
from stylear.train.losses import image_code_loss
from stylear.train.precision import autocast
from stylear.train.settings import SftSettings

VALIDATION_BATCHES = 8


def open_validation(model: StyleModel, settings: SftSettings, cache: Path) -> EncodedSet | None:
    """The encoded val split; None if no corpus has one."""
    corpora = [corpus for corpus in settings.corpus if any((corpus / "val").glob("*.tar"))]
    if not corpora:
        return None
    return open_encoded(
        model, corpora, "val", cache, features=settings.features, buckets=settings.buckets
    )


@torch.no_grad()
def validate(
    model: StyleModel, validation: EncodedSet, settings: SftSettings, device: str
) -> float:
    """Mean loss over at most VALIDATION_BATCHES batches, the same at every call."""
    model.decoder.eval()
    total, count = 0.0, 0
    for number in range(VALIDATION_BATCHES):
        if number * settings.batch_size >= len(validation):
            break
        size = min(settings.batch_size, len(validation) - number * settings.batch_size)
        batch = validation.build_step_batch(
            0, number, size, dropout=0.0, style_from=settings.style_from
        )
        with autocast(settings.precision, device):
            logits = compute_logits(model, batch, 0.0, 0, number)
            loss = image_code_loss(logits, batch.batch.codes.to(device))
        total, count = total + loss.item() * size, count + size
    model.decoder.train()
    return total / count
