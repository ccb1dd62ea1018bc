"""`patch`: draw the content with patches of the reference. No weights, no training.

Coarse to fine, starting from the content image in the reference's colours. At each scale the patches
of the image are matched to those of the reference, by one of two methods:

nearest   each patch becomes its nearest patch of the reference. Distances are divided by the distance
          at which each reference patch is already matched, so that all of the reference is used (GPNN:
          Granot et al., "Drop the GAN", CVPR 2022). Closed form, about 0.1 s at 64 px.
sliced    gradient steps on the sliced Wasserstein distance between the two patch distributions (GPDM:
          Elnekave & Weiss, ECCV 2022). Its sorts make it several times slower for equal quality.

`content` is the weight of the content image in both. Axes: C colour, D patch values (C * patch**2),
N patches of the picture, M patches of the reference, K projections.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stylear.curate.recipe.synthesizers import PatchSettings
from stylear.curate.synthesize.backends.statistics import (
    draw_rotations,
    match_distribution,
    resize_like,
)
from stylear.curate.synthesize.texture.guide import blur, prepare_content

MIN_SCALE = 16  # side in pixels of the coarsest scale (our choice)
SMALL_SIDE = 128  # side in pixels up to which patches are smaller and denser (our choice)


def stylize(content: Tensor, reference: Tensor, seed: int, settings: PatchSettings) -> Tensor:
    """Content (C, H, W) in the style of reference (C, h, w), both in [0, 1]."""
    side = settings.patch or (5 if content.shape[-1] <= SMALL_SIDE else 7)
    generator = torch.Generator().manual_seed(seed)
    weight = content_weight(seed, settings)
    drawing = prepare_content(content, reference, settings)
    noise = torch.randn(content.shape, generator=generator) * settings.grain
    start = match_distribution(
        (drawing + noise).flatten(1), reference.flatten(1), draw_rotations(6, 3, generator)
    ).reshape(content.shape)
    contents, references = build_scales(start, reference, side)
    picture = contents[-1]
    for scaled, style in zip(reversed(contents), reversed(references), strict=True):
        picture = resize_like(picture[None], scaled)[0]
        if settings.match == "nearest":
            picture = place_patches(picture, scaled, style, weight, side, generator, settings)
        else:
            picture = optimize_patches(picture, scaled, style, weight, side, generator, settings)
    return picture.clamp(0, 1)


def content_weight(seed: int, settings: PatchSettings) -> float:
    """The content weight of one candidate: `content` plus or minus up to `content_spread`."""
    share = float(torch.rand((), generator=torch.Generator().manual_seed(seed ^ 1)))
    weight = settings.content + settings.content_spread * (2 * share - 1)
    return min(1.0, max(0.0, weight))


def build_scales(
    content: Tensor, reference: Tensor, side: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Both images at every scale, finest first, each half the size of the one before."""
    contents, references = [content], [reference]
    while (
        min(contents[-1].shape[1:]) >= 2 * MIN_SCALE and min(references[-1].shape[1:]) >= 2 * side
    ):
        contents.append(F.avg_pool2d(contents[-1][None], 2)[0])
        references.append(F.avg_pool2d(references[-1][None], 2)[0])
    return contents, references


def place_patches(
    picture: Tensor,
    content: Tensor,
    style: Tensor,
    weight: float,
    side: int,
    generator: torch.Generator,
    settings: PatchSettings,
) -> Tensor:
    """Replace every patch by its nearest patch of `style`, `rounds` times, and blend overlaps."""
    margin = side // 2
    stride = settings.stride or (2 if picture.shape[-1] <= SMALL_SIDE else 3)
    known = F.unfold(style[None], side)[0]  # (D, M)
    if known.shape[1] > settings.max_patches:
        chosen = torch.randperm(known.shape[1], generator=generator)[: settings.max_patches]
        known = known[:, chosen]
    squares = (known * known).sum(0, keepdim=True)
    keys = torch.cat([known, torch.ones_like(squares), squares])  # (D + 2, M)
    steps = torch.arange(side) - margin
    window = torch.exp(-(steps**2) / (2 * (side / 4.5) ** 2))
    window = torch.outer(window, window).flatten().repeat(picture.shape[0])[:, None]  # (D, 1)
    height, width = picture.shape[1] + 2 * margin, picture.shape[2] + 2 * margin
    slack = settings.completeness * known.shape[0]
    for _ in range(settings.rounds):
        mixed = (1 - weight) * picture + weight * content
        queries = F.unfold(F.pad(mixed[None], [margin] * 4, mode="reflect"), side, stride=stride)[0]
        squares = (queries * queries).sum(0, keepdim=True)
        distances = torch.cat([-2 * queries, squares, torch.ones_like(squares)]).T @ keys  # (N, M)
        matched = distances.amin(0, keepdim=True).clamp_min_(0)  # (1, M)
        if settings.completeness > 0:
            distances.add_(0.01).div_(slack + matched)
        patches = known[:, distances.argmin(1)] * window
        total = F.fold(patches[None], (height, width), side, stride=stride)
        share = F.fold(window.expand_as(patches)[None], (height, width), side, stride=stride)
        blended = (total / share.clamp_min(1e-6))[0]
        picture = blended[:, margin : height - margin, margin : width - margin]
    return picture


def optimize_patches(
    picture: Tensor,
    content: Tensor,
    style: Tensor,
    weight: float,
    side: int,
    generator: torch.Generator,
    settings: PatchSettings,
) -> Tensor:
    """Minimise the sliced Wasserstein distance of patches + `weight` x content loss with Adam.

    Every step draws new unit projections (K, C, patch, patch) and decays the learning rate. The content
    loss compares blurred images, so it constrains shapes and not texture.
    """
    margin, channels = side // 2, picture.shape[0]
    content = blur(content, 1.5)
    with torch.enable_grad():
        picture = picture.clone().requires_grad_(True)
        adam = torch.optim.Adam([picture], lr=settings.rate)
        for step in range(settings.steps):
            adam.param_groups[0]["lr"] = settings.rate * (1 - 0.9 * step / settings.steps)
            axes = torch.randn(settings.projections, channels, side, side, generator=generator)
            axes = axes / axes.flatten(1).norm(dim=1)[:, None, None, None]
            with torch.no_grad():
                goal = F.conv2d(style[None], axes)[0].flatten(1).sort(1).values  # (K, M)
            padded = F.pad(picture[None], [margin] * 4, mode="reflect")
            projected = F.conv2d(padded, axes)[0].flatten(1).sort(1).values  # (K, N)
            ranks = torch.arange(projected.shape[1], dtype=torch.float64).add(0.5)
            goal = goal[:, ranks.mul(goal.shape[1] / projected.shape[1]).long()]
            loss = (projected - goal).abs().mean() + weight * (
                blur(picture, 1.5) - content
            ).abs().mean()
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
    return picture.detach()
