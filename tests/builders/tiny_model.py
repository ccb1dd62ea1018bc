"""A tiny random model directory in the genuine format, for tests."""

from __future__ import annotations

from pathlib import Path

import torch

from builders.tiny_clip import WORDS, write_tiny_clip
from stylear.model.build import attach_style_encoder, new_model
from stylear.model.decoder_config import DecoderConfig
from stylear.model.open import load_model
from stylear.model.save import save_model
from stylear.model.style_model import StyleModel
from stylear.model.tokenizer import build_tokenizer
from stylear.model.vq import VQConfig, VQModel

VQ = VQConfig(
    embed_dim=8,
    num_embeddings=64,
    z_channels=8,
    resolution=32,
    base_channels=16,
    channel_multiplier=(1, 1),
    num_res_blocks=1,
    attn_type="none",
    norm_groups=8,
    patch=4,
)
DECODER = DecoderConfig(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)


def write_tiny_base(directory: Path, seed: int = 0) -> StyleModel:
    """A text-to-image model of 32 px pictures, 4x4 codes out of 64, without style tokens."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vq = VQModel(VQ)
    tokenizer = build_tokenizer(WORDS, VQ.num_embeddings, size_units=[2], text_vocabulary=64)
    model = new_model(directory, tokenizer, DECODER, vq, seed=seed)
    with torch.no_grad():  # fresh weights make all codes equally likely: sharpen them
        for name, weight in model.decoder.named_parameters():
            if weight.dim() == 2:
                weight.mul_(6 if "embed" in name or "head" in name else 3)
    save_model(model, directory)
    return load_model(directory)


def write_tiny_model(directory: Path, seed: int = 0) -> StyleModel:
    """The same with three style tokens from a tiny CLIP, which lies beside it in `<name>-clip`."""
    clip = write_tiny_clip(directory.with_name(f"{directory.name}-clip"), seed)
    base = write_tiny_base(directory.with_name(f"{directory.name}-base"), seed)
    sizes = {"depth": 1, "heads": 2, "dim_head": 8}
    save_model(
        attach_style_encoder(base, str(clip), 3, seed=seed, sizes=sizes), directory, dtype=None
    )
    return load_model(directory)
