"""The decoder: one Llama-like transformer for every backbone, with Chameleon's key names.

B batch, T tokens of this call, D hidden, H heads, G key-value heads, E dimensions of a head,
V image codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stylear.model.decoder_config import DecoderConfig
from stylear.model.decoder_layers import Block, Head, HeadNorm, KVCache, RMSNorm, rotary


class Trunk(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Decoder(nn.Module):
    """Token embeddings in, hidden states out, and logits over the image codes.

    `image_ids`: the vocabulary id of each image code, ordered by code.
    A family with another head or other embeddings of codes subclasses it and says how its modules are named
    in checkpoints: `checkpoint_prefixes` are pairs (beginning of a module's name, that in a checkpoint).
    """

    lora_targets: tuple[str, ...] = (  # released code
        "q_proj", "k_proj", "v_proj", "o_proj", "down_proj", "lm_head",
    )  # fmt: skip
    checkpoint_prefixes: tuple[tuple[str, str], ...] = ()

    def __init__(self, config: DecoderConfig, image_ids: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_every = 0  # activation checkpointing of every k-th block; 0: of none
        self.model = Trunk(config)
        self.add_head(image_ids)

    def add_head(self, image_ids: Sequence[int]) -> None:
        """Add the layer that predicts codes; a family with another layer overrides this."""
        config = self.config
        self.lm_head: Head = Head(config.hidden_size, config.vocab_size, bias=False)
        low, high = min(image_ids), max(image_ids) + 1
        # contiguous ids need one slice of the head (a view) and at most a reordering
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

    def forward(self, embeds: Tensor, cache: KVCache | None = None) -> Tensor:
        """Normed hidden states (B, T, D) of embeddings (B, T, D) that follow what the cache holds.

        Rows of different lengths are padded on the right: causal attention never reads the padding, and with
        a cache the caller then corrects its `lengths`. Raises ValueError if the cache is too small.
        """
        tokens = embeds.shape[1]
        first = torch.arange(tokens, device=embeds.device)[None]
        positions = first if cache is None else cache.start(tokens)
        turn = rotary(self.config, positions, embeds.dtype)
        x = embeds
        every = self.checkpoint_every if self.training and cache is None else 0
        for number, block in enumerate(self.model.layers):
            if every and number % every == 0:
                x = checkpoint(block, x, turn, use_reentrant=False)
            else:
                x = block(x, turn, cache)
        if cache is not None:
            cache.finish(tokens)
        out: Tensor = self.model.norm(x)
        return out

    def image_logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) over the image codes only, ordered by code, of hidden states (..., D).

        Their softmax is the full softmax masked to image codes.
        """
        if not self._filled:
            return self.lm_head.rows(hidden, self.image_order)
        logits = self.lm_head.rows(hidden, self._range)
        return logits if self._ordered else logits.index_select(-1, self.image_order)

    def new_cache(self, rows: int, slots: int) -> KVCache:
        """An empty cache on the decoder's device, in its dtype."""
        weight = self.model.norm.weight
        return KVCache(self.config, rows, slots, device=weight.device, dtype=weight.dtype)

    def checkpoint_name(self, name: str) -> str:
        """The name in a checkpoint of a module or parameter of this decoder."""
        for own, stored in self.checkpoint_prefixes:
            if name.startswith(own):
                return stored + name.removeprefix(own)
        return name

    def module_name(self, name: str) -> str:
        """The name in this decoder of a module or parameter of a checkpoint."""
        for own, stored in self.checkpoint_prefixes:
            if name.startswith(stored):
                return own + name.removeprefix(stored)
        return name

    def init_weights(self, seed: int, std: float = 0.02) -> None:
        """Initialise: normal, std 0.02 (Lumina-mGPT), residual outputs / sqrt(2 layers) (GPT-2)."""
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
    """The tensors with q_norm and k_norm as (heads, E), whatever their shape in the checkpoint.

    (E,) is shared by all heads; in (model_parallel, E) each row belongs to a group of heads.
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
