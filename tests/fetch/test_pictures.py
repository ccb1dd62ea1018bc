"""Claims about pictures as generators, phones and broken downloads leave them."""

from __future__ import annotations

import io
import json
import sys
import zlib
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from stylear.curate.fetch import ingest as ingest_module
from stylear.curate.fetch.embedded import parse_graph, parse_parameters, read_prompt
from stylear.curate.fetch.ingest import ImageRejected, convert_image
from stylear.curate.fetch.png import SIGNATURE, complete_png, read_chunks, strip_text, write_chunk
from stylear.curate.fetch.sniff import sniff_format
from stylear.curate.recipe import ImageSettings

RED, BLUE = (255, 0, 0), (0, 0, 255)


def settings(**changes: Any) -> ImageSettings:
    return ImageSettings(**{"size": 32, "min_side": 1, **changes})


def halves(format: str = "PNG", **options: Any) -> bytes:
    """A 40x40 picture: red above, blue below."""
    image = Image.new("RGB", (40, 40), RED)
    image.paste(Image.new("RGB", (40, 20), BLUE), (0, 20))
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def pixel(data: bytes, x: int, y: int) -> tuple[int, ...]:
    with Image.open(io.BytesIO(data)) as image:
        value = image.convert("RGB").getpixel((x, y))
    assert isinstance(value, tuple)
    return value


def png_with(*chunks: bytes) -> bytes:
    """A PNG with further chunks behind its header."""
    data = halves()
    return data[:33] + b"".join(chunks) + data[33:]


def text_info(**texts: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for keyword, text in texts.items():
        info.add_itxt(keyword, text)
    return info


def test_text_chunks_change_nothing_however_long_or_broken() -> None:
    bomb = write_chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(70_000_000)))
    wrong_sum = write_chunk(b"tEXt", b"a\0b")[:-1] + b"\0"
    plain = convert_image(halves(), settings())
    for data in (
        halves(pnginfo=text_info(workflow="x" * 3_000_000)),
        png_with(bomb),
        png_with(wrong_sum),
        png_with(write_chunk(b"iTXt", b"no zero at all")),
        png_with(*[write_chunk(b"tEXt", b"k\0" + bytes(999_999))] * 70),
    ):
        assert convert_image(data, settings()) == plain
    assert strip_text(halves()) == halves()


A1111 = "a red fox, masterpiece\nin the snow\nNegative prompt: dog\nSteps: 20, Sampler: Euler a"
GRAPH = {
    "3": {"class_type": "KSampler", "inputs": {"positive": ["5", 0], "negative": ["7", 0]}},
    "5": {"class_type": "FluxGuidance", "inputs": {"conditioning": ["6", 0], "guidance": 3.5}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["9", 0], "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly"}},
    "9": {"class_type": "PrimitiveString", "inputs": {"value": "a red fox"}},
}


def test_the_prompt_of_a_generator_is_read_from_its_picture() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + A1111.encode("utf-16-be")
    comfy = Image.Exif()
    comfy[0x0110] = "prompt:" + json.dumps(GRAPH)
    fox = "a red fox, masterpiece in the snow"
    assert read_prompt(halves(pnginfo=text_info(parameters=A1111))) == fox
    assert read_prompt(halves("JPEG", exif=exif)) == fox
    assert read_prompt(halves("WEBP", exif=exif)) == fox
    assert read_prompt(halves(pnginfo=text_info(prompt=json.dumps(GRAPH)))) == "a red fox"
    assert read_prompt(halves("WEBP", exif=comfy)) == "a red fox"
    packed = write_chunk(b"zTXt", b"parameters\0\0" + zlib.compress(A1111.encode()))
    assert read_prompt(png_with(packed)) == fox
    for data in (halves(), halves("JPEG"), b"", b"junk", SIGNATURE + b"\xff" * 40):
        assert read_prompt(data) is None


