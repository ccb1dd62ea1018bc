"""The metadata that all images of one diffusers pipeline share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import diffusers
import torch

from stylear.curate.recipe.synthesizers import DiffusionSettings
from stylear.pair import Scalar


def describe_pipeline(
    pipeline: Any,
    settings: DiffusionSettings,
    hashes: Mapping[str, str],
    dtype: torch.dtype,
    device: str,
) -> dict[str, Scalar]:
    """The settings that decide an image, weights hashes, scheduler, library versions and device."""
    sampler = pipeline.scheduler
    decisive = {name: to_scalar(value) for name, value in settings.result_settings().items()}
    return {
        **decisive,
        "pipeline": type(pipeline).__name__,
        **hashes,
        "sampler": type(sampler).__name__,
        "sampler_options": to_scalar(describe_scheduler(sampler)),
        "dtype": str(dtype).removeprefix("torch."),
        "safety": "no checker"
        if getattr(pipeline, "safety_checker", None) is None
        else "not checked",
        "device": torch.cuda.get_device_name(device) if device == "cuda" else device,
        "libraries": f"diffusers {diffusers.__version__}, torch {torch.__version__}",
    }


def describe_scheduler(sampler: Any) -> dict[str, Any]:
    """A scheduler's configuration without the private keys that diffusers adds."""
    return {name: value for name, value in sampler.config.items() if not name.startswith("_")}


def to_scalar(value: Any) -> Scalar:
    """A setting as one value: lists and mappings as JSON, anything JSON cannot hold as its text."""
    if isinstance(value, Scalar):
        return value
    return json.dumps(value, sort_keys=True, default=str)
