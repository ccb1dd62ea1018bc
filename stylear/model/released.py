"""StyleAR's release format: LoRA in model.safetensors, the resampler in image_proj.pth.

The release stores A as (inputs, rank) and B as (rank, outputs), both transposed relative to PEFT, and has no
alpha (alpha = rank). Import and export convert tensors from file to file, so that no decoder is loaded.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylear.errors import WeightsError
from stylear.model import lora
from stylear.model.families.chameleon import FAMILY as CHAMELEON
from stylear.model.families.family import CONFIG, TOKENIZER
from stylear.model.layout import read_tokenizer
from stylear.model.lineage import hash_decoder
from stylear.model.resampler import Resampler, ResamplerConfig
from stylear.model.style_model import RESAMPLER, STYLE, StyleSettings, read_settings
from stylear.model.transformer import Decoder
from stylear.weights import files as weights
from stylear.weights import names

RELEASED_LORA, RELEASED_RESAMPLER = "model.safetensors", "image_proj.pth"
CLIP = "clip-vit-h-14-laion2b"  # released code
# released code; of the first two the weights state the product only
HEADS, HEAD_DIM, RANK = 12, 64, 4
# released code, in every layer
LAYER_TARGETS = (*(f"self_attn.{name}_proj" for name in "qkvo"), "mlp.down_proj")


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was imported or exported."""

    directory: Path
    lora_layers: int
    rank: int
    resampler: ResamplerConfig
    is_as_released: bool  # whether the authors' inference code can load it: its rank and its heads

    def to_dict(self) -> dict[str, Any]:
        """One row of a table."""
        sizes = self.resampler
        return {
            "out": str(self.directory),
            "lora_layers": self.lora_layers,
            "rank": self.rank,
            "resampler_layers": sizes.depth,
            "heads": f"{sizes.heads} of {sizes.dim_head}",
            "style_tokens": sizes.num_queries,
        }


def import_released(
    base: str | Path,
    released: str | Path,
    out: str | Path,
    *,
    clip: str = CLIP,
    heads: int | None = None,
) -> Conversion:
    """Write a model directory that applies released weights to a base model.

    `released` holds image_proj.pth and either model.safetensors or a PEFT adapter. `heads` is the number of
    attention heads of the resampler, which the weights do not state; by default it must be the 12 heads of 64
    of the released code. Tensors keep their dtype. Raises WeightsError listing the tensors that are missing,
    surplus or of another shape.
    """
    source, folder = names.resolve_model(base), names.resolve_model(released)
    if (source / lora.CONFIG_FILE).is_file():
        raise WeightsError(
            f"{source}: expected a full base model, found a LoRA adapter ({lora.CONFIG_FILE})",
            hint="name the model that the released weights were trained on: lumina-mgpt-7b-768",
        )
    settings = read_settings(source, CHAMELEON.settings)
    raw = weights.read_json(source / CONFIG)
    CHAMELEON.require(raw, source)
    config = CHAMELEON.read_config(raw)
    layout = CHAMELEON.build_layout(
        read_tokenizer(source / TOKENIZER), raw, settings.style_placeholder
    )
    if layout.style_placeholder is None:
        raise WeightsError(
            f"{source / TOKENIZER}: expected the token {settings.style_placeholder}, found none"
        )
    with torch.device("meta"):
        decoder = CHAMELEON.build_decoder(raw, layout)
    if (folder / lora.CONFIG_FILE).is_file():
        lora.read_peft(decoder, folder)
    else:
        read_lora(decoder, folder / RELEASED_LORA)
    resampler, tensors = read_resampler(folder / RELEASED_RESAMPLER, config.hidden_size, heads)
    name = names.find_model_name(source)
    settings = replace(
        settings,
        clip=clip,
        num_style_tokens=resampler.num_queries,
        resampler=resampler,
        base={"model": name, "sha256": hash_decoder(source)},
    )
    with weights.replace_directory(Path(out)) as target:
        weights.write_json(target / CONFIG, raw)
        weights.write_bytes(target / TOKENIZER, layout.tokenizer.to_str(pretty=False).encode())
        weights.write_json(target / STYLE, settings.to_dict())
        lora.write_peft(decoder, target, name)
        weights.write_tensors(target / RESAMPLER, tensors)
    ranks = [layer.rank for _, layer in lora.lora_layers(decoder)]
    return _summarise(Path(out), ranks, resampler)


