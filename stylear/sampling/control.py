"""Control images: a depth map or segmentation as image codes inside the prompt, as in the released code.

h w the code grid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stylear.encoders.preprocess import Picture, to_rgb
from stylear.errors import UsageError
from stylear.sampling.context import compute_grid

if TYPE_CHECKING:
    from stylear.model.style_model import StyleModel

MAX_RATIO = 4.0  # Lumina-mGPT: of the longer side to the shorter


@torch.inference_mode()
def encode_control(model: StyleModel, control: Picture, height: int, width: int) -> Tensor:
    """Image codes (h, w) of a control image, which is scaled to cover height x width codes and cropped to it.

    Lumina-mGPT crops at random; here the centre is kept. Raises SourceError for bytes that are not an image.
    """
    factor = model.vq.config.factor
    picture = crop_centre(to_rgb(control), width * factor, height * factor)
    weight = next(model.vq.parameters())
    pixels = torch.from_numpy(np.array(picture)).to(weight).permute(2, 0, 1).div(127.5).sub(1)
    return model.vq.encode(pixels[None])[0]


def crop_centre(picture: Image.Image, width_px: int, height_px: int) -> Image.Image:
    """The picture scaled until it covers width x height pixels, and its centre of that size."""
    scale = max(width_px / picture.width, height_px / picture.height)
    size = (
        max(width_px, round(picture.width * scale)),
        max(height_px, round(picture.height * scale)),
    )
    scaled = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - width_px) // 2, (size[1] - height_px) // 2
    return scaled.crop((left, top, left + width_px, top + height_px))


def choose_size(model: StyleModel, picture: Image.Image) -> tuple[int, int]:
    """Width and height in pixels for a control image: the nearest shape of at most the model's own area.

    As in Lumina-mGPT the candidates lie along the largest shapes that fit the area, with a ratio of sides of
    at most 4, and the one that a crop loses least to is taken; shapes without a size token are left out.
    """
    rows, columns = model.grid
    unit_px = 2 * model.vq.config.factor
    best: tuple[float, tuple[int, int]] | None = None
    for width, height in list_shapes(rows * columns // 4):
        size = (width * unit_px, height * unit_px)
        try:
            compute_grid(model, size)
        except UsageError:
            continue
        across, down = size[0] / picture.width, size[1] / picture.height
        kept = min(across, down) / max(across, down)
        if best is None or (kept, size) > best:
            best = (kept, size)
    if best is None:
        raise UsageError(
            f"{model.name}: expected size tokens for a picture of its own area, found none",
            hint="give --size",
        )
    return best[1]


def list_shapes(area: int) -> list[tuple[int, int]]:
    """Widths and heights of at most `area` units, widest first, as Lumina-mGPT lists them."""
    shapes: list[tuple[int, int]] = []
    width, height = area, 1
    while width > 0:
        if max(width, height) <= MAX_RATIO * min(width, height):
            shapes.append((width, height))
        if (height + 1) * width <= area:
            height += 1
        else:
            width -= 1
    return shapes
