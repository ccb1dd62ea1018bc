"""The perceptual hash, in which near duplicates differ by few bits, and the colours beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stylear.curate.score.scorer import Context, Measured, Scorer
from stylear.curate.score.table import COLOUR, string_column

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image


class Hashes:
    """(phash, quarters) of an image, as a feature."""

    name = "phash"
    batch_size = 64  # of no consequence: each image is hashed by itself

    def prepare(self, image: Image.Image) -> tuple[str, str]:
        pixels = np.asarray(image)
        return phash(pixels), quarters(pixels)

    def measure(self, prepared: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        return list(prepared)


class PhashScorer(Scorer):
    """A 64-bit perceptual hash, as 16 hex digits, and the colours of the four quarters."""

    def __init__(self, spec: Any, context: Context) -> None:
        super().__init__(spec, context)
        self.hashes = Hashes()
        self.features = (self.hashes,)

    def told(self) -> dict[str, Any]:
        return super().told() | {"preprocessing": "grey, 32 px, 8x8 DCT"}

    def columns(self, shard: Measured) -> tuple[dict[str, pa.Array], dict[str, Any]]:
        found = shard.of(self.hashes)
        both = [found.get(place, (None, None)) for place in range(len(shard.pairs))]
        columns = {
            self.spec.name: string_column(one for one, _ in both),
            COLOUR: string_column(other for _, other in both),
        }
        return columns, {}


def phash(pixels: NDArray[np.uint8]) -> str:
    """The hash of RGB pixels (H, W, 3): which of the 64 lowest DCT coefficients exceed their median."""
    import cv2

    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA)
    low = np.round(cv2.dct(small)[:8, :8], 2)
    bits = np.packbits((low > np.median(low.ravel()[1:])).ravel())
    return bits.tobytes().hex()


def quarters(pixels: NDArray[np.uint8]) -> str:
    """Mean RGB of the four quarters: 12 bytes as hex."""
    import cv2

    small = cv2.resize(pixels, (2, 2), interpolation=cv2.INTER_AREA)
    return bytes(small.tobytes()).hex()
