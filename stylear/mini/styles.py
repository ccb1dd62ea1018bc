"""Procedural picture styles: families with random parameters, drawn over a picture on white.

The marks are sized for 64 px and grow with the picture. All arithmetic is float32 in [0, 1]; the same
(picture, style, seed) gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stylear.mini import crafts, inks
from stylear.mini.brushes import Field, Rng
from stylear.pair import digest

Image = npt.NDArray[Any]  # uint8, (H, W, 3)
Family = Callable[[Field, Rng, Rng], Field]

TRAIN: dict[str, Family] = {
    "mosaic": crafts.mosaic, "halftone": inks.halftone, "chalkboard": inks.chalkboard,
    "neon": crafts.neon, "cross-stitch": crafts.cross_stitch, "risograph": inks.risograph,
    "watercolour": inks.watercolour, "pointillism": inks.pointillism, "crosshatch": inks.crosshatch,
    "paper-cut": inks.paper_cut, "pencil": inks.pencil, "impasto": inks.impasto,
    "comic": inks.comic, "linocut": inks.linocut, "duotone": inks.duotone,
    "low-poly": crafts.low_poly, "knit": crafts.knit, "led": crafts.led,
    "scanlines": crafts.scanlines, "pottery": crafts.pottery,
}  # fmt: skip
# No model is trained on these. Each has relatives above: blueprint (chalkboard, neon), thermal
# (duotone), woodcut (linocut, crosshatch), stained glass (mosaic, low-poly, comic), pixel (mosaic, led,
# cross-stitch), batik (paper-cut, pottery, linocut).
HELD_OUT: dict[str, Family] = {
    "blueprint": crafts.blueprint, "thermal": crafts.thermal, "woodcut": inks.woodcut,
    "stained-glass": crafts.stained_glass, "pixel": crafts.pixel, "batik": crafts.batik,
}  # fmt: skip
FAMILIES: dict[str, Family] = {**TRAIN, **HELD_OUT}
TRAIN_FAMILIES = tuple(TRAIN)
HELD_OUT_FAMILIES = tuple(HELD_OUT)
HOUSE_FAMILIES = ("blueprint", "thermal", "batik")  # the demo's user has these as styles of its own
UNSEEN_FAMILIES = (
    "woodcut",
    "stained-glass",
    "pixel",
)  # neither a shipped model nor the demo's corpus


@dataclass(frozen=True, slots=True)
class Style:
    """A variant of a family: the number fixes its palette, cell sizes, angles and strokes."""

    family: str
    variant: int

    @property
    def name(self) -> str:
        return f"{self.family}/{self.variant}"


def make_style(family: str, variant: int) -> Style:
    """The style of a family with this number. Raises ValueError for an unknown family."""
    if family not in FAMILIES:
        raise ValueError(
            f"style family: expected one of {', '.join(sorted(FAMILIES))}, found {family!r}"
        )
    return Style(family, variant)


def render(image: Image, style: Style, seed: int) -> Image:
    """The picture (H, W, 3), or (H, W, 4) with alpha, uint8, as (H, W, 3) in a style.

    `seed` moves only what chance moves within the style. Raises ValueError for another shape or type.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (3, 4):
        raise ValueError(f"image: expected (H, W, 3 or 4) uint8, found {image.shape} {image.dtype}")
    look = np.random.default_rng(int(digest("style", style.family, style.variant)[:12], 16))
    chance = np.random.default_rng(seed)
    picture = image[..., :3].astype(np.float32) / 255
    if image.shape[2] == 4:
        picture = 1 + (picture - 1) * (image[..., 3:].astype(np.float32) / 255)
    drawn = FAMILIES[style.family](picture, look, chance)
    return np.clip(drawn * 255 + 0.5, 0, 255).astype(np.uint8)
