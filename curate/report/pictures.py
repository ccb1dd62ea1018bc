"""Pictures on a page: thumbnails stored at the size at which they are shown, each with a caption below."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image, ImageOps

from stylear.curate.report.page import render_untrusted, shorten_text

THUMBNAIL_PX = 160  # the longer side on the page (our choice)
QUALITY = 75  # of WebP (our choice)
METHOD = 2  # of 0 to 6 (our choice): 4 takes twice the time for 4% fewer bytes
LOSSLESS_EFFORT = 20  # of 100 (our choice): a ninth of the time of 75, a tenth more bytes
MAX_PIXELS = 64_000_000
FORMATS = ("PNG", "JPEG", "WEBP")


def render_thumbnail(data: bytes, alt: str) -> str:
    """An `<img>` of an encoded image; a labelled gap if the bytes are missing or no image."""
    picture = decode_image(data)
    if picture is None:
        words = "unreadable image" if data else "no image"
        return f'<div class="gap" role="img" aria-label="{escape(shorten_text(alt))}">{words}</div>'
    return render_picture(picture, alt)


def decode_image(data: bytes) -> Image.Image | None:
    """The image, upright and in RGB; None if the bytes are not an image or it is too large."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
            image.draft("RGB", (2 * THUMBNAIL_PX, 2 * THUMBNAIL_PX))
            upright = ImageOps.exif_transpose(image)
            return upright.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def render_picture(picture: Image.Image, alt: str) -> str:
    """An `<img>` of a picture, its longer side THUMBNAIL_PX.

    A larger picture is stored at that size. A smaller one is stored as it is and enlarged by the browser, a
    tiny one in whole steps, so that its pixels stay square.
    """
    step, width, height = thumbnail_size(picture)
    name = ' class="enlarged"' if step > 1 else ""
    return (
        f'<img{name} alt="{escape(shorten_text(alt))}" width="{width}" height="{height}"'
        f' src="data:image/webp;base64,{encode_thumbnail(picture)}">'
    )


def thumbnail_size(picture: Image.Image) -> tuple[int, int, int]:
    """How many times a tiny picture is enlarged, and the width and height on the page."""
    side = max(picture.size)
    step = THUMBNAIL_PX // side
    scale = step if step > 1 else THUMBNAIL_PX / side
    width, height = (max(1, round(scale * length)) for length in picture.size)
    return step, width, height


def encode_thumbnail(picture: Image.Image) -> str:
    """The stored picture as WebP in base64, without any metadata of the file it came from."""
    step, width, height = thumbnail_size(picture)
    if width < picture.width or height < picture.height:
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.convert("RGB").save(
        stream,
        "WEBP",
        lossless=step > 1,
        quality=LOSSLESS_EFFORT if step > 1 else QUALITY,
        method=METHOD,
        exif=b"",
    )
    return base64.b64encode(stream.getvalue()).decode()


def render_sample(
    image: str, verdict: str, name: str, caption: str, details: Sequence[str] = ()
) -> str:
    """A picture with its verdict, its caption and details below; `name` is kept, dropped or reference."""
    lines = [f'<strong class="{name}">{escape(shorten_text(verdict))}</strong>']
    lines += [render_untrusted(caption)] if caption else []
    lines += [f"<small>{escape(shorten_text(line))}</small>" for line in details if line]
    return (
        f'<figure class="sample {name}">{image}<figcaption>{"".join(lines)}</figcaption></figure>'
    )
