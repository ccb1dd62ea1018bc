"""Ingest: turn the bytes of any image into a stored image of the recipe's size, or drop it with a reason."""

from __future__ import annotations

import functools
import hashlib
import io
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

from stylear.curate.corpus.records import image_extension
from stylear.curate.fetch import sniff
from stylear.curate.fetch.pixels import Pixels, decode_jpeg, encode_pixels, fit, pick_jpeg_scale
from stylear.curate.fetch.png import complete_png, strip_text
from stylear.pair import Origin, Pair, Scalar

if TYPE_CHECKING:
    from stylear.curate.recipe import ImageSettings

STAGE = "fetch"
VERSION = 3  # raise when the same bytes and settings give other stored bytes

FORMATS = (
    "PNG",
    "JPEG",
    "MPO",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
    "AVIF",
    "HEIF",
)  # Pillow tries no other decoder on untrusted bytes
MAX_PROFILE_BYTES = 4_000_000
END_OF_JPEG = b"\xff\xd9"
ORIENTATION = 0x0112  # the EXIF tag
INGESTED = ("source_width", "source_height", "source_format", "truncated")  # details added here
SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I")


class ImageRejected(Exception):
    """An image that cannot be stored: `reason` is the pair's rejection reason, the message says more."""

    def __init__(self, reason: str, details: str = "") -> None:
        super().__init__(f"{reason}: {details}" if details else reason)
        self.reason = reason


class _SilencedWarnings:
    """Silences Pillow's warnings while any thread decodes.

    Warning filters belong to the process: the first thread to enter sets them, the last to leave restores
    them. `warnings.catch_warnings` in each thread would leave them changed.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._outside = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._outside = warnings.catch_warnings()
                self._outside.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._outside.__exit__(None, None, None)


_SILENCED = _SilencedWarnings()


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored image, and details of its source."""

    data: bytes
    details: Mapping[str, Scalar]


def ingest(pair: Pair, settings: ImageSettings) -> Pair:
    """The pair with its source bytes turned into a stored image; dropped with a reason otherwise.

    `origin.source_sha256` becomes the hash of the original bytes, unless the source has already set it.
    A dropped pair passes through without its bytes.
    """
    if not pair.kept:
        return replace(pair, image=b"")
    sha256 = pair.origin.source_sha256 or hashlib.sha256(pair.image).hexdigest()
    origin: Origin = replace(pair.origin, source_sha256=sha256)
    try:
        stored = convert_image(pair.image, settings)
    except ImageRejected as rejection:
        return replace(pair, image=b"", origin=origin).drop(STAGE, rejection.reason)
    origin = replace(origin, details={**origin.details, **stored.details})
    return replace(pair, image=stored.data, origin=origin)


def convert_image(data: bytes, settings: ImageSettings) -> Stored:
    """Convert an image to what the recipe's settings ask for: upright, sRGB, opaque, square, one frame.

    Raises ImageRejected: empty, not-an-image, unsupported-format (a picture of another kind),
    too-many-pixels, too-small, corrupt-image, unsupported-pixels.
    """
    if not data:
        raise ImageRejected("empty")
    plain = sniff.plain_jpeg(data)
    if plain is not None:
        details = _check_header(*plain, "jpeg", settings)
        pixels = _decode_plain_jpeg(data, *plain, settings)
        if pixels is not None:
            return _encode_stored(data, pixels, details, settings)
    with _SILENCED, _open(data) as image:
        details = _check_header(image.width, image.height, str(image.format).lower(), settings)
        if settings.fit == "source":
            return _encode_stored(data, None, details, settings)
        # a JPEG decodes at 1/2, 1/4 or 1/8 for a fraction of the work; twice the size is left to resample
        image.draft(None, (2 * settings.size, 2 * settings.size))
        try:
            picture = _decode(image)
        except ImageRejected as rejection:
            if settings.truncated == "drop" or rejection.reason != "corrupt-image":
                raise
            picture = _decode_truncated(data, rejection, settings)
            details["truncated"] = True
    return _encode_stored(
        data, np.asarray(flatten(picture, settings.background)), details, settings
    )


def _check_header(width: int, height: int, kind: str, settings: ImageSettings) -> dict[str, Scalar]:
    """The details in the header. Raises ImageRejected: too-many-pixels, too-small."""
    if width * height > settings.max_pixels:
        raise ImageRejected("too-many-pixels", f"{width}x{height}")
    if min(width, height) < settings.min_side:
        raise ImageRejected("too-small", f"{width}x{height}")
    return {"source_width": width, "source_height": height, "source_format": kind}


