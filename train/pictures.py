"""Images as the image tokenizer takes them: decoded, cut to the grid of a bucket, augmented.

C copies, H W pixels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from stylear.pair import digest

Pixels = npt.NDArray[np.uint8]
MAX_SHIFT = 16  # a copy is shifted by at most 1/16 of the shorter side


def decode_picture(data: bytes) -> Image.Image:
    """Decode a picture as RGB."""
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


def choose_bucket(width: int, height: int, buckets: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The (height, width) whose aspect ratio is nearest to a picture's; the first of equals."""
    ratio = math.log(height / width)
    return min(buckets, key=lambda size: abs(math.log(size[0] / size[1]) - ratio))


def fit_picture(picture: Image.Image, size: tuple[int, int]) -> Pixels:
    """A picture (H, W, 3) that covers `size` (height, width), its overhang cut off on both sides."""
    height, width = size
    if picture.size != (width, height):
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return np.array(picture)


def augment(pixels: Pixels, key: str, copy: int) -> Pixels:
    """Copy 0 is the image itself; all others are shifted and odd ones also flipped, determined by the key."""
    if copy == 0:
        return pixels
    height, width = pixels.shape[:2]
    shift = max(1, min(height, width) // MAX_SHIFT)
    offsets = int(digest("augment", key, copy)[:8], 16)
    y, x = offsets % (2 * shift + 1), (offsets // 64) % (2 * shift + 1)
    if copy % 2:
        pixels = pixels[:, ::-1]
    padded = np.pad(pixels, ((shift, shift), (shift, shift), (0, 0)), mode="edge")
    return padded[y : y + height, x : x + width]


def scale_pixels(pixels: Tensor) -> Tensor:
    """Bytes (B, H, W, 3) to pixels (B, 3, H, W) in [-1, 1], on the device they are on."""
    return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def picture_to_pixels(picture: Image.Image, side: int) -> Tensor:
    """A picture as pixels (3, side, side) in [-1, 1]."""
    return scale_pixels(torch.from_numpy(fit_picture(picture, (side, side)))[None])[0]
