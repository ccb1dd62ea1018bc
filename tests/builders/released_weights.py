"""Random weights under the names and in the orientation in which the authors published theirs."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from stylear.model.decoder_config import DecoderConfig


def draw_lora(config: DecoderConfig, vocab_size: int, rank: int = 4) -> dict[str, Tensor]:
    """The LoRA of every layer: A is (inputs, rank), B is (rank, outputs)."""
    hidden, inner = config.hidden_size, config.intermediate_size
    narrow = config.num_key_value_heads * config.head_dim
    sizes = {"lm_head.lm_head_lora": (hidden, vocab_size)}
    for i in range(config.num_hidden_layers):
        attention = f"model.layers.{i}.self_attn"
        sizes |= {
            f"{attention}.q_proj_lora": (hidden, hidden),
            f"{attention}.k_proj_lora": (hidden, narrow),
            f"{attention}.v_proj_lora": (hidden, narrow),
            f"{attention}.o_proj_lora": (hidden, hidden),
            f"model.layers.{i}.mlp.down_proj_lora": (inner, hidden),
        }
    tensors = {}
    for name, (inputs, outputs) in sizes.items():
        tensors[f"{name}.A"] = 0.3 * torch.randn(inputs, rank)
        tensors[f"{name}.B"] = 0.3 * torch.randn(rank, outputs)
    return tensors


def draw_resampler(
    hidden: int, *, dim: int = 8, heads: int = 12, dim_head: int = 64, features: int = 32
) -> dict[str, Tensor]:
    """A resampler of 2 layers and 3 style tokens: the published heads, other widths."""
    inner = heads * dim_head
    sizes: dict[str, tuple[int, ...]] = {
        "latents": (1, 3, dim),
        "proj_in.weight": (dim, features),
        "proj_in.bias": (dim,),
        "proj_out.weight": (hidden, dim),
        "proj_out.bias": (hidden,),
        "norm_out.weight": (hidden,),
        "norm_out.bias": (hidden,),
    }
    for i in range(2):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            sizes |= {f"layers.{i}.{norm}.weight": (dim,), f"layers.{i}.{norm}.bias": (dim,)}
        sizes |= {
            f"layers.{i}.0.to_q.weight": (inner, dim),
            f"layers.{i}.0.to_kv.weight": (2 * inner, dim),
            f"layers.{i}.0.to_out.weight": (dim, inner),
            f"layers.{i}.1.1.weight": (4 * dim, dim),
            f"layers.{i}.1.3.weight": (dim, 4 * dim),
        }
    return {name: 0.3 * torch.randn(size) for name, size in sizes.items()}


def write_released(folder: Path, lora: dict[str, Tensor], resampler: dict[str, Tensor]) -> Path:
    """The two published files."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(lora, folder / "model.safetensors", metadata={"format": "pt"})
    torch.save(resampler, folder / "image_proj.pth")
    return folder
