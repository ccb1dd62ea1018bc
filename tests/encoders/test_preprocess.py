"""Images of every mode become RGB, and none becomes longer than memory."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from stylear.encoders.preprocess import limit_ratio, to_rgb
from stylear.encoders.segment import cut_out
from stylear.errors import SourceError, UsageError

GREY = (128, 128, 128)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 128, GREY),
        ("LA", (128, 255), GREY),
        ("LA", (128, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (200, 100, 0, 255), (200, 100, 0)),
        ("RGBa", (0, 0, 0, 0), (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("I;16", 128 * 257, GREY),
        ("I;16B", 128 * 257, GREY),
        ("I", 128 * 257, GREY),
        ("I", 128, GREY),
        ("F", 128.0, GREY),
    ],
)
def test_a_picture_of_any_mode_becomes_rgb(
    mode: str, colour: int | float | tuple[int, ...], expected: tuple[int, int, int]
) -> None:
    picture = to_rgb(Image.new(mode, (3, 2), colour))
    assert (picture.mode, picture.size, picture.getpixel((0, 0))) == ("RGB", (3, 2), expected)


def test_palettes_may_be_transparent() -> None:
    picture = Image.new("P", (2, 1), 0)
    picture.putpalette([10, 20, 30, 0, 0, 0])
    assert to_rgb(picture).getpixel((0, 0)) == (10, 20, 30)
    picture.info["transparency"] = 0
    assert to_rgb(picture).getpixel((0, 0)) == (255, 255, 255)


def test_a_png_of_16_bits_keeps_its_levels() -> None:
    stream = io.BytesIO()
    Image.fromarray(np.array([[0, 0x1234, 0xFFFF]], dtype=np.uint16)).save(stream, "PNG")
    picture = to_rgb(stream.getvalue())
    assert np.asarray(picture)[0, :, 0].tolist() == [0, 0x12, 255]


def test_what_is_no_picture_is_said() -> None:
    with pytest.raises(
        SourceError, match=r"uint8 \(H, W, 3\), found an array of float64 \(2, 2, 3\)"
    ):
        to_rgb(np.zeros((2, 2, 3)))
    with pytest.raises(SourceError, match="found one of 0x5 pixels"):
        to_rgb(Image.new("RGB", (0, 5)))


def test_very_long_pictures_are_cut_to_their_centre() -> None:
    levels = np.arange(100, dtype=np.uint8)
    long = Image.fromarray(np.stack([levels[None]] * 3, axis=-1))
    assert long.size == (100, 1)
    assert np.asarray(limit_ratio(long))[0, :, 0].tolist() == list(range(42, 58))
    square = Image.new("RGB", (7, 7))
    assert limit_ratio(square) is square


def test_a_mask_of_another_size_is_named() -> None:
    with pytest.raises(UsageError, match=r"its reference, \(2, 3\), found \(3, 2\)"):
        cut_out(Image.new("RGB", (3, 2)), np.ones((3, 2), dtype=bool))
