"""The perceptual hash, in which near duplicates differ by few bits, and the mean colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stylear.curate.score.scorer import Context, MeasuredShard, Scorer
from stylear.curate.score.table import COLOUR, string_column

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image


class PhashFeature:
    """(phash, colours of the quarters) of an image."""

    name = "phash"
    batch_size = 64  # has no effect: each image is hashed alone

    def prepare(self, image: Image.Image) -> tuple[str, str]:
        pixels = np.asarray(image)
        return compute_phash(pixels), quarter_colours(pixels)

    def measure(self, prepared: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        return list(prepared)


class PhashScorer(Scorer):
    """A 64-bit perceptual hash, as 16 hex digits, and the colours of the four quarters."""

    def __init__(self, spec: Any, context: Context) -> None:
        super().__init__(spec, context)
        self.hashes = PhashFeature()
        self.features = (self.hashes,)

    def metadata(self) -> dict[str, Any]:
        return super().metadata() | {"preprocessing": "grey, 32 px, 8x8 DCT"}

    def columns(self, shard: MeasuredShard) -> tuple[dict[str, pa.Array], dict[str, Any]]:
        found = shard.rows(self.hashes)
        both = [found.get(place, (None, None)) for place in range(len(shard.pairs))]
        columns = {
            self.spec.name: string_column(one for one, _ in both),
            COLOUR: string_column(other for _, other in both),
        }
        return columns, {}


def compute_phash(pixels: NDArray[np.uint8]) -> str:
    """Hash RGB pixels (H, W, 3): which of the 64 lowest DCT coefficients exceed their median."""
    import cv2

    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA)
    low = np.round(cv2.dct(small)[:8, :8], 2)
    bits = np.packbits((low > np.median(low.ravel()[1:])).ravel())
    return bits.tobytes().hex()


def quarter_colours(pixels: NDArray[np.uint8]) -> str:
    """The mean RGB of the four quarters: 12 bytes as hex."""
    import cv2

    small = cv2.resize(pixels, (2, 2), interpolation=cv2.INTER_AREA)
    return bytes(small.tobytes()).hex()
