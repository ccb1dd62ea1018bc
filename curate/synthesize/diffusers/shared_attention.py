"""Shared self-attention: the images of a batch attend to a reference; the reference to itself only.

StyleAligned (Hertz et al. 2023, section 4; arXiv 2312.02133): an image's queries and keys take the
mean and deviation of the reference's (AdaIN), and its queries attend to the reference's keys and
values in addition to its own. Nothing is trained.

Axes: G guidance halves (unconditional, conditional; one without guidance), N images of a half, the
reference first, B = G N, H heads, T tokens, D of a head, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

EPSILON = 1e-5  # of AdaIN's deviation (released code)


class SharedAttention:
    """A self-attention processor of diffusers; it leaves a batch of G images or fewer unchanged.

    `key_scale` multiplies the reference's keys that an image attends to, `shift` is added to the
    logits of the reference's tokens. The paper has 1 and 0.
    """

    def __init__(self, halves: int, key_scale: float = 1.0, shift: float = 0.0) -> None:
        from diffusers.models.attention_processor import AttnProcessor2_0

        self.halves, self.key_scale, self.shift = halves, key_scale, shift
        self._plain = AttnProcessor2_0()

    def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        if hidden_states.shape[0] <= self.halves:
            plain: Tensor = self._plain(attn, hidden_states, *args, **kwargs)
            return plain
        tokens = hidden_states.reshape(self.halves, -1, *hidden_states.shape[1:])  # (G, N, T, C)
        query, key, value = (
            part(tokens).view(*tokens.shape[:3], attn.heads, -1).transpose(2, 3)  # (G, N, H, T, D)
            for part in (attn.to_q, attn.to_k, attn.to_v)
        )
        mixed = torch.cat(
            [self._attend_reference(query, key, value), self._attend_images(query, key, value)], 1
        )
        out: Tensor = attn.to_out[0](mixed.transpose(2, 3).flatten(3).flatten(0, 1))
        return out

    def _attend_reference(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Self-attention of the reference, (G, 1, H, T, D)."""
        return scaled_dot_product_attention(query[:, 0], key[:, 0], value[:, 0])[:, None]

    def _attend_images(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of the other images to themselves and the reference, (G, N - 1, H, T, D)."""
        own = adain(key[:, 1:], key[:, :1])
        shape = own.shape
        keys = torch.cat([own, (self.key_scale * key[:, :1]).expand(shape)], -2)
        values = torch.cat([value[:, 1:], value[:, :1].expand(shape)], -2)
        queries = adain(query[:, 1:], query[:, :1])
        bias = None
        if self.shift:
            bias = pad(queries.new_zeros(shape[-2]), (0, shape[-2]), value=self.shift)[None]
        read = scaled_dot_product_attention(
            queries.flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1), attn_mask=bias
        )
        return read.view(shape)


class SharedGroupNorm(nn.Module):
    """A group norm that normalises every image together with the reference, the reference alone.

    Not in the paper; the authors' code does it when the reference is an image. The two images are
    joined along the height, so it takes (B, C, h, w) only.
    """

    def __init__(self, norm: nn.GroupNorm, halves: int) -> None:
        super().__init__()
        self.norm, self.halves = norm, halves

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, h, w)."""
        if features.shape[0] <= self.halves:
            plain: Tensor = self.norm(features)
            return plain
        parts = features.reshape(self.halves, -1, *features.shape[1:])  # (G, N, C, h, w)
        first, others = parts[:, :1], parts[:, 1:]
        joined = torch.cat([others, first.expand_as(others)], -2)
        normed = self.norm(joined.flatten(0, 1))[..., : features.shape[-2], :]
        normalised = [self.norm(first[:, 0])[:, None], normed.reshape(others.shape)]
        return torch.cat(normalised, 1).flatten(0, 1)


def adain(features: Tensor, reference: Tensor) -> Tensor:
    """Features (..., T, D) shifted and scaled to the reference's mean and deviation over T."""
    variance, mean = torch.var_mean(features, -2, keepdim=True)
    to_variance, to_mean = torch.var_mean(reference, -2, keepdim=True)
    return (features - mean) * ((to_variance + EPSILON) / (variance + EPSILON)).sqrt() + to_mean


def share_attention(
    unet: Any,
    halves: int,
    *,
    layers: float = 1.0,
    key_scale: float = 1.0,
    shift: float = 0.0,
    group_norm: bool = False,
) -> int:
    """Install shared self-attention in an SDXL UNet; returns the number of layers changed.

    `layers` is the evenly spread fraction of layers to change; 0 leaves the UNet unchanged.
    """
    processors = dict(unet.attn_processors)
    own = [name for name in processors if name.endswith("attn1.processor")]
    shared = [name for i, name in enumerate(own) if int((i + 1) * layers) > int(i * layers)]
    for name in shared:
        processors[name] = SharedAttention(halves, key_scale, shift)
    unet.set_attn_processor(processors)
    if shared and group_norm:
        norms = [(name, part) for name, part in unet.named_modules() if type(part) is nn.GroupNorm]
        for name, norm in norms:
            parent, _, child = name.rpartition(".")
            setattr(unet.get_submodule(parent), child, SharedGroupNorm(norm, halves))
    return len(shared)
