"""Prepare a content image for texture transfer: background tone, outlines, subject.

Axes: C colour, H W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stylear.curate.recipe.synthesizers import ContentImageSettings

LUMA = (0.299, 0.587, 0.114)


def prepare_content(content: Tensor, reference: Tensor, settings: ContentImageSettings) -> Tensor:
    """The content with the reference's background tone and with its outlines marked.

    A plain light background is inverted for a dark reference (blueprint, chalk). Outlines, and whatever
    differs from a plain background, are shifted towards the contrasting tone, so that line styles draw
    the outlines and pale subjects stay visible.
    """
    ground, paper = read_border_values(luma(content), 32), read_border_values(luma(reference), 10)
    plain = bool(ground.std() < 0.1)
    tone, other = float(ground.median()) - 0.5, float(paper.mean()) - 0.5
    opposed = tone * other < 0 and min(abs(tone), abs(other)) > 0.05
    if settings.invert == "always" or (settings.invert == "auto" and plain and opposed):
        content = content + (1 - 2 * luma(content))
    sign = 1 if other > 0 else -1
    light = luma(content)
    edges = blur((light - blur(light, 1.2)) ** 2, 1.2).clamp_min(0).sqrt()
    marks = settings.outline * edges / (edges.max() + 1e-4)
    if plain:
        away = (content - measure_border_colour(content)).square().sum(0, keepdim=True)
        marks = marks + settings.figure * (1 - torch.exp(-away / 0.01))
    return content - sign * marks


def luma(image: Tensor) -> Tensor:
    """Brightness (1, H, W) of an image (C, H, W)."""
    return (image * torch.tensor(LUMA)[:, None, None]).sum(0, keepdim=True)


def read_border_values(image: Tensor, share: int) -> Tensor:
    """The pixels along the border of an image (1, H, W), in a strip of 1/share of its width."""
    width = max(2, image.shape[-1] // share)
    inside = torch.ones_like(image, dtype=torch.bool)
    inside[:, width:-width, width:-width] = False
    return image[inside]


def measure_border_colour(image: Tensor) -> Tensor:
    """The median colour (C, 1, 1) along the border of an image (C, H, W)."""
    return torch.stack([read_border_values(channel[None], 32).median() for channel in image])[
        :, None, None
    ]


def blur(image: Tensor, sigma: float) -> Tensor:
    """An image (C, H, W) blurred by a Gaussian of `sigma` pixels, its border replicated."""
    radius = int(3 * sigma + 0.5)
    taps = torch.exp(-(torch.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).repeat(image.shape[0], 1, 1, 1)  # (C, 1, 1, taps)
    padded = F.pad(image[None], [radius] * 4, mode="replicate")
    rows = F.conv2d(padded, taps, groups=image.shape[0])
    return F.conv2d(rows, taps.transpose(2, 3), groups=image.shape[0])[0]
