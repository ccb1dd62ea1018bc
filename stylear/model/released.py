"""StyleAR's release format: LoRA in model.safetensors, the resampler in image_proj.pth."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import torch

from stylear.model import lora
from stylear.model.build import attach_style_encoder
from stylear.model.resampler import ResamplerConfig
from stylear.model.style_model import StyleModel
from stylear.weights import files as weights

RELEASED_LORA, RELEASED_RESAMPLER = "model.safetensors", "image_proj.pth"


def load_released(base: StyleModel, directory: str | Path, clip: str) -> StyleModel:
    """A base model with StyleAR's released weights: LoRA and resampler.

    The LoRA is applied to the base's own decoder. Raises WeightsError if the weights belong to another base.
    """
    directory = Path(directory)
    path = directory / RELEASED_RESAMPLER
    tensors = weights.read_tensors(path, ("latents",))
    config = ResamplerConfig.infer(tensors, what=str(path))
    sizes = {name: value for name, value in config.to_dict().items() if name != "num_queries"}
    model = attach_style_encoder(base, clip, config.num_queries, sizes=sizes)
    assert model.resampler is not None
    weight = base.decoder.model.norm.weight
    weights.load_into(
        model.resampler, tensors, what=str(path), dtype=weight.dtype, device=weight.device
    )
    lora.read_released(base.decoder, directory / RELEASED_LORA)
    return replace(model, name=directory.name).eval()


def save_released(model: StyleModel, directory: str | Path) -> None:
    """Write LoRA and resampler as StyleAR's release does, in float32."""
    if model.resampler is None:
        raise ValueError(f"{model.name}: has no resampler to write")
    directory = Path(directory)
    lora.write_released(model.decoder, directory / RELEASED_LORA, torch.float32)
    state = {k: v.detach().cpu().float() for k, v in model.resampler.state_dict().items()}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    weights.write_bytes(directory / RELEASED_RESAMPLER, buffer.getvalue())
