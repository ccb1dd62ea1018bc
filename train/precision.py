"""Number formats of a training run: trained weights are fp32, the frozen base may be bf16 or int8."""

from __future__ import annotations

import torch

from stylear.errors import UsageError
from stylear.model.int8 import quantize_blocks
from stylear.model.lora import lora_parameters
from stylear.model.open import load_model
from stylear.model.style_model import StyleModel
from stylear.train.settings import Settings

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.bfloat16}


def choose_base_format(settings: Settings) -> str:
    """The format of the frozen base: fp32, bf16 or int8.

    Raises UsageError for a base that cannot be held that way.
    """
    if settings.base_dtype == "auto":
        return "fp32" if settings.full else settings.precision
    if settings.full and settings.base_dtype != "fp32":
        raise UsageError(
            f"base_dtype: expected fp32 with full, found {settings.base_dtype}",
            hint="only a frozen base can be held in fewer bits; train LoRA instead, or leave it out",
        )
    if settings.base_dtype != "fp32" and settings.precision == "fp32":
        raise UsageError(
            f"base_dtype: expected fp32 with precision fp32, found {settings.base_dtype}",
            hint="also give --precision bf16",
        )
    return settings.base_dtype


def autocast(precision: str, device: str) -> torch.autocast:
    """Automatic casting to bf16 if the precision asks for it."""
    return torch.autocast(device.split(":")[0], torch.bfloat16, enabled=precision == "bf16")


def decoder_autocast(model: StyleModel) -> torch.autocast:
    """No automatic casting for a decoder whose base is in bf16 and needs no casts; else no change."""
    kind = model.device.type
    if model.decoder.model.norm.weight.dtype == torch.bfloat16:
        return torch.autocast(kind, enabled=False)
    return torch.autocast(
        kind, torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind)
    )


def load_for_training(name: str, settings: Settings, device: str) -> StyleModel:
    """Load a model with its base in the format that the settings ask for, and the trained weights in fp32."""
    dtype = DTYPES[choose_base_format(settings)]
    return load_model(name, device, dtype, trained_dtype=torch.float32)


def hold_base(model: StyleModel, settings: Settings) -> None:
    """Hold the decoder's base in the format that the settings ask for, and LoRA and the resampler in fp32."""
    base_format = choose_base_format(settings)
    dtype = DTYPES[base_format]
    trained = set(lora_parameters(model.decoder))
    for parameter in model.decoder.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.float32 if parameter in trained else dtype)
    if base_format == "int8":
        quantize_blocks(model.decoder)
    if model.resampler is not None:
        model.resampler.float()
