"""Pairs with images of any size, for tests of aspect ratios."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from stylear.pair import Origin, Pair, content_id, digest


def wide_pair(seed: int, size: tuple[int, int]) -> Pair:
    """A raw pair with a random image of (width, height) pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    caption = f"thing {seed}"
    origin = Origin("raw", f"folder:{seed}.png", content_id(caption))
    return Pair(digest("wide", seed), caption, buffer.getvalue(), origin)
