"""Images: the format and the size that the table says, and on request every pixel decoded."""

from __future__ import annotations

import io
from dataclasses import dataclass

from stylear.curate.corpus.records import image_extension, image_size
from stylear.errors import CorpusError

FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}


@dataclass(frozen=True, slots=True)
class ImageFault:
    """How an image differs from what its table says."""

    expected: str
    found: str


def describe_image_fault(
    data: bytes | memoryview, ext: str, size: tuple[int, int] | None, *, decode: bool
) -> ImageFault | None:
    """The fault of an image whose format is not `ext`, or with `decode` one that cannot be decoded.

    `size` is (width, height) in pixels; None is not compared. The size is read from the header and compared
    before any pixel is decoded.
    """
    real_ext = image_extension(bytes(data[:12]))
    if real_ext != ext:
        return ImageFault(f"a {ext} image", f"a {real_ext} image" if real_ext else "no image")
    if not decode:
        return None
    expected = f"a {ext} image" + ("" if size is None else f" of {size[0]} x {size[1]} pixels")
    try:
        real_size = image_size(bytes(data))
    except CorpusError as error:
        return ImageFault(expected, error.message.partition("found: ")[2] or error.message)
    if size is not None and real_size != size:
        return ImageFault(expected, f"{real_size[0]} x {real_size[1]} pixels")
    return decode_fault(bytes(data), ext, expected)


def decode_fault(data: bytes, ext: str, expected: str) -> ImageFault | None:
    """The fault of an image that cannot be decoded to its last pixel."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=(FORMATS[ext],)) as image:
            image.load()
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        return ImageFault(expected, f"one that cannot be decoded: {error}")
    return None
