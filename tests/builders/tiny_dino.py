"""A tiny random DINOv2 directory in the published layout, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

CONFIG: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,  # positions are interpolated to the 42 px of the processor
    "patch_size": 14,
}
SIZE, PATCHES = 42, 9


def write_tiny_dino(directory: Path, seed: int = 0, registers: int = 0) -> Path:
    """A random model of 2 layers (42 px, 9 patches, width 32), saved by transformers."""
    from transformers import (
        BitImageProcessor,
        Dinov2Config,
        Dinov2Model,
        Dinov2WithRegistersConfig,
        Dinov2WithRegistersModel,
    )

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any
        if registers:
            config = Dinov2WithRegistersConfig(**CONFIG, num_register_tokens=registers)
            model = Dinov2WithRegistersModel(config)
        else:
            model = Dinov2Model(Dinov2Config(**CONFIG))
        for value in model.parameters():  # wider than at first, so that pictures embed apart
            if value.ndim > 1:
                torch.nn.init.normal_(value, std=0.2)
    model.save_pretrained(directory)
    BitImageProcessor(
        size={"shortest_edge": 48},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(directory)
    return directory