def _decode_plain_jpeg(
    data: bytes, width: int, height: int, settings: ImageSettings
) -> Pixels | None:
    """Decode a JPEG without orientation or profile; None leaves it to Pillow, which names the fault."""
    if settings.fit == "source":
        return None
    return decode_jpeg(data, pick_jpeg_scale(width, height, settings.size))


def _encode_stored(
    data: bytes, pixels: Pixels | None, details: dict[str, Scalar], settings: ImageSettings
) -> Stored:
    """Encode pixels for storage, or keep the source bytes if there are none. Raises ImageRejected."""
    if pixels is not None:
        fitted = fit(pixels, settings)
        return Stored(encode_pixels(fitted, settings.format, settings.quality), details)
    if image_extension(data) is None:
        raise ImageRejected("unsupported-format", str(details["source_format"]))
    return Stored(data, details)


def _open(data: bytes) -> Image.Image:
    """Open an image and read its header only. Text chunks of a PNG are skipped."""
    Image.init()  # Pillow knows webp, tiff and avif only after this; it does its work once
    kind = sniff.sniff_format(data[: sniff.NEEDED])
    if kind == "heic" and not _register_heif():
        raise ImageRejected("unsupported-format", "heic: install pillow-heif to read it")
    try:
        formats = [name for name in FORMATS if name in Image.OPEN]
        return Image.open(io.BytesIO(strip_text(data) if kind == "png" else data), formats=formats)
    except Image.DecompressionBombError as error:
        raise ImageRejected("too-many-pixels", str(error)) from error
    except Exception as error:  # parsers of hostile bytes raise anything; it is this pair's verdict
        if kind is None:
            raise ImageRejected("not-an-image", str(error)) from error
        damaged = kind in sniff.READ_FORMATS
        raise ImageRejected("corrupt-image" if damaged else "unsupported-format", kind) from error


@functools.cache
def _register_heif() -> bool:
    """Register the HEIC reader with Pillow if the optional package is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _decode_truncated(
    data: bytes, rejection: ImageRejected, settings: ImageSettings
) -> Image.Image:
    """Decode what a truncated JPEG or PNG still holds. Raises `rejection` if that is nothing."""
    kind = sniff.sniff_format(data[: sniff.NEEDED])
    completed = (
        data + END_OF_JPEG if kind == "jpg" else complete_png(data) if kind == "png" else None
    )
    if completed is None:
        raise rejection
    with _open(completed) as image:
        image.draft(None, (2 * settings.size, 2 * settings.size))
        return _decode(image)


def _decode(image: Image.Image) -> Image.Image:
    """Decode the first frame, upright by its EXIF, in sRGB."""
    try:
        image.seek(0)
        image.load()
        if image.getexif().get(ORIENTATION, 1) != 1:
            return to_srgb(ImageOps.exif_transpose(image))
        return to_srgb(image)
    except ImageRejected:
        raise
    except Exception as error:  # as above
        raise ImageRejected("corrupt-image", str(error)) from error


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert any mode, depth and colour profile to 8-bit RGB or RGBA in sRGB."""
    profile = image.info.get("icc_profile")
    alpha = None
    if image.mode in SIXTEEN_BIT:
        image = _to_eight_bit(image)
    elif image.mode in ("F", "LAB"):
        raise ImageRejected("unsupported-pixels", f"mode {image.mode}")  # no agreed white
    elif image.has_transparency_data:
        whole = image.convert("RGBA")
        alpha = whole.getchannel("A")
        image = image.convert("L") if image.mode in ("LA", "La") else whole.convert("RGB")
    elif image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("RGB")
    image = _apply_profile(image, profile)
    if alpha is not None:
        image.putalpha(alpha)
    return image


def _to_eight_bit(image: Image.Image) -> Image.Image:
    """Convert 16-bit grey to 8 bits."""
    levels = np.asarray(image).astype(np.int64)
    if levels.min() < 0 or levels.max() > 65535:
        raise ImageRejected("unsupported-pixels", f"grey levels {levels.min()}..{levels.max()}")
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8))


def _apply_profile(image: Image.Image, profile: Any) -> Image.Image:
    """Convert to sRGB by a colour profile; an unreadable one or one of another mode is ignored."""
    if isinstance(profile, bytes) and 0 < len(profile) <= MAX_PROFILE_BYTES:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            target = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError):
            converted = None
        if converted is not None:
            return converted
    return _to_rgb(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB; an RGB image is not copied."""
    return image if image.mode == "RGB" else image.convert("RGB")


def flatten(image: Image.Image, background: str) -> Image.Image:
    """Convert to RGB; transparent parts show `background`."""
    if image.mode != "RGBA":
        return _to_rgb(image)
    canvas = Image.new("RGBA", image.size, background)
    canvas.alpha_composite(image)
    return canvas.convert("RGB")
