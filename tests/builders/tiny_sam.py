"""A tiny segment-anything model in the genuine format, and a picture with one subject."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw


def disc(size: int = 64) -> Image.Image:
    """A red disc of radius 16 in the middle of a light picture with a little noise."""
    noise = np.random.default_rng(0).integers(225, 256, (size, size, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    middle = size / 2
    ImageDraw.Draw(picture).ellipse([middle - 16, middle - 16, middle + 16, middle + 16], "red")
    return picture


def tiny_sam(seed: int = 0) -> Any:
    """A segment_anything Sam of 64 px with one windowed and one global block."""
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Sam(
            ImageEncoderViT(
                img_size=64,
                patch_size=16,
                embed_dim=32,
                depth=2,
                num_heads=4,
                mlp_ratio=2,
                out_chans=16,
                norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
                use_rel_pos=True,
                rel_pos_zero_init=False,
                window_size=3,
                global_attn_indexes=(1,),
            ),
            PromptEncoder(16, (4, 4), (64, 64), 8),
            MaskDecoder(
                transformer_dim=16,
                transformer=TwoWayTransformer(2, 16, num_heads=8, mlp_dim=24),
                iou_head_depth=2,
                iou_head_hidden_dim=12,
            ),
        ).eval()
