"""The decoder: one Llama-like transformer for every backbone, with Chameleon's key names.

B batch, T tokens of this call, S slots of the cache, D hidden, H heads, G key-value heads,
E dimensions of a head, V image codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stylear.errors import WeightsError


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of a decoder, named as in transformers' ChameleonConfig; defaults: Chameleon-7B."""

    vocab_size: int = 65536
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 32
    max_position_embeddings: int = 4096
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    qk_norm: bool = True  # LayerNorm on each head's query and key
    swin_norm: bool = False  # norms after attention and MLP instead of before (Chameleon-34B)
    attention_bias: bool = False
    mlp_bias: bool = False

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> DecoderConfig:
        """From a config.json. Raises WeightsError for an architecture this decoder is not."""
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in found.items() if k in known and v is not None}
        rope = found.get("rope_parameters") or found.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        for key, expected, value in (
            ("model_type", "chameleon", found.get("model_type")),
            ("rope_type", "default", kind),
            ("hidden_act", "silu", found.get("hidden_act", "silu")),
            ("tie_word_embeddings", False, found.get("tie_word_embeddings", False)),
        ):
            if value != expected:
                raise WeightsError(f"config.json: {key} expected {expected!r}, found {value!r}")
        if "rope_theta" in rope:
            values["rope_theta"] = rope["rope_theta"]
        values.setdefault("num_key_value_heads", values.get("num_attention_heads", 32))
        config = cls(**values)
        if config.hidden_size % config.num_attention_heads:
            raise WeightsError("config.json: num_attention_heads must divide hidden_size")
        if config.num_attention_heads % config.num_key_value_heads:
            raise WeightsError("config.json: num_key_value_heads must divide num_attention_heads")
        return config

    def to_dict(self) -> dict[str, Any]:
        """For a config.json that transformers reads too."""
        values = asdict(self)
        values["rope_parameters"] = {"rope_theta": values["rope_theta"], "rope_type": "default"}
        return {"model_type": "chameleon", "tie_word_embeddings": False, **values}

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


class KVCache:
    """Keys and values of every layer, allotted once; the sequences of a batch grow together."""

    def __init__(
        self,
        config: DecoderConfig,
        batch: int,
        slots: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (
            config.num_hidden_layers,
            batch,
            config.num_key_value_heads,
            slots,
            config.head_dim,
        )
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.valid = torch.ones(batch, slots, device=device, dtype=torch.bool)
        self.length = 0  # slots in use
        self.padded = False

    @property
    def slots(self) -> int:
        return int(self.keys.shape[3])

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, G, T, E) behind the slots in use; returns all slots so far (B, G, S, E)."""
        end = self.length + keys.shape[2]
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * F.rms_norm(x.float(), x.shape[-1:], None, self.eps).to(x.dtype)


class HeadNorm(nn.Module):
    """LayerNorm over a head's dimensions, weights of its own for every head (base: eps 1e-5)."""

    def __init__(self, heads: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads, size))
        self.bias = nn.Parameter(torch.zeros(heads, size))

    def forward(self, x: Tensor) -> Tensor:  # (B, T, H, E)
        return F.layer_norm(x, x.shape[-1:], None, None, 1e-5) * self.weight + self.bias


class Head(nn.Linear):
    """The output layer; `rows` computes some of its outputs only."""

    def rows(self, x: Tensor, rows: slice | Tensor) -> Tensor:
        return F.linear(x, self.weight[rows])


