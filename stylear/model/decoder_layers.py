"""The decoder's layers: norms, rotary positions, attention with its cache, MLP.

B batch, T tokens of this call, S slots of the cache, D hidden, H heads, G key-value heads,
E dimensions of a head, R rows of a cache.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylear.model.decoder_config import DecoderConfig

Turn = tuple[Tensor, Tensor]  # what `rotary` returns


QUERIES = 160  # of a step of attention on a CPU (ours)


class KVCache:
    """Keys and values of every layer, allocated once; each row fills its own slots from 0 on.

    A token's slot is its position. `lengths` (R,) holds the filled slots of each row, on the device.
    Attention reads the first `attended` slots of all rows and masks those beyond a token's own position:
    `attended` alone decides the shapes of a step, so that a step can be captured once and repeated.
    """

    def __init__(
        self,
        config: DecoderConfig,
        rows: int,
        slots: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        layers, groups, size = (
            config.num_hidden_layers,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.rows, self.slots, self.attended = rows, slots, slots
        # query heads that share keys and values
        self.repeats = config.num_attention_heads // groups
        self.keys, self.values = (
            torch.zeros(layers, rows * slots, groups, size, device=device, dtype=dtype)
            for _ in range(2)
        )
        self.lengths = torch.zeros(rows, device=device, dtype=torch.long)
        self._written = [stored.unbind(0) for stored in (self.keys, self.values)]  # of each layer
        self._read = self._written  # of each layer (R, G, attended, E)
        self._indexes: Tensor = self.lengths  # of the tokens of this pass among all slots (R T,)
        self._mask: Tensor = self.keys  # added to scores (R, 1, repeats T, attended)

    def start(self, tokens: int) -> Tensor:
        """Reserve the next `tokens` slots of every row for a pass; returns their positions (R, T).

        Raises ValueError if attention would read more slots than there are.
        """
        if not tokens <= self.attended <= self.slots:
            raise ValueError(f"cache: {self.slots} slots, needed {max(tokens, self.attended)}")
        device = self.lengths.device
        positions = self.lengths[:, None] + torch.arange(tokens, device=device)
        first = torch.arange(self.rows, device=device)[:, None] * self.slots
        self._indexes = (first + positions).flatten()
        hidden = torch.arange(self.attended, device=device) > positions[..., None]
        mask = torch.zeros(hidden.shape, device=device, dtype=self.keys.dtype)
        mask = mask.masked_fill_(hidden, float("-inf"))[:, None]
        self._mask = mask.repeat(1, 1, self.repeats, 1) if self.repeats > 1 else mask
        shape = (len(self.keys), self.rows, self.slots, *self.keys.shape[2:])
        self._read = [
            stored.view(shape)[:, :, : self.attended].transpose(2, 3).unbind(0)
            for stored in (self.keys, self.values)
        ]
        return positions

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store k and v (R, T, G, E) and attend with q (R, T, H, E) over the slots so far, as (R, T, H E).

        The heads that share keys and values become queries of one head: no key is copied.
        """
        rows, tokens, heads, size = q.shape
        for stored, new in zip(self._written, (k, v), strict=True):
            stored[layer].index_copy_(0, self._indexes, new.reshape(rows * tokens, -1, size))
        k, v = (stored[layer] for stored in self._read)
        q = q.transpose(1, 2).reshape(rows, heads // self.repeats, -1, size)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self._mask)
        return y.reshape(rows, heads, tokens, size).transpose(1, 2).reshape(rows, tokens, -1)

    def finish(self, tokens: int) -> None:
        """Count the tokens of a pass as filled."""
        self.lengths += tokens


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * F.rms_norm(x.float(), x.shape[-1:], None, self.eps).to(x.dtype)


class HeadNorm(nn.Module):
    """LayerNorm over the dimensions of a head, with separate weights per head (Lumina-mGPT: eps 1e-5)."""

    def __init__(self, heads: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads, size))
        self.bias = nn.Parameter(torch.zeros(heads, size))

    def forward(self, x: Tensor) -> Tensor:  # (B, T, H, E)
        return F.layer_norm(x, x.shape[-1:], None, None, 1e-5) * self.weight + self.bias


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.linear; a few tokens in float32 on a CPU are computed as (W x^T)^T.

    It reads the weights faster: 30 M weights times 2, 4, 8 and 12 tokens took 9, 11, 25 and 62 ms, F.linear
    26, 26, 28 and 42 (ran, one thread).
    """
    tokens = x.numel() // x.shape[-1]
    is_streamed = x.device.type == "cpu" and x.dtype == torch.float32 and 1 < tokens <= 8
    if not is_streamed or torch.is_grad_enabled():
        return F.linear(x, weight, bias)
    y = torch.mm(weight, x.reshape(tokens, -1).t())
    if bias is not None:
        y += bias[:, None]
    return y.t().reshape(*x.shape[:-1], -1)


class Head(nn.Linear):
    """The output layer; `rows` computes only some of its outputs."""

    def rows(self, x: Tensor, rows: slice | Tensor) -> Tensor:
        return multiply(x, self.weight[rows])


def rotary(config: DecoderConfig, positions: Tensor, dtype: torch.dtype) -> Turn:
    """Cosines and sines (B, T, 1, E) of RoPE (arXiv 2104.09864) at positions (B, T).

    The first half of the sines is negated, as `rotate` needs them.
    """
    exponents = (
        torch.arange(0, config.head_dim, 2, device=positions.device).float() / config.head_dim
    )
    angles = (positions[..., None].float() * (1.0 / config.rope_theta**exponents))[:, :, None]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], dim=-1).to(dtype), torch.cat([-sin, sin], dim=-1).to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (B, T, H, E) rotated by position (RoPE); the halves of E form the pairs."""
    return x * cos + x.roll(x.shape[-1] // 2, dims=-1) * sin


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of queries (B, H, T, E) over keys and values (B, G, T, E).

    Training in bf16 on a CPU uses explicit matrix products for short sequences: the backward pass of
    torch's fused kernel takes 68 ms there, this one 10 ms (ran: 288 heads of 86 x 32; a step 0.40 s, not
    0.70 s).
    """
    batch, heads, tokens, size = q.shape
    groups = k.shape[1]
    plain = v.dtype == torch.bfloat16 and v.device.type == "cpu" and tokens <= 512
    if not (plain and torch.is_grad_enabled()):
        return F.scaled_dot_product_attention(
            q, k, v, is_causal=tokens > 1, enable_gqa=groups != heads
        )
    if groups != heads:
        k, v = (x.repeat_interleave(heads // groups, dim=1) for x in (k, v))
    q, k, v = (x.to(torch.bfloat16).reshape(batch * heads, tokens, size) for x in (q, k, v))
    parts = []
    for first in range(
        0, tokens, QUERIES
    ):  # a query needs no key after it: a third less to compute
        last = min(tokens, first + QUERIES)
        future = torch.full((1, last - first, last), float("-inf"), dtype=torch.bfloat16)
        scores = torch.baddbmm(
            future.triu(1 + first), q[:, first:last], k[:, :last].transpose(1, 2), alpha=size**-0.5
        )
        shares = scores.softmax(dim=-1)  # sums are in fp32 inside
        parts.append(torch.bmm(shares, v[:, :last]))
    return torch.cat(parts, dim=1).view(batch, heads, tokens, size)


class Attention(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = config.head_dim
        size, bias = config.hidden_size, config.attention_bias
        self.q_proj = nn.Linear(size, self.heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(size, self.groups * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(size, self.groups * self.head_dim, bias=bias)
        self.o_proj = nn.Linear(self.heads * self.head_dim, size, bias=bias)
        self.q_norm = HeadNorm(self.heads, self.head_dim) if config.qk_norm else nn.Identity()
        self.k_norm = HeadNorm(self.groups, self.head_dim) if config.qk_norm else nn.Identity()

    def project(self, x: Tensor, turn: Turn) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries (B, T, H, E) and keys (B, T, G, E), and values (B, T, G, E), of x (B, T, D)."""
        batch, tokens, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(batch, tokens, self.heads, self.head_dim))
        k = self.k_norm(self.k_proj(x).view(batch, tokens, self.groups, self.head_dim))
        v = self.v_proj(x).view(batch, tokens, self.groups, self.head_dim)
        return rotate(q, *turn), rotate(k, *turn), v


