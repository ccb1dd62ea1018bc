"""Claims about sniffing: format and size from the first bytes, as the decoder would find them."""

from __future__ import annotations

import io
import random

import pytest
from builders.hostile_server import PICTURE, png
from PIL import Image

from stylear.curate.fetch.refused import RequestRefused
from stylear.curate.fetch.sniff import (
    MAX_HEADER_BYTES,
    BodyCheck,
    plain_jpeg,
    read_dimensions,
    sniff_readable_format,
)

NAMES = {
    "PNG": "png",
    "JPEG": "jpg",
    "GIF": "gif",
    "WEBP": "webp",
    "BMP": "bmp",
    "TIFF": "tif",
    "AVIF": "avif",
}


def picture(format: str, mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    noise = random.Random(1).randbytes(70 * 50 * 4)
    Image.frombytes("RGBA", (70, 50), noise).convert(mode).save(out, format, **options)
    return out.getvalue()


@pytest.mark.parametrize("format", NAMES)
def test_every_format_is_known_by_its_first_bytes_and_has_its_size_read(format: str) -> None:
    data = picture(format)
    assert sniff_readable_format(data[:32]) == NAMES[format]
    assert read_dimensions(data, NAMES[format]) == (None if format == "TIFF" else (70, 50))


@pytest.mark.parametrize(
    ("format", "mode", "options"),
    [
        ("WEBP", "RGB", {"lossless": True}),
        ("WEBP", "RGBA", {"quality": 50}),
        ("JPEG", "CMYK", {}),
        ("JPEG", "L", {"progressive": True}),
        ("JPEG", "RGB", {"exif": b"Exif\0\0" + bytes(60_000)}),
        ("PNG", "P", {}),
        ("GIF", "L", {}),
    ],
)
def test_variants_of_a_format_have_their_size_read_too(
    format: str, mode: str, options: dict[str, object]
) -> None:
    assert read_dimensions(picture(format, mode, **options), NAMES[format]) == (70, 50)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<!doctype html>",
        b"%PDF-1.7",
        b"\x1f\x8b\x08",
        b"BM is no bitmap at all",
        b"PK\3\4",
        b"RIFF....WAVE",
    ],
)
def test_anything_else_is_no_image(data: bytes) -> None:
    assert sniff_readable_format(data) is None


def test_a_header_that_is_not_there_yet_has_no_size() -> None:
    for format, name in NAMES.items():
        data = picture(format)
        for length in range(12, 24):
            size = read_dimensions(data[:length], name)
            assert size in (None, (70, 50)), (format, length)
    assert read_dimensions(picture("JPEG")[:100], "jpg") is None


def refusal(body: bytes, step: int = 1000, max_pixels: int = 10_000) -> str | None:
    """What a body that comes in steps is refused for."""
    check, came = BodyCheck(max_pixels), bytearray()
    try:
        for start in range(0, len(body), step):
            came += body[start : start + step]
            check.check(came)
        check.check(came, whole=True)
    except RequestRefused as refused:
        return refused.name
    return None


def test_a_body_is_judged_as_soon_as_its_header_is_there() -> None:
    assert refusal(PICTURE) is None
    assert refusal(PICTURE[:20], step=3) is None  # the decoder will find it cut off
    assert refusal(b"") == "empty"
    assert refusal(b"<html>" * 99) == "not-an-image"
    assert refusal(png(100, 100)) is None
    assert refusal(png(100, 101), step=7) == "too-many-pixels"
    check = BodyCheck(10_000)
    with pytest.raises(RequestRefused, match="too-many-pixels"):
        check.check(bytearray(png(30_000, 30_000)[:40]))


def test_a_header_without_an_end_is_looked_at_a_bounded_number_of_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from stylear.curate.fetch import sniff

    looks: list[int] = []
    genuine = sniff.read_dimensions

    def counted(data: bytes, format: str) -> tuple[int, int] | None:
        looks.append(len(data))
        return genuine(data, format)

    monkeypatch.setattr(sniff, "read_dimensions", counted)
    body = b"\xff\xd8" + b"\xff\xe1\x00\x02" * (MAX_HEADER_BYTES // 2)  # nothing but tiny segments
    assert refusal(body, step=1 << 16) is None
    assert looks == [1 << 16, 1 << 17, 1 << 18, 1 << 19, MAX_HEADER_BYTES]


def test_a_plain_jpeg_is_one_without_surprises() -> None:
    assert plain_jpeg(picture("JPEG")) == (70, 50)
    assert plain_jpeg(picture("JPEG", progressive=True)) == (70, 50)
    exif = Image.Exif()
    exif[0x0112] = 6
    surprises = [
        picture("JPEG", exif=exif),
        picture("JPEG", icc_profile=b"profile"),
        picture("JPEG", "L"),
        picture("JPEG", "CMYK"),
        picture("JPEG")[:100],
        picture("PNG"),
        b"",
    ]
    assert [plain_jpeg(data) for data in surprises] == [None] * 7
