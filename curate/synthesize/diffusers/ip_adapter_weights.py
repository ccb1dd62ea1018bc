"""IP-Adapter weights, plain and plus: releases and training checkpoints read, every key checked.

plain   image_proj = a linear layer and a norm: the CLIP image embedding becomes 4 tokens
plus    image_proj = a perceiver resampler over the encoder's hidden states, usually 16 tokens

Axes: C cross attention, E image embedding, H resampler, Q queries, V hidden states of the encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylear.curate.recipe.synthesizers import SdxlSettings
from stylear.curate.synthesize.diffusers.load import format_shape
from stylear.errors import WeightsError
from stylear.weights.files import read_tensors
from stylear.weights.names import resolve_model

PARTS = ("image_proj", "ip_adapter")
PREFIXES = {  # of releases, and of checkpoints as IP-Adapter's training scripts save them
    "image_proj.": "image_proj",
    "ip_adapter.": "ip_adapter",
    "image_proj_model.": "image_proj",
    "adapter_modules.": "ip_adapter",
}
UNET_PREFIX = "unet."  # of the UNet in a training checkpoint
MATRIX_MARK = "_ip."  # in the names of the adapter's matrices
TRAINED_FILES = (  # how a training checkpoint's directory may name its weights
    "ip_adapter.safetensors",
    "ip_adapter.bin",
    "model.safetensors",
    "pytorch_model.bin",
)
PLAIN_TOKENS = 4  # of a plain adapter
PLUS_DEPTH = 4  # layers of a plus adapter's resampler, as diffusers builds it
Adapter = dict[str, dict[str, Tensor]]
Shape = tuple[int, ...]


def find_adapter_file(settings: SdxlSettings) -> Path:
    """The IP-Adapter's weights file: the path itself, the named file in its subfolder, or a checkpoint's.

    Raises WeightsError if there is none.
    """
    folder = path = resolve_model(settings.ip_adapter)
    if folder.is_dir():
        path = folder / settings.ip_adapter_subfolder / settings.ip_adapter_weight_name
        trained = [folder / name for name in TRAINED_FILES if (folder / name).is_file()]
        if not path.is_file() and trained:
            path = trained[0]
    if not path.is_file():
        raise WeightsError(
            f"no IP-Adapter weights at {path}",
            hint="set ip_adapter to the file, or also set ip_adapter_subfolder and ip_adapter_weight_name",
        )
    return path


def find_image_encoder(settings: SdxlSettings, model: Path, adapter: Path) -> Path:
    """The folder of the CLIP image encoder: the setting, the model's own, or the adapter release's.

    In the release, adapters named `vit-h` use models/image_encoder; the others use the one beside them.
    """
    if settings.image_encoder is not None:
        return resolve_model(settings.image_encoder)
    beside, large = adapter.parent / "image_encoder", adapter.parent.parent / "models/image_encoder"
    folders = [large, beside] if "vit-h" in adapter.name else [beside]
    for path in (model / "image_encoder", *folders):
        if path.is_dir():
            return path
    raise WeightsError(
        f"no image_encoder directory in {model} or {adapter.parent}",
        hint="set image_encoder to the directory of the adapter's CLIP image encoder",
    )


def read_adapter(path: Path) -> Adapter:
    """The two parts of an adapter: of a release, or of a checkpoint of IP-Adapter's training scripts.

    A training checkpoint also holds the UNet, which is ignored. Saved as safetensors it may name the
    adapter's matrices only as parts of the UNet, because both share memory; see `number_matrices`.
    Raises WeightsError if the file cannot be read or a part is missing.
    """
    tensors = read_tensors(path, (*PREFIXES, UNET_PREFIX))
    parts: Adapter = {name: {} for name in PARTS}
    for key, value in tensors.items():
        for prefix, part in PREFIXES.items():
            if key.startswith(prefix):
                parts[part][key.removeprefix(prefix)] = value
    if not parts["ip_adapter"]:
        parts["ip_adapter"] = {
            key.removeprefix(UNET_PREFIX): value
            for key, value in tensors.items()
            if key.startswith(UNET_PREFIX) and MATRIX_MARK in key
        }
    for name in PARTS:
        if not parts[name]:
            raise WeightsError(
                f"{path}: expected tensors of {name}, found {', '.join(sorted(tensors)[:3]) or 'none'}",
                hint="give an IP-Adapter's release (image_proj.*, ip_adapter.*) or a checkpoint of its"
                " training (image_proj_model.*, adapter_modules.*)",
            )
    return parts


def number_matrices(adapter: Adapter, unet: Any) -> Adapter:
    """The adapter with matrices that are named after the UNet's processors numbered as in a release."""
    numbers = {f"{name}.": number for number, name in enumerate(unet.attn_processors)}
    numbered = {}
    for key, value in adapter["ip_adapter"].items():
        processor = key.partition(".processor.")[0] + ".processor."
        name = key.removeprefix(processor)
        numbered[f"{numbers[processor]}.{name}" if processor in numbers else key] = value
    return {**adapter, "ip_adapter": numbered}


