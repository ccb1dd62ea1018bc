"""Claims about ingest: whatever the bytes are, a stored image or a reason."""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from stylear.curate.fetch import sniff
from stylear.curate.fetch.ingest import ImageRejected, convert_image, ingest
from stylear.curate.fetch.pixels import encode
from stylear.curate.recipe import ImageSettings
from stylear.pair import Origin, Pair

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def settings(**changes: Any) -> ImageSettings:
    return ImageSettings(**{"size": 32, "min_side": 1, **changes})


def as_bytes(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def halves(left: tuple[int, ...], right: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    """A 40x40 image, its left half of one colour, its right half of another."""
    image = Image.new(mode, (40, 40), left)
    image.paste(Image.new(mode, (20, 40), right), (20, 0))
    return image


def pixels(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


def close(found: Any, expected: tuple[int, ...], tolerance: int = 6) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(found, expected, strict=True))


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares its size and holds no pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    data = b"IDAT" + zlib.compress(b"")
    chunk += struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    return b"\x89PNG\r\n\x1a\n" + chunk


def test_a_stored_image_has_the_recipes_size_and_format() -> None:
    wide = as_bytes(Image.new("RGB", (90, 50), BLUE))
    for format, magic in (("png", b"\x89PNG"), ("jpg", b"\xff\xd8"), ("webp", b"RIFF")):
        stored = convert_image(wide, settings(format=format))
        assert stored.data.startswith(magic)
        assert pixels(stored.data).size == (32, 32)
        assert dict(stored.details) == {
            "source_width": 90,
            "source_height": 50,
            "source_format": "png",
        }


def test_the_same_bytes_are_stored_as_the_same_bytes() -> None:
    data = as_bytes(halves(RED, BLUE), "JPEG")
    for format in ("png", "jpg", "webp"):
        assert convert_image(data, settings(format=format)) == convert_image(
            data, settings(format=format)
        )


def test_exif_orientation_turns_the_pixels_and_is_gone_afterwards() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    stored = convert_image(as_bytes(halves(RED, BLUE), "PNG", exif=exif), settings())
    assert pixels(stored.data).getpixel((2, 16)) == BLUE
    with Image.open(io.BytesIO(stored.data)) as image:
        assert not image.getexif()


def test_orientation_six_stands_a_lying_image_up() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate 90 degrees clockwise to view: the left edge becomes the top
    stored = convert_image(as_bytes(halves(RED, BLUE), "PNG", exif=exif), settings())
    assert pixels(stored.data).getpixel((16, 2)) == RED
    assert pixels(stored.data).getpixel((16, 29)) == BLUE


def test_alpha_shows_the_stated_background() -> None:
    data = as_bytes(halves((255, 0, 0, 255), (0, 0, 0, 0), "RGBA"))
    assert pixels(convert_image(data, settings()).data).getpixel((29, 16)) == WHITE
    green = convert_image(data, settings(background="#00ff00")).data
    assert pixels(green).getpixel((29, 16)) == GREEN
    assert pixels(green).getpixel((2, 16)) == RED


def test_alpha_of_palettes_and_grey_is_seen_too() -> None:
    palette = Image.new("P", (40, 40), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    assert (
        pixels(convert_image(as_bytes(palette, transparency=0), settings()).data).getpixel((5, 5))
        == WHITE
    )
    grey = Image.new("LA", (40, 40), (0, 0))
    assert pixels(convert_image(as_bytes(grey), settings()).data).getpixel((5, 5)) == WHITE


def test_cmyk_becomes_rgb() -> None:
    data = as_bytes(Image.new("CMYK", (40, 40), (255, 255, 0, 0)), "JPEG", quality=100)
    assert close(pixels(convert_image(data, settings()).data).getpixel((5, 5)), BLUE, 12)


def test_sixteen_bits_keep_their_brightness() -> None:
    levels = np.full((40, 40), 32896, dtype=np.uint16)  # 128 * 257
    stored = convert_image(as_bytes(Image.fromarray(levels)), settings())
    assert pixels(stored.data).getpixel((5, 5)) == (128, 128, 128)
    levels[:, 20:] = 200  # nearly black, not 200 of 255
    dark = convert_image(as_bytes(Image.fromarray(levels)), settings(fit="pad"))
    assert pixels(dark.data).getpixel((29, 5)) == (1, 1, 1)


def test_a_colour_profile_is_applied() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    plain = convert_image(as_bytes(Image.new("RGB", (40, 40), (90, 120, 60))), settings())
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = convert_image(
        as_bytes(Image.new("RGB", (40, 40), (90, 120, 60)), icc_profile=srgb), settings()
    )
    assert close(pixels(same.data).getpixel((5, 5)), (90, 120, 60), 2)
    for broken in (b"no profile", profile):
        odd = as_bytes(Image.new("RGB", (40, 40), (90, 120, 60)), icc_profile=broken)
        assert pixels(convert_image(odd, settings()).data).size == (32, 32)
    assert pixels(plain.data).getpixel((5, 5)) == (90, 120, 60)


def test_a_linear_profile_brightens_the_middle_greys() -> None:
    linear = linear_profile()
    data = as_bytes(Image.new("RGB", (40, 40), (64, 64, 64)), icc_profile=linear)
    grey = pixels(convert_image(data, settings()).data).getpixel((5, 5))
    assert close(grey, (137, 137, 137), 3)  # 0.251 linear light is 0.537 in sRGB


def linear_profile() -> bytes:
    """sRGB's primaries with gamma 1: the built-in sRGB profile with its curve tags replaced."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack(">I", profile[128:132])
    tags = [struct.unpack(">4sII", profile[132 + 12 * i : 144 + 12 * i]) for i in range(count)]
    for name, start, _ in tags:
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            profile[start : start + 12] = b"curv" + bytes(8)  # no points: the identity
    return bytes(profile)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in (RED, BLUE)]
    for format in ("GIF", "WEBP", "PNG"):
        data = as_bytes(frames[0], format, save_all=True, append_images=frames[1:])
        assert close(pixels(convert_image(data, settings()).data).getpixel((5, 5)), RED)


def test_crop_takes_the_centre_and_pad_keeps_everything() -> None:
    wide = Image.new("RGB", (96, 32), RED)
    wide.paste(Image.new("RGB", (32, 32), BLUE), (32, 0))
    crop = pixels(convert_image(as_bytes(wide), settings(fit="crop")).data)
    assert {crop.getpixel((0, 0)), crop.getpixel((31, 31))} == {BLUE}
    pad = pixels(convert_image(as_bytes(wide), settings(fit="pad", background="#00ff00")).data)
    assert pad.getpixel((16, 1)) == GREEN
    assert close(pad.getpixel((2, 16)), RED)
    assert close(pad.getpixel((16, 16)), BLUE)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<html>not found</html>", "not-an-image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not-an-image"),
        (b"\x89PNG\r\n\x1a\n", "corrupt-image"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "unsupported-format"),
        (b"\xff\x0a" + bytes(40), "unsupported-format"),
        (b"8BPS" + bytes(40), "unsupported-format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported-format"),
        (png_header(30000, 30000), "too-many-pixels"),
        (png_header(9000, 8000), "too-many-pixels"),
        (png_header(4, 4), "too-small"),
        (png_header(100, 100), "corrupt-image"),
        (as_bytes(halves(RED, BLUE))[:-30], "corrupt-image"),
        (as_bytes(Image.new("F", (40, 40), 0.5), "TIFF"), "unsupported-pixels"),
    ],
)
def test_what_cannot_be_stored_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageRejected) as refused:
        convert_image(data, settings(min_side=16))
    assert refused.value.reason == reason


def test_a_bomb_is_refused_by_its_header() -> None:
    """30000x30000 in 76 kB: refused without ever allocating its 2.7 GB."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bomb = png_header(30000, 30000)[:-12] + zlib.compress(bytes(1 << 26))
    with pytest.raises(ImageRejected, match="too-many-pixels"):
        convert_image(bomb, settings())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def raw_pair(image: bytes) -> Pair:
    return Pair("0" * 32, "a thing", image, Origin("raw", "test", "thing"))


def test_ingest_keeps_the_hash_of_the_bytes_as_they_came() -> None:
    data = as_bytes(halves(RED, BLUE), "BMP")
    stored = ingest(raw_pair(data), settings())
    assert stored.kept
    assert stored.origin.source_sha256 == hashlib.sha256(data).hexdigest()
    assert stored.origin.details["source_format"] == "bmp"


def test_a_refused_pair_keeps_its_key_and_loses_its_bytes() -> None:
    dropped = ingest(raw_pair(b"junk"), settings())
    assert (dropped.key, dropped.image) == ("0" * 32, b"")
    assert (dropped.verdict.stage, dropped.verdict.reason) == ("fetch", "not-an-image")
    assert dropped.origin.source_sha256 == hashlib.sha256(b"junk").hexdigest()
    again = ingest(dropped, settings())
    assert again == dropped


def test_threads_agree_and_leave_the_warning_filters_alone() -> None:
    images = [as_bytes(Image.new("RGB", (40, 40), (n, 0, 0))) for n in range(40)] + [b"junk"] * 10
    pairs = [raw_pair(data) for data in images]
    filters = list(warnings.filters)
    with ThreadPoolExecutor(8) as threads:
        ingested = list(threads.map(lambda pair: ingest(pair, settings()), pairs))
    assert ingested == [ingest(pair, settings()) for pair in pairs]
    assert warnings.filters == filters


def test_no_metadata_is_stored() -> None:
    image = Image.new("RGB", (40, 40), RED)
    image.info["comment"] = b"secret"
    for format in ("png", "jpg", "webp"):
        assert b"secret" not in encode(image, format)


def test_a_plain_jpeg_is_stored_as_pillow_would_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its shorter way changes no byte: the pixels are Pillow's, at every reduction."""
    rng = np.random.default_rng(0)
    for size in ((90, 70), (500, 300), (40, 30)):
        noise = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
        for quality in (60, 95):
            data = as_bytes(noise, "JPEG", quality=quality)
            for fit in ("crop", "pad"):
                for format in ("png", "jpg"):
                    chosen = settings(fit=fit, format=format)
                    plain = convert_image(data, chosen)
                    with monkeypatch.context() as patch:
                        patch.setattr(sniff, "plain_jpeg", lambda _: None)
                        assert convert_image(data, chosen) == plain, (size, quality, fit, format)


def test_a_damaged_plain_jpeg_is_refused() -> None:
    data = as_bytes(Image.effect_noise((90, 70), 80).convert("RGB"), "JPEG")
    assert sniff.plain_jpeg(data) == (90, 70)
    with pytest.raises(ImageRejected, match="corrupt-image"):
        convert_image(data[: len(data) // 2], settings())


def test_a_stored_jpeg_is_what_pillow_writes() -> None:
    image = Image.effect_noise((64, 64), 80).convert("RGB")
    assert encode(image, "jpg", 90) == as_bytes(image, "JPEG", quality=90, subsampling=0)


def test_reducing_averages_over_what_a_pixel_covers() -> None:
    """A fine chequerboard becomes grey, not a pattern; a plain colour stays what it is."""
    board = (np.indices((320, 320)).sum(axis=0) % 2 * 255).astype(np.uint8)
    data = as_bytes(Image.fromarray(board).convert("RGB"))
    array = np.asarray(pixels(convert_image(data, settings()).data))
    assert array.min() >= 126
    assert array.max() <= 129
    plain = convert_image(as_bytes(Image.new("RGB", (333, 77), (9, 200, 77))), settings())
    assert {tuple(p) for p in np.asarray(pixels(plain.data)).reshape(-1, 3)} == {(9, 200, 77)}


def test_bytes_can_be_stored_as_they_came() -> None:
    chosen = settings(fit="source", min_side=16)
    for format in ("PNG", "JPEG", "WEBP"):
        data = as_bytes(Image.new("RGB", (90, 50), BLUE), format)
        stored = convert_image(data, chosen)
        assert stored.data == data
        assert (stored.details["source_width"], stored.details["source_height"]) == (90, 50)
    for data, reason in (
        (as_bytes(Image.new("RGB", (40, 40)), "GIF"), "unsupported-format"),
        (as_bytes(Image.new("RGB", (8, 8))), "too-small"),
        (png_header(30000, 30000), "too-many-pixels"),
        (b"<html>", "not-an-image"),
    ):
        with pytest.raises(ImageRejected, match=reason):
            convert_image(data, chosen)
