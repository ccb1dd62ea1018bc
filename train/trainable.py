"""Which parameters are trained: LoRA or the whole decoder, and the resampler."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from stylear.errors import UsageError
from stylear.model.lora import (
    LoraLinear,
    apply_lora_config,
    lora_layers,
    lora_parameters,
    merge_lora,
)
from stylear.model.lora_config import LoraConfig
from stylear.model.style_model import StyleModel
from stylear.train.settings import Settings, SftSettings
from stylear.weights import files as weights


def prepare_lora(model: StyleModel, settings: Settings) -> None:
    """Add LoRA, keep existing LoRA, or merge it if every weight is trained (`full`).

    Raises UsageError for settings that do not fit the model or the LoRA that it has.
    """
    adapted = dict(lora_layers(model.decoder))
    if settings.full:
        if adapted:
            merge_lora(model.decoder)
        return
    config = build_lora_config(settings)
    if not adapted:
        try:
            apply_lora_config(model.decoder, config, seed=settings.seed)
        except ValueError as error:
            raise UsageError(
                f"lora_targets: {error}", hint="name linear layers of the decoder, such as q_proj"
            ) from error
        return
    require_same_lora(model.name, adapted, config, settings)
    if settings.lora_dropout is not None:
        for layer in adapted.values():
            layer.dropout = settings.lora_dropout


def build_lora_config(settings: Settings) -> LoraConfig:
    """LoRA's settings: those of the file `lora_config`, and flags over them."""
    config = LoraConfig()
    if settings.lora_config is not None:
        config = LoraConfig.from_peft(weights.read_json(settings.lora_config), settings.lora_config)
    flags: dict[str, Any] = {
        "r": settings.lora_rank,
        "lora_alpha": settings.lora_alpha,
        "target_modules": settings.lora_targets,
        "lora_dropout": settings.lora_dropout,
        "use_rslora": settings.use_rslora,
    }
    return replace(config, **{name: value for name, value in flags.items() if value is not None})


def require_same_lora(
    name: str, layers: Mapping[str, LoraLinear], config: LoraConfig, settings: Settings
) -> None:
    """Raise UsageError if the settings ask for other LoRA than the model has."""
    ranks = {layer.rank for layer in layers.values()}
    alphas = {layer.alpha for layer in layers.values()}
    targets = {layer.rpartition(".")[2] for layer in layers}
    for key, expected, found in (
        ("lora_rank", {settings.lora_rank}, ranks),
        ("lora_alpha", {settings.lora_alpha}, alphas),
        ("lora_targets", settings.lora_targets and set(settings.lora_targets), targets),
        ("use_rslora", {settings.use_rslora}, {layer.use_rslora for layer in layers.values()}),
        ("lora_config", settings.lora_config and {config.r}, ranks),
    ):
        if expected and expected != {None} and expected != found:
            shown = [", ".join(sorted(map(str, values))) for values in (found, expected)]
            raise UsageError(
                f"{key}: expected {shown[0]} as the adapter of {name} has, found {shown[1]}",
                hint=f"omit {key} to continue with that adapter, or start from its base",
            )


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


def prepare_blocks(model: StyleModel, settings: Settings) -> None:
    """Set activation checkpointing and compile the blocks, as the settings ask."""
    every = {"none": 0, "all": 1}
    chosen = settings.checkpoint_blocks
    model.decoder.checkpoint_every = every[chosen] if isinstance(chosen, str) else chosen
    if settings.compile:
        compile_blocks(model)


def compile_blocks(model: StyleModel, backend: str = "inductor") -> None:
    """Compile each block on its own: one graph serves all of them, and its shapes may change."""
    for block in model.decoder.model.layers:
        block.compile(backend=backend)


def seed_dropout(seed: int, step: int, part: int) -> None:
    """Seed torch for the dropout of a part of a step, so that a resumed run draws the same."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, part]).generate_state(1)[0]))