def is_plus(adapter: Adapter) -> bool:
    """Whether this is a plus adapter, which reads the encoder's hidden states."""
    return "latents" in adapter["image_proj"]


def check_adapter(adapter: Adapter, unet: Any, encoder: Any, path: Path) -> None:
    """Raise WeightsError if the keys or shapes do not fit the UNet and the image encoder."""
    expected = {f"ip_adapter.{k}": shape for k, shape in list_attention_shapes(unet).items()}
    cross, vision = unet.config.cross_attention_dim, encoder.config
    image_proj = list_plain_shapes(cross, vision.projection_dim)
    if is_plus(adapter):
        image_proj = list_plus_shapes(adapter["image_proj"], cross, vision.hidden_size)
    expected |= {f"image_proj.{k}": shape for k, shape in image_proj.items()}
    found = {f"{part}.{k}": tuple(v.shape) for part in PARTS for k, v in adapter[part].items()}
    wrong = [key for key in {**expected, **found} if expected.get(key) != found.get(key)]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise WeightsError(
            f"{path}: {wrong[0]} expected {format_shape(expected.get(wrong[0]))},"
            f" found {format_shape(found.get(wrong[0]))}{more}",
            hint="adapter, image encoder and pipeline must belong together; plain and plus IP-Adapters"
            " are known, those for faces are not",
        )


def list_attention_shapes(unet: Any) -> dict[str, Shape]:
    """Expected shapes of the `ip_adapter` part: two matrices (width, C) for each cross attention."""
    widths = unet.config.block_out_channels
    shapes: dict[str, Shape] = {}
    for index, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            block, number = name.split(".")[:2]
            width = widths[-1] if block == "mid_block" else widths[int(number)]
            if block == "up_blocks":
                width = widths[::-1][int(number)]
            for matrix in ("to_k_ip", "to_v_ip"):
                shapes[f"{index}.{matrix}.weight"] = (width, unet.config.cross_attention_dim)
    return shapes


def list_plain_shapes(cross: int, embedding: int) -> dict[str, Shape]:
    """Expected shapes of a plain adapter's `image_proj`."""
    return {
        "proj.weight": (PLAIN_TOKENS * cross, embedding),
        "proj.bias": (PLAIN_TOKENS * cross,),
        "norm.weight": (cross,),
        "norm.bias": (cross,),
    }


def list_plus_shapes(tensors: Mapping[str, Tensor], cross: int, hidden: int) -> dict[str, Shape]:
    """Expected shapes of a plus adapter's `image_proj`; Q, H and the heads come from the tensors found."""
    latents, query = tensors["latents"], tensors.get("layers.0.0.to_q.weight", torch.empty(0))
    queries, width = latents.shape[-2:] if latents.dim() > 1 else (0, 0)
    inner = max(64, len(query) // 64 * 64)  # heads of 64
    shapes: dict[str, Shape] = {
        "latents": (1, queries, width),
        "proj_in.weight": (width, hidden),
        "proj_in.bias": (width,),
        "proj_out.weight": (cross, width),
        "proj_out.bias": (cross,),
        "norm_out.weight": (cross,),
        "norm_out.bias": (cross,),
    }
    for layer in range(PLUS_DEPTH):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            shapes[f"layers.{layer}.{norm}.weight"] = (width,)
            shapes[f"layers.{layer}.{norm}.bias"] = (width,)
        shapes[f"layers.{layer}.0.to_q.weight"] = (inner, width)
        shapes[f"layers.{layer}.0.to_kv.weight"] = (2 * inner, width)
        shapes[f"layers.{layer}.0.to_out.weight"] = (width, inner)
        shapes[f"layers.{layer}.1.1.weight"] = (4 * width, width)
        shapes[f"layers.{layer}.1.3.weight"] = (width, 4 * width)
    return shapes
