"""Sniffing: the format and size of an image from its first bytes, before anything decodes it."""

from __future__ import annotations

import struct
import sys

from stylear.curate.fetch.refused import RequestRefused

NEEDED = 32  # bytes after which the format is certain
MAX_HEADER_BYTES = 1 << 20  # searched for the size; beyond them only the decoder checks it
JPEG_SIZES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # start of frame
PLAIN_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive
PLAIN_SEGMENTS = frozenset({0xC4, 0xDB, 0xDD, 0xE0, 0xFE})  # tables, restarts, JFIF, comment
JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes
HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevm", b"hevx"})
AVIF_BRANDS = frozenset({b"avif", b"avis", b"mif1", b"msf1"})
READ_FORMATS = ("png", "jpg", "gif", "webp", "bmp", "tif", "avif", "heic")
OTHER_FORMATS = (  # pictures that no decoder here reads: first bytes -> kind
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jp2"),
    (b"\xff\x4f\xff\x51", "jp2"),
    (b"\xff\x0a", "jxl"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "jxl"),
    (b"8BPS", "psd"),
    (b"\x76\x2f\x31\x01", "exr"),
    (b"DDS ", "dds"),
    (b"qoif", "qoi"),
    (b"II+\0", "bigtiff"),
    (b"MM\0+", "bigtiff"),
)


def sniff_format(start: bytes) -> str | None:
    """The image format by the first 32 bytes, readable or not; None for anything else."""
    for magic, kind in OTHER_FORMATS:
        if start.startswith(magic):
            return kind
    if start[:4] == b"\0\0\1\0" and 0 < start[4] <= 64 and start[9:10] == b"\0":
        return "ico"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:4].lower() == b"<svg":
        return "svg"
    return sniff_readable_format(start)


def sniff_readable_format(start: bytes) -> str | None:
    """One of READ_FORMATS by the first 32 bytes; None for anything else."""
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if start.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if start[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "webp"
    if start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in BMP_HEADERS:
        return "bmp"
    if start[:4] in (b"II*\0", b"MM\0*"):
        return "tif"
    return _sniff_ftyp(start)


def _sniff_ftyp(start: bytes) -> str | None:
    """avif or heic, by the brands of their first box; both are HEIF."""
    length = min(int.from_bytes(start[:4], "big"), len(start))
    brands = {start[8:12], *(start[at : at + 4] for at in range(16, length, 4))}
    if start[4:8] != b"ftyp":
        return None
    if not brands & {b"avif", b"avis"} and brands & HEIC_BRANDS:
        return "heic"
    return "avif" if brands & AVIF_BRANDS else None


def read_dimensions(data: bytes | bytearray, format: str) -> tuple[int, int] | None:
    """(width, height) in the header; None while `data` does not hold it yet.

    TIFF stores it anywhere in the file, so it is None for TIFF, where only the decoder checks the size.
    """
    try:
        match format:
            case "png":
                return _read_two(">II", data, 16)
            case "gif":
                return _read_two("<HH", data, 6)
            case "bmp":
                return _read_bmp(data)
            case "jpg":
                return _read_jpeg(data)
            case "webp":
                return _read_webp(data)
            case "avif" | "heic":
                return _read_avif(data)
    except (struct.error, IndexError):  # the header is longer than the data so far
        return None
    return None


def _read_two(layout: str, data: bytes | bytearray, at: int) -> tuple[int, int]:
    width, height = struct.unpack_from(layout, data, at)
    return int(width), int(height)


def _read_bmp(data: bytes | bytearray) -> tuple[int, int]:
    if data[14] == 12:
        return _read_two("<HH", data, 18)
    width, height = _read_two("<ii", data, 18)
    return abs(width), abs(height)  # a negative height: rows from the top


def _read_jpeg(data: bytes | bytearray) -> tuple[int, int] | None:
    """The size of the first frame; segments before it are skipped."""
    at = 2
    while True:
        if data[at] != 0xFF:
            return None  # damaged: the decoder reports it
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in JPEG_SIZES:
            height, width = _read_two(">HH", data, at + 5)
            return width, height
        elif marker in JPEG_ALONE:
            at += 2
        else:
            (length,) = struct.unpack_from(">H", data, at + 2)
            at += 2 + max(2, length)


def plain_jpeg(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG of three 8-bit components and only coding tables in its header.

    None for any other file, and for a JPEG with EXIF, a colour profile, several pictures or anything
    else that a decoder has to interpret.
    """
    at = 2
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        while data[at] == 0xFF:
            marker, (length,) = data[at + 1], struct.unpack_from(">H", data, at + 2)
            if marker in PLAIN_FRAMES:
                height, width = _read_two(">HH", data, at + 5)
                return (width, height) if (data[at + 4], data[at + 9]) == (8, 3) else None
            if marker not in PLAIN_SEGMENTS or length < 2:
                return None
            at += 2 + length
    except (struct.error, IndexError):
        return None
    return None


def _read_webp(data: bytes | bytearray) -> tuple[int, int] | None:
    chunk = data[12:16]
    if chunk == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        return (width, height) if len(data) >= 30 else None
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 ":
        width, height = _read_two("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _read_avif(data: bytes | bytearray) -> tuple[int, int] | None:
    """The largest `ispe` property: the image itself, not its thumbnail."""
    sizes, at = [], data.find(b"ispe")
    while at >= 0:
        sizes.append(_read_two(">II", data, at + 8))
        at = data.find(b"ispe", at + 4)
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


class BodyCheck:
    """Checks a body while it is received.

    Raises RequestRefused: empty, not-an-image, unsupported-format, too-many-pixels.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels, self._format, self._next = max_pixels, "", NEEDED

    def check(self, body: bytearray, whole: bool = False) -> None:
        """Check the bytes so far whenever they have doubled; `whole` means that they are all."""
        if len(body) < self._next and not (whole and self._next <= MAX_HEADER_BYTES):
            return
        self._next = 2 * len(body) if len(body) < MAX_HEADER_BYTES else sys.maxsize
        if not body:
            raise RequestRefused("empty")
        if not self._format:
            self._format = sniff_readable_format(bytes(body[:NEEDED])) or ""
            if not self._format:
                other = sniff_format(bytes(body[:NEEDED]))
                raise RequestRefused(
                    "unsupported-format" if other else "not-an-image", repr(bytes(body[:8]))
                )
        size = read_dimensions(body[:MAX_HEADER_BYTES], self._format)
        if size is not None:
            self._next = sys.maxsize
            if size[0] * size[1] > self._max_pixels:
                raise RequestRefused("too-many-pixels", f"{size[0]}x{size[1]}")
