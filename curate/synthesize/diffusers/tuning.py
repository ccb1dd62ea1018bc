"""Configure a loaded pipeline: fuse a LoRA, replace the scheduler, set the speed and memory modes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stylear.curate.recipe.synthesizers import DiffusionSettings
from stylear.curate.synthesize.diffusers.load import (
    format_shape,
    open_sampler,
    silence_libraries,
    wrap_load_errors,
)
from stylear.curate.synthesize.diffusers.lora_weights import LORA_KEY, lora_side, read_lora
from stylear.errors import WeightsError
from stylear.weights.files import hash_path
from stylear.weights.names import resolve_model

DENOISERS = ("unet", "transformer")
LORA_HINT = "the LoRA must have been made for this kind of pipeline"


def prepare_pipeline(pipeline: Any, settings: DiffusionSettings, device: str) -> dict[str, str]:
    """Fuse the LoRA, set the scheduler and the modes, move to the device; returns the LoRA's hash.

    Raises WeightsError for a LoRA of another model, RecipeError for an unknown scheduler.
    """
    hashes = {}
    if settings.lora is not None:
        path = resolve_model(settings.lora)
        hashes["lora_sha256"] = hash_path(path)
        denoiser = next((name for name in DENOISERS if hasattr(pipeline, name)), DENOISERS[0])
        fuse_lora(pipeline, read_lora(path, denoiser), settings.lora_scale, str(path))
    pipeline.scheduler = open_sampler(
        pipeline.scheduler, settings.sampler, settings.sampler_options
    )
    with silence_libraries():
        move_to_device(pipeline, settings, device)
    return hashes


def move_to_device(pipeline: Any, settings: DiffusionSettings, device: str) -> None:
    """Set slicing, tiling, offload and compilation, and move the pipeline to the device."""
    vae = getattr(pipeline, "vae", None)
    if vae is not None:
        if settings.vae_slicing and hasattr(vae, "enable_slicing"):
            vae.enable_slicing()
        if settings.vae_tiling and hasattr(vae, "enable_tiling"):
            vae.enable_tiling()
    if device != "cpu":
        for part in filter(None, (getattr(pipeline, "unet", None), vae)):
            part.to(memory_format=torch.channels_last)  # faster convolutions
    if device == "cpu" or settings.offload == "none":
        pipeline.to(device)
    elif settings.offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.enable_sequential_cpu_offload(device=device)
    if settings.compile:
        for name in DENOISERS:
            if (denoiser := getattr(pipeline, name, None)) is not None:
                denoiser.compile()


def fuse_lora(pipeline: Any, tensors: dict[str, Tensor], scale: float, what: str) -> None:
    """Fuse a LoRA into the weights of a pipeline with factor `scale`.

    Raises WeightsError naming the first key that matches no layer, or has another shape.
    """
    if not hasattr(pipeline, "load_lora_weights"):
        raise WeightsError(
            f"{what}: {type(pipeline).__name__} does not support LoRA", hint="remove lora"
        )
    if not tensors:
        raise WeightsError(f"{what}: expected tensors of a LoRA, found none", hint=LORA_HINT)
    with silence_libraries(), wrap_load_errors(what, LORA_HINT):
        options = {"unet_config": pipeline.unet.config} if hasattr(pipeline, "unet") else {}
        state = pipeline.lora_state_dict(dict(tensors), **options)
    renamed: dict[str, Tensor] = state[0] if isinstance(state, tuple) else state
    for name in DENOISERS:
        if hasattr(pipeline, name):
            check_lora(getattr(pipeline, name), name, renamed, what)
    with silence_libraries(), wrap_load_errors(what, LORA_HINT):
        pipeline.load_lora_weights(dict(tensors))
    expected = sum(lora_side(key) == "A" for key in renamed)
    found_layers = sum(
        ".lora_A." in name
        for part in pipeline.components.values()
        if isinstance(part, torch.nn.Module)
        for name, _ in part.named_parameters()
    )
    if found_layers != expected:
        raise WeightsError(
            f"{what}: expected {expected} LoRA layers to match the pipeline, found {found_layers}",
            hint=LORA_HINT,
        )
    with silence_libraries(), wrap_load_errors(what, LORA_HINT):
        pipeline.fuse_lora(lora_scale=scale)
        pipeline.unload_lora_weights()


def check_lora(module: torch.nn.Module, part: str, tensors: dict[str, Tensor], what: str) -> None:
    """Raise WeightsError if a LoRA tensor matches no layer of its component."""
    layers = dict(module.named_modules())
    for key, tensor in sorted(tensors.items()):
        if not key.startswith(f"{part}.") or key.endswith(".alpha") or "dora_scale" in key:
            continue
        weight = None
        if match := LORA_KEY.fullmatch(key.removeprefix(f"{part}.")):
            name = match[1].replace(".processor.", ".")
            name += ".0" if match[4] and name.endswith(".to_out") else ""
            weight = getattr(layers.get(name), "weight", None)
        axis = 1 if lora_side(key) == "A" else 0
        if weight is None or weight.shape[axis] != tensor.shape[axis]:
            expected = (
                "a layer of that name" if weight is None else f"{weight.shape[axis]} on axis {axis}"
            )
            raise WeightsError(
                f"{what}: {key}: expected {expected}, found {format_shape(tensor.shape)}",
                hint=LORA_HINT,
            )