class MLP(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        size, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = nn.Linear(size, inner, bias=bias)
        self.up_proj = nn.Linear(size, inner, bias=bias)
        self.down_proj = nn.Linear(inner, size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Block(nn.Module):
    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.swin = layer, config.swin_norm
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, turn: Turn, cache: KVCache | None = None) -> Tensor:
        """Hidden states (B, T, D) after this layer; without a cache attention is causal over x itself."""
        q, k, v = self.project(x, turn)
        if cache is None:
            y = attend(*(part.transpose(1, 2) for part in (q, k, v)))
            y = y.transpose(1, 2).reshape(*x.shape[:2], -1)
        else:
            y = cache.attend(self.layer, q, k, v)
        return self.update(x, y)

    def project(self, x: Tensor, turn: Turn) -> tuple[Tensor, Tensor, Tensor]:
        """The part before attention: queries, keys and values of hidden states x (B, T, D)."""
        return self.self_attn.project(x if self.swin else self.input_layernorm(x), turn)

    def update(self, x: Tensor, y: Tensor) -> Tensor:
        """The part after attention: x (B, T, D) plus its result y (B, T, H E), then the MLP."""
        y = self.self_attn.o_proj(y)
        if self.swin:
            x = x + self.input_layernorm(y)
            out: Tensor = x + self.post_attention_layernorm(self.mlp(x))
        else:
            x = x + y
            out = x + self.mlp(self.post_attention_layernorm(x))
        return out
