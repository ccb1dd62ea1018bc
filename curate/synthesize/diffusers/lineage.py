"""What every image of a diffusers pipeline is said to come from, but for its own job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import diffusers
import torch

from stylear.curate.recipe.synthesizers import DiffusionSettings
from stylear.pair import Scalar


def lineage(
    pipeline: Any,
    settings: DiffusionSettings,
    hashes: Mapping[str, str],
    dtype: torch.dtype,
    device: str,
) -> dict[str, Scalar]:
    """The settings that decide, names and hashes of the weights, sampler, libraries and device."""
    sampler = pipeline.scheduler
    told = {name: scalar(value) for name, value in settings.deciding().items()}
    return {
        **told,
        "pipeline": type(pipeline).__name__,
        **hashes,
        "sampler": type(sampler).__name__,
        "sampler_options": scalar(options_of(sampler)),
        "dtype": str(dtype).removeprefix("torch."),
        "safety": "no checker"
        if getattr(pipeline, "safety_checker", None) is None
        else "not checked",
        "device": torch.cuda.get_device_name(device) if device == "cuda" else device,
        "libraries": f"diffusers {diffusers.__version__}, torch {torch.__version__}",
    }


def options_of(sampler: Any) -> dict[str, Any]:
    """A scheduler's configuration without what diffusers notes beside it."""
    return {name: value for name, value in sampler.config.items() if not name.startswith("_")}


def scalar(value: Any) -> Scalar:
    """A setting as one value: what is more is JSON, what JSON has no word for its text."""
    if isinstance(value, Scalar):
        return value
    return json.dumps(value, sort_keys=True, default=str)
