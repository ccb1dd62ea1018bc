"""Thumbnails: stored at the size shown, upright, without the metadata of the file they came from."""

from __future__ import annotations

import base64
import io
import re

import pytest
from PIL import Image

from stylear.curate.report.pictures import render_picture, render_thumbnail


def encode(picture: Image.Image, format_: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, format_, **options)
    return out.getvalue()


def stored(html: str) -> Image.Image:
    """The picture that an <img> holds."""
    match = re.search(r'src="data:image/webp;base64,(.*?)"', html)
    assert match is not None
    return Image.open(io.BytesIO(base64.b64decode(match[1])))


def shown(html: str) -> tuple[int, int]:
    """The size at which the page shows an <img>."""
    width, height = (re.findall(rf'{name}="(\d+)"', html)[0] for name in ("width", "height"))
    return int(width), int(height)


@pytest.mark.parametrize("format_", ["JPEG", "WEBP", "PNG"])
def test_a_large_picture_is_stored_at_the_size_shown(format_: str) -> None:
    html = render_thumbnail(encode(Image.new("RGB", (640, 320), "red"), format_), "a")
    assert shown(html) == (160, 80)
    assert stored(html).size == (160, 80)
    low, high = zip(*stored(html).convert("RGB").getextrema(), strict=True)
    assert low[0] > 240
    assert max(high[1:]) < 15


def test_a_tiny_picture_keeps_its_pixels_and_is_enlarged_in_whole_steps() -> None:
    picture = Image.effect_noise((64, 32), 80).convert("RGB")
    html = render_thumbnail(encode(picture, "PNG"), "a")
    assert 'class="enlarged"' in html
    assert shown(html) == (128, 64)
    assert stored(html).convert("RGB").tobytes() == picture.tobytes()


def test_a_picture_a_little_smaller_than_a_thumbnail_is_shown_as_large_as_the_others() -> None:
    html = render_picture(Image.new("RGB", (128, 128)), "a")
    assert shown(html) == (160, 160)
    assert stored(html).size == (128, 128)


def test_a_photo_is_turned_upright_and_its_metadata_stays_behind() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    exif[0x010F] = "a camera"
    photo = encode(Image.new("RGB", (320, 200)), "JPEG", exif=exif)
    assert b"a camera" in photo
    html = render_thumbnail(photo, "a")
    assert shown(html) == (100, 160)
    assert dict(stored(html).getexif()) == {}


def test_bytes_that_are_no_picture_are_a_gap_that_says_so() -> None:
    assert render_thumbnail(b"", "<x>") == (
        '<div class="gap" role="img" aria-label="&lt;x&gt;">no image</div>'
    )
    for data in (b"not a picture", encode(Image.new("RGB", (8, 8)), "PNG")[:40]):
        assert ">unreadable image</div>" in render_thumbnail(data, "x")


def test_a_picture_of_too_many_pixels_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    from stylear.curate.report import pictures

    monkeypatch.setattr(pictures, "MAX_PIXELS", 99)
    assert "unreadable image" in render_thumbnail(encode(Image.new("RGB", (10, 10)), "PNG"), "x")
