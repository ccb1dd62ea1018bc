"""`render`: redraw a content image with the procedural style that drew a mini reference.

It knows the style exactly, where other backends estimate it from the reference image, so it draws the
large corpus that the mini models are trained on. It needs references drawn by `stylear.mini.references`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stylear.errors import RecipeError
from stylear.mini.styles import FAMILIES, Style, make_style, render


def parse_style(reference: str) -> Style:
    """The style of a reference id `<family>--<variant>`. Raises RecipeError for any other id."""
    family, _, variant = reference.partition("--")
    if family not in FAMILIES or not variant.isdecimal():
        raise RecipeError(
            f"references: expected, for backend render, ids such as mosaic--03, found {reference!r}",
            hint="draw them with python -m stylear.mini.references, or use another backend",
        )
    return make_style(family, int(variant))


def stylize(content: Tensor, reference: str, seed: int) -> Tensor:
    """The content (3, s, s) in [0, 1] in the reference's style, the same shape and range."""
    pixels = (content.permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.uint8)
    drawn = render(pixels, parse_style(reference), seed)
    return torch.from_numpy(drawn).permute(2, 0, 1).float() / 255