def export_released(model: str | Path, out: str | Path) -> Conversion:
    """Write the LoRA and the resampler of a model directory as StyleAR's release does.

    Tensors keep their dtype; a LoRA scale other than 1 is multiplied into B. Raises WeightsError if the model
    has no LoRA or no resampler, or LoRA on other layers than the released code reads.
    """
    directory, settings = _open_adapter(model)
    adapter, alphas, file = lora.read_peft_tensors(directory)
    raw = weights.read_json(directory / CONFIG)
    CHAMELEON.require(raw, directory)
    config = CHAMELEON.read_config(raw)
    expected = {
        *(f"model.layers.{i}.{t}" for i in range(config.num_hidden_layers) for t in LAYER_TARGETS),
        "lm_head",
    }
    layers = {key.rpartition(".")[0] for key in adapter}
    problems = [f"{name} expected, found nothing" for name in sorted(expected - layers)]
    problems += [f"{name} unexpected" for name in sorted(layers - expected)]
    if problems:
        raise WeightsError(
            f"{file}: the released format has LoRA on q, k, v, o, down_proj and lm_head: "
            f"{weights.list_some(problems, '; ')}",
            hint="export it as a PEFT adapter: --format peft",
        )
    tensors: dict[str, Tensor] = {}
    for layer in sorted(expected):
        a, b = adapter[f"{layer}.lora_A"], adapter[f"{layer}.lora_B"]
        scale = alphas[layer] / len(a)
        stem = "lm_head.lm_head" if layer == "lm_head" else layer
        tensors[f"{stem}_lora.A"] = a.T
        tensors[f"{stem}_lora.B"] = (b if scale == 1 else (b.float() * scale).to(b.dtype)).T
    resampler = _write_resampler(directory, settings, Path(out))
    weights.write_tensors(Path(out) / RELEASED_LORA, tensors)
    ranks = [len(value) for key, value in adapter.items() if key.endswith("lora_A")]
    return _summarise(Path(out), ranks, resampler)


def export_peft(model: str | Path, out: str | Path, base_name: str | None = None) -> Conversion:
    """Write the LoRA of a model directory as a PEFT adapter, and its resampler as image_proj.pth beside it.

    `base_name` is what the adapter names as its base, such as a hub id; by default the recorded base.
    Raises WeightsError if the model has no LoRA or no resampler.
    """
    directory, settings = _open_adapter(model)
    adapter, _, _ = lora.read_peft_tensors(directory)
    config = weights.read_json(directory / lora.CONFIG_FILE)
    if base_name is not None:
        config["base_model_name_or_path"] = base_name
    prefixed = {f"{lora.PEFT_PREFIX}{name}.weight": value for name, value in adapter.items()}
    resampler = _write_resampler(directory, settings, Path(out))
    weights.write_tensors(Path(out) / lora.WEIGHTS_FILES[0], prefixed)
    weights.write_json(Path(out) / lora.CONFIG_FILE, config)
    ranks = [len(value) for key, value in adapter.items() if key.endswith("lora_A")]
    return _summarise(Path(out), ranks, resampler)


