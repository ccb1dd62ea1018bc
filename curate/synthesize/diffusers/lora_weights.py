"""A LoRA's weights from a file or a directory, each layer's change at the strength that it was trained with.

PEFT's directory    adapter_config.json, adapter_model.safetensors: alpha and patterns are in the config
diffusers' file     pytorch_lora_weights.safetensors: alpha may be in the file's header
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from stylear.errors import WeightsError
from stylear.model.lora import CONFIG_FILE, PEFT_PREFIX
from stylear.model.lora_config import check_peft_config, layer_alpha
from stylear.weights.files import read_json, read_tensors
from stylear.weights.formats import SAFETENSORS, recognise_format

# in the order in which a directory is searched
FILES = tuple(
    f"{name}.{ending}"
    for name in ("pytorch_lora_weights", "adapter_model")
    for ending in ("safetensors", "bin")
)
HEADER_KEY = "lora_adapter_metadata"  # where diffusers keeps a LoRA's config in a file's header
COMPONENTS = ("unet", "transformer", "text_encoder", "text_encoder_2")  # of a pipeline
# the tensors of a LoRA as PEFT, diffusers and diffusers' attention processors name them
LORA_KEY = re.compile(
    r"(.+?)(?:\.lora_([AB])(?:\.\w+)?|\.lora(?:_linear_layer)?\.(down|up)|_lora\.(down|up))\.weight"
)


def find_lora_file(path: Path) -> Path:
    """The weights of a LoRA: the file itself, or the one of a PEFT or diffusers directory.

    Raises WeightsError for a directory that holds neither.
    """
    if not path.is_dir():
        return path
    candidates = [path / name for name in FILES if (path / name).is_file()]
    if not candidates:
        entries = sorted(entry.name for entry in path.iterdir())
        raise WeightsError(
            f"{path}: expected a LoRA directory with one of {', '.join(FILES)}, found "
            f"{', '.join(entries[:5]) or 'nothing'}",
            hint="give the LoRA's file",
        )
    return candidates[0]


def read_lora(path: Path, denoiser: str) -> dict[str, Tensor]:
    """The tensors of a LoRA as diffusers names them, their alpha multiplied in where a config gives one.

    `denoiser` (unet, transformer) is what a PEFT directory's names belong to. Raises WeightsError.
    """
    file = find_lora_file(path)
    tensors = read_tensors(file)
    config_file = file.parent / CONFIG_FILE
    if path.is_dir() and file.name.startswith("adapter_model"):
        config = read_json(config_file)
        check_peft_config(config, config_file)
        plain = {name.removeprefix(PEFT_PREFIX): value for name, value in tensors.items()}
        tensors = {
            name
            if name.startswith(tuple(f"{component}." for component in COMPONENTS))
            else f"{denoiser}.{name}": value
            for name, value in plain.items()
        }
        return multiply_alpha(tensors, dict.fromkeys(COMPONENTS, config))
    return multiply_alpha(tensors, read_header_configs(file))


def read_header_configs(file: Path) -> dict[str, dict[str, Any]]:
    """The config of each component's LoRA in a safetensors header, as diffusers writes it; often none."""
    from safetensors import safe_open

    if recognise_format(file).kind != SAFETENSORS:
        return {}
    with safe_open(file, framework="pt") as stored:
        text = (stored.metadata() or {}).get(HEADER_KEY)
    if text is None:
        return {}
    try:
        flat = json.loads(text)
    except ValueError as error:
        raise WeightsError(f"{file}: {HEADER_KEY}: expected JSON, found {error}") from error
    configs: dict[str, dict[str, Any]] = {}
    for key, value in flat.items() if isinstance(flat, dict) else ():
        component, _, setting = key.partition(".")
        if component in COMPONENTS:
            configs.setdefault(component, {})[setting] = value
    for component, config in configs.items():
        check_peft_config(config, f"{file}: {HEADER_KEY}: {component}")
    return configs


def multiply_alpha(
    tensors: Mapping[str, Tensor], configs: Mapping[str, Mapping[str, Any]]
) -> dict[str, Tensor]:
    """The tensors with each B times its layer's alpha / rank, where its component has a config."""
    scaled = dict(tensors)
    for key, value in tensors.items():
        component, _, name = key.partition(".")
        match = LORA_KEY.fullmatch(name)
        if component in configs and match is not None and lora_side(key) == "B":
            rank = value.shape[1]
            scale = layer_alpha(configs[component], match[1], rank) / rank
            scaled[key] = value if scale == 1 else (value.float() * scale).to(value.dtype)
    return scaled


def lora_side(key: str) -> str | None:
    """ "A" for the down projection of a LoRA, "B" for the up projection, None for other tensors."""
    match = LORA_KEY.fullmatch(key)
    if match is None:
        return None
    return "A" if {"A", "down"} & set(match.groups()[1:]) else "B"