def rotary(config: DecoderConfig, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines (B, 1, T, E) of RoPE (arXiv 2104.09864) at positions (B, T)."""
    exponents = (
        torch.arange(0, config.head_dim, 2, device=positions.device).float() / config.head_dim
    )
    angles = positions[..., None].float() * (1.0 / config.rope_theta**exponents)
    angles = torch.cat([angles, angles], dim=-1)[:, None]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (B, H, T, E) turned by its position; halves of E form the pairs."""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-high, low], dim=-1) * sin


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Attention of queries (B, H, T, E) over keys and values (B, G, S, E).

    Training in bf16 on a CPU multiplies short causal sequences out: the gradient of torch's fused
    kernel takes 68 ms there and this one 10 (ran: 288 heads of 86 x 32), a step 0.40 instead of 0.70 s.
    """
    batch, heads, tokens, size = q.shape
    groups = k.shape[1]
    plain = causal and v.dtype == torch.bfloat16 and v.device.type == "cpu" and tokens <= 512
    if not (plain and torch.is_grad_enabled()):
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=groups != heads
        )
    if groups != heads:
        k, v = (x.repeat_interleave(heads // groups, dim=1) for x in (k, v))
    q, k, v = (x.to(torch.bfloat16).reshape(batch * heads, tokens, size) for x in (q, k, v))
    future = torch.full((1, tokens, tokens), float("-inf"), dtype=torch.bfloat16).triu(1)
    scores = torch.baddbmm(future, q, k.transpose(1, 2), alpha=size**-0.5)
    shares = scores.softmax(dim=-1, dtype=torch.float32).to(torch.bfloat16)
    return torch.bmm(shares, v).view(batch, heads, tokens, size)


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

    def forward(
        self,
        x: Tensor,
        turn: tuple[Tensor, Tensor],
        mask: Tensor | None,
        causal: bool,
        cache: KVCache | None,
        layer: int,
    ) -> Tensor:
        batch, tokens, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(batch, tokens, self.heads, self.head_dim)).transpose(
            1, 2
        )
        k = self.k_norm(self.k_proj(x).view(batch, tokens, self.groups, self.head_dim)).transpose(
            1, 2
        )
        v = self.v_proj(x).view(batch, tokens, self.groups, self.head_dim).transpose(1, 2)
        q, k = rotate(q, *turn), rotate(k, *turn)
        if cache is not None:
            k, v = cache.write(layer, k, v)
        y = attend(q, k, v, mask, causal)
        out: Tensor = self.o_proj(y.transpose(1, 2).reshape(batch, tokens, -1))
        return out


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

    def forward(
        self,
        x: Tensor,
        turn: tuple[Tensor, Tensor],
        mask: Tensor | None,
        causal: bool,
        cache: KVCache | None,
    ) -> Tensor:
        rest = (turn, mask, causal, cache, self.layer)
        if self.swin:
            x = x + self.input_layernorm(self.self_attn(x, *rest))
            out: Tensor = x + self.post_attention_layernorm(self.mlp(x))
        else:
            x = x + self.self_attn(self.input_layernorm(x), *rest)
            out = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Trunk(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Decoder(nn.Module):
    """Token embeddings in, hidden states out, and logits over the image codes.

    `image_ids`: the vocabulary id of each image code, ordered by code.
    """

    def __init__(self, config: DecoderConfig, image_ids: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.model = Trunk(config)
        self.lm_head: Head = Head(config.hidden_size, config.vocab_size, bias=False)
        low, high = min(image_ids), max(image_ids) + 1
        # ids that fill a range need one slice of the head, a view, and then a reordering at most
        self._filled = high - low == len(image_ids)
        self._range = slice(low, high)
        order = torch.tensor([i - (low if self._filled else 0) for i in image_ids], device="cpu")
        self._ordered = self._filled and bool((order.diff() == 1).all())
        self.register_buffer("image_order", order, persistent=False)
        self.image_order: Tensor

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings (B, T, D) of ids (B, T)."""
        out: Tensor = self.model.embed_tokens(ids)
        return out

    def forward(
        self,
        embeds: Tensor,
        valid: Tensor | None = None,
        cache: KVCache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Normed hidden states (B, T, D) of embeddings (B, T, D) that follow what the cache holds.

        `valid` (B, T) marks what is not padding; padding may stand left or right, its outputs mean
        nothing. Right padding needs no `valid`: causal attention never looks there. `positions`
        (B, T) default to the count of valid tokens before each one. Raises ValueError when the
        cache is full.
        """
        batch, tokens = embeds.shape[:2]
        start = 0 if cache is None else cache.length
        seen = embeds.new_ones(batch, tokens, dtype=torch.bool) if valid is None else valid.bool()
        if cache is not None:
            if start + tokens > cache.slots:
                raise ValueError(f"cache: {cache.slots} slots, needed {start + tokens}")
            cache.valid[:, start : start + tokens] = seen
            seen = cache.valid[:, : start + tokens]
            cache.padded |= valid is not None and not bool(valid.all())
        padded = valid is not None if cache is None else cache.padded
        if positions is None:
            positions = (seen.long().cumsum(1)[:, start:] - 1).clamp(min=0)
        mask, causal = self._mask(seen, start, tokens, padded)
        turn = rotary(self.config, positions, embeds.dtype)
        x = embeds
        for block in self.model.layers:
            if self.gradient_checkpointing and self.training and cache is None:
                x = checkpoint(block, x, turn, mask, causal, None, use_reentrant=False)
            else:
                x = block(x, turn, mask, causal, cache)
        if cache is not None:
            cache.length = start + tokens
        out: Tensor = self.model.norm(x)
        return out

    @staticmethod
    def _mask(seen: Tensor, start: int, tokens: int, padded: bool) -> tuple[Tensor | None, bool]:
        if not padded:
            if tokens == 1:
                return None, False
            if start == 0:
                return None, True
        slots = torch.arange(start + tokens, device=seen.device)
        here = slots[start:, None]
        # padding sees itself, so that no row of the softmax is empty
        mask = ((slots <= here) & seen[:, None, :]) | (slots == here)
        return mask[:, None], False  # (B, 1, T, S)

    def image_logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) over the image codes only, ordered by code, of hidden states (..., D).

        Their softmax is the full softmax masked to image codes.
        """
        if not self._filled:
            return self.lm_head.rows(hidden, self.image_order)
        logits = self.lm_head.rows(hidden, self._range)
        return logits if self._ordered else logits.index_select(-1, self.image_order)

    def new_cache(self, batch: int, slots: int) -> KVCache:
        """An empty cache on the decoder's device, in its dtype."""
        weight = self.model.norm.weight
        return KVCache(self.config, batch, slots, device=weight.device, dtype=weight.dtype)

    def init_weights(self, seed: int, std: float = 0.02) -> None:
        """Fresh weights: normal, std 0.02 (base), residual outputs / sqrt(2 layers) (GPT-2)."""
        generator = torch.Generator().manual_seed(seed)
        scale = (2 * self.config.num_hidden_layers) ** -0.5
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                last = name.endswith(("o_proj", "down_proj"))
                nn.init.normal_(
                    module.weight, std=std * (scale if last else 1.0), generator=generator
                )
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, RMSNorm | HeadNorm):
                nn.init.ones_(module.weight)

    @property
    def num_parameters(self) -> int:
        return sum(prod(p.shape) for p in self.parameters())


def expand_head_norms(tensors: dict[str, Tensor], config: DecoderConfig) -> dict[str, Tensor]:
    """The tensors with q_norm/k_norm stored as (heads, E), whatever shape a checkpoint gave them.

    (E,) is shared by all heads; of (model_parallel, E) each row serves its share of the heads.
    """
    result = dict(tensors)
    for name, value in tensors.items():
        if "_norm." not in name or ".self_attn." not in name:
            continue
        heads = config.num_attention_heads if ".q_norm." in name else config.num_key_value_heads
        rows = value if value.dim() == 2 else value[None]
        if rows.dim() == 2 and rows.shape[0] < heads and heads % rows.shape[0] == 0:
            rows = rows.repeat_interleave(heads // rows.shape[0], dim=0)
        result[name] = rows
    return result
