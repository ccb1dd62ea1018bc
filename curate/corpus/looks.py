"""Looks: a picture's perceptual hash and colours, by which near duplicates are recognised."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COLOUR_DISTANCE = 16  # levels (our choice): a red and a blue heart are not duplicates
DISTANCE = 4  # bits (our choice, the filter's default)


@dataclass(frozen=True, slots=True, order=True)
class Look:
    """The look of a picture: its 64-bit perceptual hash, and the mean RGB of its four quarters."""

    phash: str  # 16 hex digits
    colour: str  # 24 hex digits

    @classmethod
    def of_image(cls, data: bytes) -> Look:
        """Hash an encoded image that is known to decode."""
        from PIL import Image

        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image.convert("RGB"))
        return cls(compute_phash(pixels), quarter_colours(pixels))

    def is_near(self, other: Look, distance: int) -> bool:
        """Whether two pictures are near duplicates, by the filter's rule."""
        bits = (int(self.phash, 16) ^ int(other.phash, 16)).bit_count()
        levels = zip(bytes.fromhex(self.colour), bytes.fromhex(other.colour), strict=True)
        return bits <= distance and all(abs(a - b) <= COLOUR_DISTANCE for a, b in levels)


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
