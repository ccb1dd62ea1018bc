"""Write a model directory: all weights, or an adapter with the name of its base."""

from __future__ import annotations

from pathlib import Path

import torch

from stylear.model import lora
from stylear.model.families.family import CONFIG, TOKENIZER
from stylear.model.families.registry import find_family
from stylear.model.style_model import RESAMPLER, STYLE, StyleModel
from stylear.weights import files as weights


def save_model(
    model: StyleModel, directory: str | Path, dtype: torch.dtype | None = torch.float16
) -> None:
    """Write a model directory atomically; equal models give equal bytes.

    `dtype` is the dtype of floats on disk (None: unchanged). A decoder with LoRA is written as an adapter,
    which needs the base model named in `settings.base`. Raises StorageError if the directory exists and is
    not a model directory.
    """
    adapted = next(lora.lora_layers(model.decoder), None) is not None
    if adapted and "model" not in model.settings.base:
        raise ValueError(f"{model.name}: settings.base must name the base model of the adapter")
    family = find_family(model.config, directory)
    with weights.replace_directory(Path(directory)) as target:
        weights.write_json(target / CONFIG, model.config)
        weights.write_bytes(target / TOKENIZER, model.tokenizer.to_str(pretty=False).encode())
        weights.write_json(target / STYLE, model.settings.to_dict())
        if adapted:
            lora.write_peft(model.decoder, target, model.settings.base["model"], dtype)
        else:
            family.write_weights(model, target, dtype)
        if model.resampler is not None:
            weights.write_tensors(target / RESAMPLER, model.resampler.state_dict(), dtype=dtype)
