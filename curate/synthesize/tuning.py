"""Making an opened pipeline ready: a few-step LoRA, another sampler, the fast and the frugal modes."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from curate.synthesize.opening import loading, quiet, sampler_of, text_of
from curate.synthesize.settings import DiffusionSettings
from stylear.errors import WeightsError
from stylear.weights import read_tensors, resolve, sha256_of

DENOISERS = ("unet", "transformer")
LORA_KEY = re.compile(r"(.+?)\.lora_([AB])(?:\.\w+)?\.weight")


def prepare(pipeline: Any, settings: DiffusionSettings, device: str) -> dict[str, str]:
    """Fuse the LoRA, set the sampler, choose the modes, move to the device; the LoRA's hash.

    Raises WeightsError for a LoRA of another model, RecipeError for a sampler that diffusers lacks.
    """
    hashes = {}
    if settings.lora is not None:
        path = resolve(settings.lora)
        hashes["lora_sha256"] = sha256_of(path)
        fuse_lora(pipeline, read_tensors(path), settings.lora_scale, str(path))
    pipeline.scheduler = sampler_of(pipeline.scheduler, settings.sampler, settings.sampler_options)
    with quiet():
        place(pipeline, settings, device)
    return hashes


def place(pipeline: Any, settings: DiffusionSettings, device: str) -> None:
    """Choose how the parts of a pipeline run, and bring them to where they do."""
    vae = getattr(pipeline, "vae", None)
    if vae is not None:
        if settings.vae_slicing and hasattr(vae, "enable_slicing"):
            vae.enable_slicing()
        if settings.vae_tiling and hasattr(vae, "enable_tiling"):
            vae.enable_tiling()
    if device != "cpu":
        for part in filter(None, (getattr(pipeline, "unet", None), vae)):
            part.to(memory_format=torch.channels_last)  # convolutions are quicker so
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
    """Add a LoRA to the weights of a pipeline, `scale` times.

    Raises WeightsError naming the first key that has no place in the pipeline, or another shape.
    """
    hint = "the LoRA must have been made for this kind of pipeline"
    if not hasattr(pipeline, "load_lora_weights"):
        raise WeightsError(f"{what}: {type(pipeline).__name__} takes no LoRA", hint="remove lora")
    with quiet(), loading(what, hint):
        options = {"unet_config": pipeline.unet.config} if hasattr(pipeline, "unet") else {}
        renamed = pipeline.lora_state_dict(dict(tensors), **options)
    check_lora(pipeline, renamed[0] if isinstance(renamed, tuple) else renamed, what)
    with quiet(), loading(what, hint):
        pipeline.load_lora_weights(dict(tensors))
        pipeline.fuse_lora(lora_scale=scale)
        pipeline.unload_lora_weights()


def check_lora(pipeline: Any, tensors: dict[str, Tensor], what: str) -> None:
    """Raise WeightsError for the first tensor of a LoRA that fits no layer of the pipeline."""
    layers: dict[str, dict[str, torch.nn.Module]] = {}
    for key, tensor in sorted(tensors.items()):
        part, _, inner = key.partition(".")
        module = getattr(pipeline, part, None)
        if part not in layers:
            layers[part] = (
                dict(module.named_modules()) if isinstance(module, torch.nn.Module) else {}
            )
        if key.endswith(".alpha") or "dora_scale" in key:
            continue
        found = LORA_KEY.fullmatch(inner)
        weight = getattr(layers[part].get(found[1]), "weight", None) if found else None
        axis = 1 if found and found[2] == "A" else 0
        if weight is None or weight.shape[axis] != tensor.shape[axis]:
            expected = (
                "a layer of that name" if weight is None else f"{weight.shape[axis]} on axis {axis}"
            )
            raise WeightsError(
                f"{what}: {key}: expected {expected}, found {text_of(tensor.shape)}",
                hint="the LoRA must have been made for this kind of pipeline",
            )
    if not tensors:
        raise WeightsError(f"{what}: expected tensors of a LoRA, found none")
