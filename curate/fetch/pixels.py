"""Pixels: fit, resize and encode decoded images.

Axes: H height, W width, the last one red, green, blue; 8 bits each.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from stylear.curate.recipe import ImageSettings

Pixels = np.ndarray[Any, np.dtype[np.uint8]]  # (H, W, 3)


def decode_jpeg(data: bytes, shrink: int) -> Pixels | None:
    """Decode a JPEG at 1/`shrink` (1, 2, 4 or 8) of its size, as stored; None if it is damaged.

    The same pixels as Pillow's, without its intermediate copy at four bytes per pixel.
    """
    import cv2

    flags = {1: cv2.IMREAD_COLOR_RGB, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
    flag = flags.get(shrink, cv2.IMREAD_REDUCED_COLOR_8) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:
        return None
    if pixels is None or shrink == 1:
        return pixels
    return np.ascontiguousarray(pixels[..., ::-1])  # the reduced modes give blue first


def pick_jpeg_scale(width: int, height: int, size: int) -> int:
    """The largest decoding scale 1/N of a JPEG that leaves at least twice `size` to resample."""
    largest = min(width, height) // (2 * size)
    return max(scale for scale in (1, 2, 4, 8) if scale <= max(1, largest))


def prepare() -> None:
    """Import what the first image needs while the first downloads are running."""
    import cv2  # noqa: F401
    import torch  # noqa: F401


def fit(pixels: Pixels, settings: ImageSettings) -> Pixels:
    """Fit an image into a square: crop its centre, or pad it with the background."""
    size, (height, width) = settings.size, pixels.shape[:2]
    if settings.fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        return resize_pixels(pixels[top : top + side, left : left + side], (size, size))
    scale = size / max(width, height)
    inner = (max(1, round(height * scale)), max(1, round(width * scale)))
    canvas = np.array(Image.new("RGB", (size, size), settings.background))
    top, left = (size - inner[0]) // 2, (size - inner[1]) // 2
    canvas[top : top + inner[0], left : left + inner[1]] = resize_pixels(pixels, inner)
    return canvas


def resize_pixels(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize to (height, width): bicubic with antialiasing.

    PyTorch's uint8 kernel: the same filter as Pillow's up to rounding, in a quarter of its time.
    """
    if pixels.shape[:2] == size:
        return pixels
    import torch
    from torch.nn.functional import interpolate

    # PyTorch copies a view on all cores, so it gets an array of its own; the permuted view lets its kernel
    # work on channels-last bytes, (1, 3, H, W) over (1, H, W, 3).
    batch = torch.from_numpy(np.array(pixels, order="C"))[None].permute(0, 3, 1, 2)
    new = interpolate(batch, size=size, mode="bicubic", antialias=True)
    return np.ascontiguousarray(new[0].permute(1, 2, 0).numpy())


def encode(image: Image.Image, format: str, quality: int | None = None) -> bytes:
    """An RGB image as png, jpg or webp; see `encode_pixels`."""
    return encode_pixels(np.asarray(image), format, quality)


def encode_pixels(pixels: Pixels, format: str, quality: int | None = None) -> bytes:
    """Encode pixels as png, jpg (4:4:4, default quality 95) or webp (lossless by default).

    Nothing but pixels is written, and the same pixels give the same bytes.
    """
    if format == "jpg":
        return _jpeg(pixels, quality or 95)
    image, out = Image.fromarray(pixels), io.BytesIO()
    if format == "png":
        image.save(out, "PNG", optimize=False, compress_level=6)
    elif quality is None:
        image.save(out, "WEBP", lossless=True, quality=80, method=4, exact=True)
    else:
        image.save(out, "WEBP", quality=quality, method=4)
    return out.getvalue()


def _jpeg(pixels: Pixels, quality: int) -> bytes:
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)[1]
    return bytes(data.tobytes())
