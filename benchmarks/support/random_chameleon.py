"""Chameleon with random weights and a corpus of random pictures, for `train_sft.py`."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stylear.curate.corpus.shards import write_shard
from stylear.model.decoder_config import DecoderConfig
from stylear.model.families.chameleon import FAMILY, ChameleonLayout
from stylear.model.style_model import StyleModel, StyleSettings
from stylear.model.tokenizer import build_tokenizer
from stylear.model.transformer import Decoder
from stylear.model.vq import VQConfig, VQModel
from stylear.pair import Origin, Pair, content_id, digest

CAPTION = "a red boat on a hill"


@dataclass(frozen=True)
class Size:
    """A model and its pictures."""

    decoder: DecoderConfig
    codes: int  # of the VQ model
    side: int  # pixels
    patch: int  # of the VQ model: half the pixels of a code

    @property
    def vq(self) -> VQConfig:
        return VQConfig(
            embed_dim=8,
            num_embeddings=self.codes,
            z_channels=8,
            resolution=self.side,
            base_channels=16,
            channel_multiplier=(1, 1),
            num_res_blocks=1,
            attn_type="none",
            norm_groups=8,
            patch=self.patch,
        )


SIZES = {
    "small": Size(
        DecoderConfig(
            vocab_size=3072,
            hidden_size=768,
            intermediate_size=2048,
            num_hidden_layers=8,
            num_attention_heads=12,
            num_key_value_heads=12,
        ),
        codes=1024,
        side=128,
        patch=4,
    ),
    "7b": Size(DecoderConfig(), codes=8192, side=768, patch=8),
    "tiny": Size(
        DecoderConfig(
            vocab_size=3072,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
        ),
        codes=1024,
        side=32,
        patch=4,
    ),
}


@dataclass(frozen=True)
class Setup:
    """What every way trains, and how."""

    root: Path
    size: Size
    batch_size: int
    steps: int
    device: str
    checkpointing: bool
    compile: bool


def build_model(setup: Setup, dtype: torch.dtype = torch.float32) -> StyleModel:
    """A model of random weights without style tokens, the same at every call."""
    size = setup.size
    tokenizer = build_tokenizer(
        [CAPTION], size.codes, [size.side // 4 // size.patch], text_vocabulary=512
    )
    layout = ChameleonLayout(tokenizer)
    assert max(layout.vocabulary.values()) < size.decoder.vocab_size
    torch.manual_seed(0)
    vq = VQModel(size.vq).to(setup.device).requires_grad_(False)
    with torch.device(setup.device):
        decoder = Decoder(size.decoder, layout.image_token_ids).to(dtype)
        for name, parameter in decoder.named_parameters():
            if parameter.ndim == 2 and "_norm" not in name:
                torch.nn.init.normal_(parameter.data, std=0.02)
    raw = FAMILY.describe_config(size.decoder, vq)
    settings = StyleSettings(prompt_template="{style} {prompt}", caption_template="{prompt}")
    return StyleModel("random", decoder, vq, layout, settings, raw).eval()


def write_corpus(corpus: Path, size: Size, pairs: int) -> None:
    """Raw pairs of smooth random pictures, all with one caption, so that every step has as many tokens."""
    written = []
    for number in range(pairs):
        rng = np.random.default_rng(number)
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        small.resize((size.side, size.side), Image.Resampling.BICUBIC).save(buffer, "PNG")
        origin = Origin("raw", f"folder:{number}.png", content_id(str(number)))
        written.append(Pair(digest(number), CAPTION, buffer.getvalue(), origin))
    write_shard(corpus / "train", 0, written)


class StepClock:
    """Notes the end of each step, by the clock and by CPU time."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []

    def mark(self) -> None:
        self.ends.append((time.perf_counter(), time.process_time()))

    def durations(self) -> list[tuple[float, float]]:
        """Seconds and CPU seconds of every step but the first."""
        pairs = zip(self.ends, self.ends[1:], strict=False)
        return [(end[0] - start[0], end[1] - start[1]) for start, end in pairs]
