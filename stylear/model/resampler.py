"""The perceiver resampler: features of a style image to style tokens, in StyleAR's release format.

B batch, N features, W their width, K style tokens, D the decoder's width, I inner width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from stylear.errors import WeightsError


@dataclass(frozen=True)
class ResamplerConfig:
    """Sizes of a resampler; the defaults are those of StyleAR's released code."""

    dim: int = 4096
    depth: int = 4
    dim_head: int = 64
    heads: int = 12
    num_queries: int = 16
    embedding_dim: int = 1280  # width of the features
    output_dim: int = 4096  # the decoder's width
    ff_mult: int = 4

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> ResamplerConfig:
        unknown = sorted(set(config) - {f.name for f in fields(cls)})
        if unknown:
            raise WeightsError(f"resampler: unknown setting {unknown[0]!r}")
        return cls(**config)

    @classmethod
    def infer(
        cls, tensors: Mapping[str, Tensor], dim_head: int = 64, what: str = ""
    ) -> ResamplerConfig:
        """The config of stored weights; only `dim_head` (64: code) cannot be read from their shapes."""
        try:
            latents = tensors["latents"].shape
            if len(latents) != 3:
                raise WeightsError(
                    f"{what}: resampler: latents expected 1 x tokens x width, found {list(latents)}"
                )
            _, queries, dim = latents
            inner = tensors["layers.0.0.to_q.weight"].shape[0]
            return cls(
                dim=dim,
                depth=len({k.split(".")[1] for k in tensors if k.startswith("layers.")}),
                dim_head=dim_head,
                heads=inner // dim_head,
                num_queries=queries,
                embedding_dim=tensors["proj_in.weight"].shape[1],
                output_dim=tensors["proj_out.weight"].shape[0],
                ff_mult=tensors["layers.0.1.1.weight"].shape[0] // dim,
            )
        except KeyError as error:
            raise WeightsError(
                f"{what}: resampler: {error.args[0]} expected, found nothing"
            ) from None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class PerceiverAttention(nn.Module):
    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__()
        self.heads, inner = config.heads, config.heads * config.dim_head
        self.scale = config.dim_head**-0.25  # on queries and on keys
        self.norm1 = nn.LayerNorm(config.dim)
        self.norm2 = nn.LayerNorm(config.dim)
        self.to_q = nn.Linear(config.dim, inner, bias=False)
        self.to_kv = nn.Linear(config.dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, config.dim, bias=False)

    def _split(self, x: Tensor) -> Tensor:  # (B, L, I) -> (B, heads, L, dim_head)
        batch, length, inner = x.shape
        return x.view(batch, length, self.heads, inner // self.heads).transpose(1, 2)

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        latents = self.norm2(latents)
        q = self._split(self.to_q(latents))
        keys, values = self.to_kv(torch.cat([self.norm1(features), latents], dim=1)).chunk(
            2, dim=-1
        )
        k, v = self._split(keys), self._split(values)
        weight = (q * self.scale) @ (k * self.scale).transpose(-2, -1)
        weight = weight.float().softmax(-1).to(v.dtype)
        out: Tensor = self.to_out((weight @ v).transpose(1, 2).flatten(2))
        return out


class Resampler(nn.Module):
    """Features (B, N, W) to style tokens (B, K, D)."""

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__()
        self.config = config
        dim, inner = config.dim, config.dim * config.ff_mult
        self.latents = nn.Parameter(torch.randn(1, config.num_queries, dim) / dim**0.5)
        self.proj_in = nn.Linear(config.embedding_dim, dim)
        self.proj_out = nn.Linear(dim, config.output_dim)
        self.norm_out = nn.LayerNorm(config.output_dim)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    PerceiverAttention(config),
                    nn.Sequential(
                        nn.LayerNorm(dim),
                        nn.Linear(dim, inner, bias=False),
                        nn.GELU(),
                        nn.Linear(inner, dim, bias=False),
                    ),
                ]
            )
            for _ in range(config.depth)
        )

    def forward(self, features: Tensor) -> Tensor:
        features = self.proj_in(features)
        latents = self.latents.expand(features.shape[0], -1, -1)
        for layer in self.layers:
            attention, feed = layer.children()
            latents = attention(features, latents) + latents
            latents = feed(latents) + latents
        out: Tensor = self.norm_out(self.proj_out(latents))
        return out

    def init_weights(self, seed: int) -> None:
        """Initialise the weights with torch's defaults, reproducibly from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = Resampler(self.config)
        self.load_state_dict(fresh.state_dict())

    @property
    def num_parameters(self) -> int:
        return sum(prod(p.shape) for p in self.parameters())
