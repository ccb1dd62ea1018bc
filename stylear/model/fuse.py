"""Prepare a decoder for sampling: LoRA merged, and fewer, larger matrices under the same names when saved.

B batch, T tokens, D hidden, H heads, G key-value heads, E dimensions of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylear.model.decoder_layers import MLP, Attention, HeadNorm, RMSNorm, Turn, multiply
from stylear.model.lora import merge_lora
from stylear.model.transformer import Decoder


@torch.no_grad()
def fuse_decoder(decoder: Decoder) -> None:
    """Merge LoRA, make q, k, v one matrix and gate, up another, and use torch's fused norms.

    The layers are replaced one at a time, so no more than one is in memory twice. The decoder can then be
    sampled from and saved, but not trained: nothing requires a gradient. Fusing twice changes nothing.
    """
    merge_lora(decoder)
    for block in decoder.model.layers:
        if isinstance(block.self_attn, Attention):
            block.self_attn = FusedAttention(block.self_attn)
        if isinstance(block.mlp, MLP):
            block.mlp = FusedMLP(block.mlp)
    for name, module in list(decoder.named_modules()):
        if isinstance(module, RMSNorm):
            decoder.set_submodule(name, _fuse_norm(module))
    decoder.requires_grad_(False)


def compile_blocks(decoder: Decoder, **options: Any) -> None:
    """Compile the parts before and after attention in each layer, so that norms and rotation are fused.

    All layers share the compiled code. `options` are those of torch.compile. Compiling takes some seconds at
    the first step, which pays off only for a long batch or a large model.
    """
    for block in decoder.model.layers:
        for name in ("project", "update"):
            setattr(block, name, torch.compile(getattr(block, name), **options))


class FusedLinear(nn.Linear):
    """One or several linear layers of the same input as one matrix."""

    def __init__(self, parent: nn.Module, names: Sequence[str]) -> None:
        nn.Module.__init__(self)
        parts = [parent.get_submodule(name) for name in names]
        assert all(isinstance(part, nn.Linear) for part in parts)
        self.names = tuple(names)
        weights: list[Tensor] = [part.get_parameter("weight") for part in parts]
        self.sizes = [len(weight) for weight in weights]
        self.in_features, self.out_features = weights[0].shape[1], sum(self.sizes)
        self.weight = nn.Parameter(torch.cat(weights) if len(weights) > 1 else weights[0])
        biases: list[Tensor] = [part.bias for part in parts if isinstance(part.bias, nn.Parameter)]
        self.bias = nn.Parameter(torch.cat(biases)) if biases else None  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        return multiply(x, self.weight, self.bias)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        _save_parts(self, destination, prefix)


class FusedHeadNorm(HeadNorm):
    """The norms of queries and keys as one, over the heads of both."""

    names = ("q_norm", "k_norm")

    def __init__(self, q_norm: HeadNorm, k_norm: HeadNorm) -> None:
        nn.Module.__init__(self)
        self.sizes = [len(q_norm.weight), len(k_norm.weight)]
        self.weight = nn.Parameter(torch.cat([q_norm.weight, k_norm.weight]))
        self.bias = nn.Parameter(torch.cat([q_norm.bias, k_norm.bias]))

    def forward(self, x: Tensor) -> Tensor:  # (B, T, H + G, E)
        normed = F.layer_norm(x, x.shape[-1:], None, None, 1e-5)
        return torch.addcmul(self.bias, normed, self.weight)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        _save_parts(self, destination, prefix)


class FusedAttention(nn.Module):
    """`Attention` with one matrix for q, k and v, and one pass of norm and rotation for q and k."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads, self.groups = attention.heads, attention.groups
        self.head_dim = attention.head_dim
        self.qkv_proj = FusedLinear(attention, ("q_proj", "k_proj", "v_proj"))
        self.o_proj = FusedLinear(attention, ("o_proj",))
        self.qk_norm: nn.Module = nn.Identity()
        if isinstance(attention.q_norm, HeadNorm) and isinstance(attention.k_norm, HeadNorm):
            self.qk_norm = FusedHeadNorm(attention.q_norm, attention.k_norm)

    def project(self, x: Tensor, turn: Turn) -> tuple[Tensor, Tensor, Tensor]:
        """As `Attention.project`."""
        batch, tokens, _ = x.shape
        qkv = self.qkv_proj(x).view(batch, tokens, -1, self.head_dim)
        qk, v = torch.split(qkv, [self.heads + self.groups, self.groups], dim=2)
        qk, (cos, sin) = self.qk_norm(qk), turn
        qk = torch.addcmul(qk * cos, qk.roll(self.head_dim // 2, dims=-1), sin)
        q, k = torch.split(qk, [self.heads, self.groups], dim=2)
        return q, k, v


class FusedMLP(nn.Module):
    """`MLP` with one matrix for gate and up."""

    def __init__(self, mlp: MLP) -> None:
        super().__init__()
        self.gate_up_proj = FusedLinear(mlp, ("gate_proj", "up_proj"))
        self.down_proj = FusedLinear(mlp, ("down_proj",))

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        out: Tensor = self.down_proj(F.silu(gate) * up)
        return out


def _fuse_norm(norm: RMSNorm) -> nn.RMSNorm:
    fused = nn.RMSNorm(norm.weight.shape, norm.eps, device="meta")
    fused.weight = norm.weight
    return fused


def _save_parts(module: FusedLinear | FusedHeadNorm, destination: Any, prefix: str) -> None:
    """Write weight and bias of a fused module to a state dict as those of the modules it was made from."""
    parent = prefix.removesuffix(".").rpartition(".")[0]
    for kind, value in module.named_parameters():
        for name, part in zip(module.names, torch.split(value.detach(), module.sizes), strict=True):
            destination[f"{parent}.{name}.{kind}"] = part
