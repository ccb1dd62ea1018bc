"""The texture score and the perceptual hash."""

from __future__ import annotations

import io

import numpy as np
import pytest
from builders.pictures_folder import encoded
from builders.scored_pairs import PHASH, REFERENCES, STYLIZED, TEXTURE, pair, scored
from PIL import Image

from stylear.curate.score.phash import compute_phash, quarter_colours
from stylear.encoders.texture import texture_similarity


def test_the_texture_of_a_reference_with_itself_is_one() -> None:
    pairs = [pair(r.id, r.image, r.id) for r in REFERENCES]
    assert scored(TEXTURE, pairs)["stroke"].to_pylist() == [1.0, 1.0]


def test_the_texture_score_is_the_similarity_with_its_own_reference() -> None:
    images = {r.id: r.image for r in REFERENCES}
    expected = [
        float(texture_similarity(p.image, images[str(p.origin.reference)])) for p in STYLIZED
    ]
    scores = scored(TEXTURE, STYLIZED)["stroke"].to_pylist()
    assert scores == pytest.approx(expected, abs=6e-6)
    assert all(0 < value < 0.99 for value in scores)


def test_the_perceptual_hash_is_the_sign_of_the_lowest_dct_coefficients() -> None:
    from scipy.fft import dctn

    pixels = np.asarray(Image.open(io.BytesIO(encoded(4, 32))).convert("RGB"))
    grey = np.rint(pixels @ np.array([0.299, 0.587, 0.114]))
    low = dctn(grey, norm="ortho")[:8, :8]
    bits = (low > np.median(low.ravel()[1:])).ravel()
    expected = "".join("1" if bit else "0" for bit in bits)
    found = f"{int(compute_phash(pixels), 16):064b}"
    assert (
        sum(a != b for a, b in zip(found, expected, strict=True)) <= 1
    )  # grey is rounded otherwise
    assert 20 < expected.count("1") < 44


def distance(one: Image.Image, other: Image.Image) -> int:
    a, b = (int(compute_phash(np.asarray(image)), 16) for image in (one, other))
    return (a ^ b).bit_count()


def test_a_copy_is_near_and_another_picture_is_far() -> None:
    first = Image.open(io.BytesIO(encoded(4, 96))).convert("RGB")
    out = io.BytesIO()
    first.resize((64, 64), Image.Resampling.LANCZOS).save(out, "JPEG", quality=60)
    copy = Image.open(io.BytesIO(out.getvalue())).convert("RGB")
    other = Image.open(io.BytesIO(encoded(5, 96))).convert("RGB")
    assert distance(first, first) == 0
    assert distance(first, copy) <= 4
    assert distance(first, other) > 16


def test_colours_are_the_mean_of_the_four_quarters() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:2, :2] = (255, 0, 0)
    pixels[:2, 2:] = (0, 255, 0)
    pixels[2:, :2, 2] = [[0, 100], [100, 200]]
    assert quarter_colours(pixels) == "ff000000ff00000064000000"


def test_hashes_do_not_depend_on_how_the_pixels_are_encoded() -> None:
    image = Image.open(io.BytesIO(encoded(4, 32))).convert("RGB")
    out = io.BytesIO()
    image.save(out, "WEBP", lossless=True)
    table = scored(PHASH, [pair("png", encoded(4, 32)), pair("webp", out.getvalue())])
    for column in ("phash", "colour"):
        first, second = table[column].to_pylist()
        assert first == second
        assert len(first) == {"phash": 16, "colour": 24}[column]
