"""IP-Adapter weights, plain and plus: read in both layouts of the releases, every key checked.

plain   image_proj = a linear layer and a norm: the CLIP image embedding becomes 4 tokens
plus    image_proj = a perceiver resampler over the encoder's hidden states, usually 16 tokens

Axes: C cross attention, E image embedding, H resampler, Q queries, V hidden states of the encoder.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylear.curate.recipe.synthesizers import SdxlSettings
from stylear.curate.synthesize.diffusers.load import format_shape
from stylear.errors import WeightsError
from stylear.weights.files import read_tensors
from stylear.weights.names import resolve

PARTS = ("image_proj", "ip_adapter")
PLAIN_TOKENS = 4  # of a plain adapter
PLUS_DEPTH = 4  # layers of a plus adapter's resampler, as diffusers builds it
Adapter = dict[str, dict[str, Tensor]]
Shape = tuple[int, ...]


def find_adapter_file(settings: SdxlSettings) -> Path:
    """The IP-Adapter's weights file: the path itself, or the named file in its subfolder."""
    path = resolve(settings.ip_adapter)
    if path.is_dir():
        path = path / settings.ip_adapter_subfolder / settings.ip_adapter_weight_name
    if not path.is_file():
        raise WeightsError(
            f"no IP-Adapter weights at {path}",
            hint="set ip_adapter to the file, or also ip_adapter_subfolder, ip_adapter_weight_name",
        )
    return path


def find_image_encoder(settings: SdxlSettings, model: Path, adapter: Path) -> Path:
    """The folder of the CLIP image encoder: the setting, the model's own, or the adapter release's.

    In the release, adapters named `vit-h` use models/image_encoder; the others use the one beside them.
    """
    if settings.image_encoder is not None:
        return resolve(settings.image_encoder)
    beside, large = adapter.parent / "image_encoder", adapter.parent.parent / "models/image_encoder"
    places = [large, beside] if "vit-h" in adapter.name else [beside]
    for path in (model / "image_encoder", *places):
        if path.is_dir():
            return path
    raise WeightsError(
        f"no image_encoder directory in {model} or {adapter.parent}",
        hint="set image_encoder to the directory of the adapter's CLIP image encoder",
    )


def read_adapter(path: Path) -> Adapter:
    """The two parts of an adapter, from flat keys (.safetensors) or nested ones (.bin).

    Raises WeightsError if the file cannot be read or a part is missing.
    """
    parts: Adapter = {name: {} for name in PARTS}
    nested = {} if path.suffix == ".safetensors" else _read_nested(path)
    flat = read_tensors(path) if not nested else {}
    for name in PARTS:
        for key, value in nested.get(name, {}).items():
            parts[name][key] = value
        for key, value in flat.items():
            if key.startswith(f"{name}."):
                parts[name][key.removeprefix(f"{name}.")] = value
        if not parts[name]:
            raise WeightsError(
                f"{path}: expected tensors of {name}, found"
                f" {', '.join(sorted(nested or flat)[:3]) or 'none'}",
                hint="the file must be an IP-Adapter of the original release",
            )
    return parts


def _read_nested(path: Path) -> Mapping[str, Mapping[str, Tensor]]:
    """The nested dictionaries of a torch checkpoint; nothing but tensors is unpickled.

    Raises WeightsError if the file cannot be read.
    """
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        lines = str(error).strip().splitlines()
        raise WeightsError(
            f"{path}: cannot be read: {lines[0] if lines else type(error).__name__}",
            hint="the file is corrupt, truncated, or holds more than tensors",
        ) from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path}: expected named tensors, found {type(found).__name__}")
    return {
        str(name): {str(key): value for key, value in part.items() if isinstance(value, Tensor)}
        for name, part in found.items()
        if isinstance(part, dict)
    }


def is_plus(adapter: Adapter) -> bool:
    """Whether this is a plus adapter, which reads the encoder's hidden states."""
    return "latents" in adapter["image_proj"]


def check_adapter(adapter: Adapter, unet: Any, encoder: Any, path: Path) -> None:
    """Raise WeightsError if the keys or shapes do not fit the UNet and the image encoder."""
    expected = {f"ip_adapter.{k}": shape for k, shape in attention_shapes(unet).items()}
    cross, vision = unet.config.cross_attention_dim, encoder.config
    wanted = plain_shapes(cross, vision.projection_dim)
    if is_plus(adapter):
        wanted = plus_shapes(adapter["image_proj"], cross, vision.hidden_size)
    expected |= {f"image_proj.{k}": shape for k, shape in wanted.items()}
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


def attention_shapes(unet: Any) -> dict[str, Shape]:
    """Expected shapes of the `ip_adapter` part: two matrices (width, C) for each cross attention."""
    widths = unet.config.block_out_channels
    shapes: dict[str, Shape] = {}
    for place, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            block, number = name.split(".")[:2]
            width = widths[-1] if block == "mid_block" else widths[int(number)]
            if block == "up_blocks":
                width = widths[::-1][int(number)]
            for matrix in ("to_k_ip", "to_v_ip"):
                shapes[f"{place}.{matrix}.weight"] = (width, unet.config.cross_attention_dim)
    return shapes


def plain_shapes(cross: int, embedding: int) -> dict[str, Shape]:
    """Expected shapes of a plain adapter's `image_proj`."""
    return {
        "proj.weight": (PLAIN_TOKENS * cross, embedding),
        "proj.bias": (PLAIN_TOKENS * cross,),
        "norm.weight": (cross,),
        "norm.bias": (cross,),
    }


def plus_shapes(found: Mapping[str, Tensor], cross: int, hidden: int) -> dict[str, Shape]:
    """Expected shapes of a plus adapter's `image_proj`; Q, H and the heads come from the tensors found."""
    latents, query = found["latents"], found.get("layers.0.0.to_q.weight", torch.empty(0))
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