def read_lora(decoder: Decoder, path: Path) -> None:
    """Apply the LoRA of a released model.safetensors to a plain decoder, which may be on the meta device.

    Raises WeightsError listing the tensors that are missing, surplus or of another shape.
    """
    stored = weights.read_tensors(path)
    layers = {
        "lm_head": decoder.lm_head,
        **{
            f"model.layers.{i}.{target}": decoder.get_submodule(f"model.layers.{i}.{target}")
            for i in range(decoder.config.num_hidden_layers)
            for target in LAYER_TARGETS
        },
    }
    rank = next((value.shape[-1] for name, value in stored.items() if name.endswith("_lora.A")), 0)
    expected: dict[str, Tensor] = {}
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        stem = "lm_head.lm_head_lora" if name == "lm_head" else f"{name}_lora"
        outputs, inputs = layer.weight.shape  # type: ignore[misc]
        expected[f"{stem}.A"] = torch.empty(inputs, rank, device="meta")
        expected[f"{stem}.B"] = torch.empty(rank, outputs, device="meta")
        tensors |= {
            f"{name}.lora_{part}": stored[f"{stem}.{part}"].T.contiguous()
            for part in "AB"
            if f"{stem}.{part}" in stored
        }
    weights.require_same_tensors(
        expected, stored, str(path), hint="the released weights belong to another base model"
    )
    lora.install_lora(decoder, tensors, {}, str(path))


def read_resampler(
    path: Path, hidden_size: int, heads: int | None = None
) -> tuple[ResamplerConfig, dict[str, Tensor]]:
    """The sizes and tensors of a released image_proj.pth, checked against the decoder's width.

    Raises WeightsError if the number of heads does not fit, and as `require_same_tensors` does.
    """
    tensors = weights.read_tensors(path, ("latents",))
    rows = tensors["layers.0.0.to_q.weight"].shape[0] if "layers.0.0.to_q.weight" in tensors else 0
    if heads is None and rows and rows != HEADS * HEAD_DIM:
        raise WeightsError(
            f"{path}: layers.0.0.to_q expected {HEADS * HEAD_DIM} rows "
            f"({HEADS} heads of {HEAD_DIM}, as in the released code), found {rows}",
            hint="if it was trained with another number of heads, give --heads N",
        )
    heads = HEADS if heads is None else heads
    if heads < 1 or rows % heads:
        raise WeightsError(
            f"{path}: layers.0.0.to_q expected a multiple of {heads} rows, one part for each head, "
            f"found {rows}"
        )
    config = ResamplerConfig.infer(tensors, dim_head=max(1, rows // heads), what=str(path))
    with torch.device("meta"):
        expected = Resampler(config).state_dict()
    weights.require_same_tensors(
        expected, tensors, str(path), hint="expected the tensors of the released resampler"
    )
    if config.output_dim != hidden_size:
        raise WeightsError(
            f"{path}: expected style tokens as wide as the base model, {hidden_size}, "
            f"found {config.output_dim}",
            hint="the released weights belong to another base model",
        )
    return config, {name: tensors[name] for name in expected}


def _open_adapter(model: str | Path) -> tuple[Path, StyleSettings]:
    """The directory and settings of a model with LoRA and a resampler."""
    directory = names.resolve_model(model)
    if not (directory / lora.CONFIG_FILE).is_file():
        raise WeightsError(
            f"{directory}: expected a model with LoRA ({lora.CONFIG_FILE}), found none",
            hint="a fully trained model has no LoRA to export; its directory is a Chameleon checkpoint",
        )
    settings = read_settings(directory, CHAMELEON.settings)
    if settings.resampler is None:
        raise WeightsError(f"{directory}: expected a model with style tokens, found no resampler")
    return directory, settings


def _write_resampler(directory: Path, settings: StyleSettings, out: Path) -> ResamplerConfig:
    assert settings.resampler is not None
    tensors = weights.read_tensors(directory / RESAMPLER, ("latents",))
    with torch.device("meta"):
        expected = Resampler(settings.resampler).state_dict()
    weights.require_same_tensors(expected, tensors, str(directory / RESAMPLER))
    buffer = io.BytesIO()
    torch.save({name: tensors[name] for name in expected}, buffer)
    weights.write_bytes(out / RELEASED_RESAMPLER, buffer.getvalue())
    return settings.resampler


def _summarise(out: Path, ranks: list[int], resampler: ResamplerConfig) -> Conversion:
    is_as_released = set(ranks) == {RANK} and (resampler.heads, resampler.dim_head) == (
        HEADS,
        HEAD_DIM,
    )
    return Conversion(out, len(ranks), max(ranks), resampler, is_as_released)
