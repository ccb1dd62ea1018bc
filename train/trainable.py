"""Which parameters train: LoRA or the whole decoder, and the resampler."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from stylear.model.lora import apply_lora, lora_layers, lora_parameters, merge_lora
from stylear.model.style_model import StyleModel
from stylear.train.settings import Settings, SftSettings


def prepare_lora(model: StyleModel, settings: Settings) -> None:
    """Add LoRA, keep existing LoRA, or merge it if every weight is trained (`full`)."""
    adapted = next(lora_layers(model.decoder), None) is not None
    if settings.full and adapted:
        merge_lora(model.decoder)
    elif not settings.full and not adapted:
        apply_lora(model.decoder, settings.lora_rank, seed=settings.seed)


def select_trainable(model: StyleModel, full: bool) -> Iterator[tuple[str, nn.Parameter]]:
    """Freeze all parameters but those to train; yields these by name."""
    for part in (model.decoder, model.vq):
        part.requires_grad_(False)
    if full:
        model.decoder.requires_grad_(True)
    else:
        for parameter in lora_parameters(model.decoder):
            parameter.requires_grad_(True)
    for name, parameter in model.decoder.named_parameters():
        if parameter.requires_grad:
            yield f"decoder.{name}", parameter
    if model.resampler is not None:
        for name, parameter in model.resampler.requires_grad_(True).named_parameters():
            yield f"resampler.{name}", parameter


def choose_learning_rates(settings: SftSettings) -> dict[str, float]:
    """Learning rates by prefix of the parameter name."""
    return {} if settings.resampler_lr is None else {"resampler.": settings.resampler_lr}


def set_training(model: StyleModel) -> None:
    model.decoder.train()
    if model.resampler is not None:
        model.resampler.train()