def test_a_graph_that_leads_nowhere_has_no_prompt() -> None:
    circle = {"1": {"inputs": {"positive": ["2", 0]}}, "2": {"inputs": {"conditioning": ["1", 0]}}}
    for graph in (circle, [], {}, {"1": 7}, {"1": {"inputs": {"positive": [[], 0]}}}):
        assert parse_graph(json.dumps(graph)) is None
    assert parse_graph("[" * 100_000) is None
    alone = {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "alone"}}}
    assert parse_graph(json.dumps(alone)) == "alone"
    assert parse_parameters("Negative prompt: dog") is None


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_without_its_last_bytes_is_kept_on_request(options: dict[str, Any]) -> None:
    data = halves("JPEG", quality=95, **options)
    for missing in (3, 40):
        with pytest.raises(ImageRejected, match="corrupt-image"):
            convert_image(data[:-missing], settings())
        stored = convert_image(data[:-missing], settings(truncated="keep"))
        assert stored.details["truncated"] is True
        assert pixel(stored.data, 2, 2)[0] > 240
    assert "truncated" not in convert_image(data, settings(truncated="keep")).details


def test_a_png_that_ends_early_is_kept_on_request() -> None:
    noisy = Image.effect_noise((40, 40), 90).convert("RGB")
    out = io.BytesIO()
    noisy.save(out, "PNG")
    data = out.getvalue()
    with pytest.raises(ImageRejected, match="corrupt-image"):
        convert_image(data[: len(data) // 2], settings())
    kept = convert_image(data[: len(data) // 2], settings(truncated="keep", fit="pad", size=40))
    assert pixel(kept.data, 3, 3) == noisy.getpixel((3, 3))
    assert pixel(kept.data, 39, 39) == (0, 0, 0)
    for data in (halves()[:40], SIGNATURE, halves()[:33] + write_chunk(b"IDAT", b"junk")):
        assert complete_png(data) is None
        with pytest.raises(ImageRejected, match="corrupt-image"):
            convert_image(data, settings(truncated="keep"))
    assert [chunk.kind for chunk in read_chunks(halves())] == [b"IHDR", b"IDAT", b"IEND"]


def test_interlaced_pngs_are_completed_too() -> None:
    rows = [b"\0" + bytes(3 * columns) for columns, count in passes(9, 5) for _ in range(count)]
    head = write_chunk(b"IHDR", b"\0\0\0\x09\0\0\0\x05\x08\x02\0\0\x01")
    data = SIGNATURE + head + write_chunk(b"IDAT", zlib.compress(b"".join(rows)))
    assert convert_image(data, settings(truncated="keep")).details["source_width"] == 9


def passes(width: int, height: int) -> list[tuple[int, int]]:
    """(columns, rows) of Adam7's passes, counted one by one."""
    starts = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
    passes = [
        (len(range(x, width, dx)), len(range(y, height, dy)))
        for x, y, dx, dy in (*starts, (0, 1, 1, 2))
    ]
    return [(columns, rows) for columns, rows in passes if columns]


def heif(major: bytes, *brands: bytes) -> bytes:
    body = b"ftyp" + major + bytes(4) + b"".join(brands)
    return (len(body) + 4).to_bytes(4, "big") + body + bytes(40)


def test_heic_and_avif_are_distinguished_by_their_brands() -> None:
    assert sniff_format(heif(b"heic", b"mif1")[:32]) == "heic"
    assert sniff_format(heif(b"mif1", b"heic")[:32]) == "heic"
    assert sniff_format(heif(b"avif", b"mif1")[:32]) == "avif"
    assert sniff_format(heif(b"mif1", b"avif")[:32]) == "avif"
    assert sniff_format(heif(b"isom", b"mp42")[:32]) is None


def test_heic_is_read_where_pillow_heif_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    present = SimpleNamespace(register_heif_opener=lambda: None)
    for module, reason in ((None, "unsupported-format"), (present, "corrupt-image")):
        monkeypatch.setitem(sys.modules, "pillow_heif", module)
        ingest_module._register_heif.cache_clear()
        with pytest.raises(ImageRejected) as refused:
            convert_image(heif(b"heic", b"mif1"), settings())
        assert refused.value.reason == reason
    ingest_module._register_heif.cache_clear()
