"""`statistics`: transfer the colours and grain of a reference in closed form.

Sliced optimal transport (Pitié et al. 2005: project, sort, move, rotate) of colours, then of each
band of a Laplacian pyramid (after Heeger & Bergen 1995), starting from the content image. It
transfers palette and grain; textures with a shape (tiles, hatching) need the `patch` synthesiser.

Axes: C colour, N pixels of the image, M pixels of the reference.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stylear.curate.recipe.synthesizers import StatisticsSettings
from stylear.curate.synthesize.texture.guide import prepare_content


def draw_rotations(count: int, dim: int, generator: torch.Generator) -> Tensor:
    """Random orthogonal matrices (count, dim, dim)."""
    frames: Tensor = torch.linalg.qr(torch.randn(count, dim, dim, generator=generator))[0]
    return frames


def match_distribution(points: Tensor, target: Tensor, frames: Tensor) -> Tensor:
    """Move points (C, N) until their distribution along every axis of each frame is that of target (C, M)."""
    num, num_target = points.shape[1], target.shape[1]
    ranks = torch.arange(num, dtype=torch.float64).add(0.5).mul(num_target / num).long()
    for frame in frames:
        projected = frame.T @ points
        matched = (frame.T @ target).sort(dim=1).values[:, ranks]
        order = projected.argsort(dim=1, stable=True)
        points = points + frame @ (
            torch.empty_like(projected).scatter_(1, order, matched) - projected
        )
    return points


def build_laplacian_pyramid(image: Tensor, levels: int) -> list[Tensor]:
    """Laplacian bands of an image (1, C, H, W), finest first, the low band last."""
    bands = []
    for _ in range(levels):
        if min(image.shape[-2:]) < 8:
            break
        low = F.avg_pool2d(image, 2)
        bands.append(image - resize_like(low, image))
        image = low
    return [*bands, image]


def resize_like(image: Tensor, like: Tensor) -> Tensor:
    """The image resized to the height and width of another."""
    return F.interpolate(image, size=like.shape[-2:], mode="bilinear", align_corners=False)


def stylize(content: Tensor, reference: Tensor, seed: int, settings: StatisticsSettings) -> Tensor:
    """Content (C, H, W) with the colours and grain of reference (C, h, w), both in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, *content.shape)
    target = reference.flatten(1)
    noise = torch.randn(content.shape, generator=generator) * settings.grain
    drawing = prepare_content(content, reference, settings)
    start = match_distribution(
        (drawing + noise).flatten(1), target, draw_rotations(6, 3, generator)
    )
    image = base = start.reshape(shape)
    style_levels = build_laplacian_pyramid(reference[None], settings.levels)
    for _ in range(settings.rounds):
        bands = [
            match_distribution(
                band[0].flatten(1), goal[0].flatten(1), draw_rotations(2, 3, generator)
            ).reshape(band.shape)
            for band, goal in zip(
                build_laplacian_pyramid(image, settings.levels), style_levels, strict=False
            )
        ]
        image = bands[-1]
        for band in reversed(bands[:-1]):
            image = resize_like(image, band) + band
        image = match_distribution(
            image[0].flatten(1), target, draw_rotations(3, 3, generator)
        ).reshape(shape)
        lost = F.avg_pool2d(base - image, 4, ceil_mode=True)
        image = image + settings.content * resize_like(lost, image)
    return image[0].clamp(0, 1)
