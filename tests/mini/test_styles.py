"""The procedural styles and the style references drawn in them."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from stylear.mini import references
from stylear.mini.references import SCENES, SHIPPED_VARIANTS, reference, scene, write
from stylear.mini.styles import FAMILIES, HELD_OUT_FAMILIES, TRAIN_FAMILIES, make_style, render

SHIPPED = Path(references.__file__).parent / "references"
ROWS = json.loads((SHIPPED / "references.json").read_text("utf-8"))
DRAWING = scene("a cottage beside a tree")

Pixels = np.ndarray[Any, Any]


def statistic(picture: Pixels) -> Pixels:
    """Texture and colour of a picture: mean 4x4 DCT amplitudes of each channel, mean and deviation."""
    tiles = picture.astype(np.float64).reshape(16, 4, 16, 4, 3).transpose(0, 2, 4, 1, 3) / 255
    amplitudes = np.abs(dctn(tiles, axes=(3, 4), norm="ortho")).mean((0, 1)).reshape(3, 16)[:, 1:]
    return np.concatenate(
        [np.log(amplitudes + 0.01).ravel(), 4 * picture.mean((0, 1)) / 255, 4 * picture.std((0, 1)) / 255]
    )  # fmt: skip


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_style_draws_the_same_bytes_again(family: str) -> None:
    first = render(DRAWING, make_style(family, 3), seed=7)
    assert first.dtype == np.uint8
    assert first.shape == DRAWING.shape
    np.testing.assert_array_equal(first, render(DRAWING, make_style(family, 3), seed=7))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_style_covers_the_ground_and_keeps_the_drawing(family: str) -> None:
    blank = np.full_like(DRAWING, 255)
    ground = render(blank, make_style(family, 0), seed=0)
    drawn = render(DRAWING, make_style(family, 0), seed=0)
    assert np.abs(ground.astype(int) - 255).mean() > 5  # no style leaves a white ground
    inside = (255 - DRAWING).max(2) > 60
    change = np.abs(drawn.astype(int) - ground).mean(2)
    assert change[inside].mean() > 25  # the drawing shows
    assert change[inside].mean() > 3 * change[:20, :4].mean()  # where it stands, not in a corner


@pytest.mark.parametrize("size", [(128, 128), (256, 256), (64, 96)])
def test_styles_draw_other_sizes(size: tuple[int, int]) -> None:
    large = np.asarray(Image.fromarray(DRAWING).resize(size[::-1], Image.Resampling.LANCZOS))
    shapes = {
        family: render(large, make_style(family, 1), seed=1).shape for family in sorted(FAMILIES)
    }
    assert shapes == dict.fromkeys(sorted(FAMILIES), (*size, 3))


def test_a_variant_has_its_own_palette_and_a_seed_only_moves_strokes() -> None:
    style = make_style("pointillism", 0)
    one, two = (render(DRAWING, style, seed).astype(int) for seed in (0, 1))
    other = render(DRAWING, make_style("pointillism", 5), 0).astype(int)
    assert np.abs(one - two).max() > 0
    assert np.abs(one.mean((0, 1)) - two.mean((0, 1))).max() < 4
    assert np.abs(one.mean((0, 1)) - other.mean((0, 1))).max() > 15


def test_alpha_stands_on_white() -> None:
    alpha = np.where((255 - DRAWING).max(2, keepdims=True) > 0, 255, 0).astype(np.uint8)
    hidden = np.where(alpha > 0, DRAWING, 0)  # black where transparent
    style = make_style("watercolour", 0)
    np.testing.assert_array_equal(
        render(np.concatenate([hidden, alpha], 2), style, 0), render(DRAWING, style, 0)
    )


def test_render_names_what_it_cannot_draw() -> None:
    with pytest.raises(ValueError, match=r"expected \(H, W, 3 or 4\) uint8, found \(64, 64\)"):
        render(DRAWING[..., 0], make_style("mosaic", 0), 0)
    with pytest.raises(ValueError, match=r"found \(64, 64, 3\) float64"):
        render(DRAWING / 255, make_style("mosaic", 0), 0)
    with pytest.raises(ValueError, match="found 'fresco'"):
        make_style("fresco", 0)


def test_styles_are_told_apart_by_texture_and_colour() -> None:
    """A style's picture of one scene is nearest to the same style's picture of another scene."""
    names = sorted(SCENES)
    families = sorted(FAMILIES)
    one, two = (
        np.stack([statistic(render(scene(name), make_style(f, 0), 0)) for f in families])
        for name in (names[0], names[1])
    )
    distance = np.linalg.norm(one[:, None] - two[None], axis=2)
    found = [families[i] for i in distance.argmin(1)]
    wrong = [(f, g) for f, g in zip(families, found, strict=True) if f != g]
    assert len(wrong) <= 2, wrong
    apart = np.linalg.norm(one[:, None] - one[None], axis=2) + 1e9 * np.eye(len(families))
    assert apart.min() > 1.0


def test_held_out_families_are_not_trained_on() -> None:
    assert len(TRAIN_FAMILIES) >= 16
    assert len(HELD_OUT_FAMILIES) >= 4
    assert not set(TRAIN_FAMILIES) & set(HELD_OUT_FAMILIES)
    assert {*TRAIN_FAMILIES, *HELD_OUT_FAMILIES} == set(FAMILIES)


def test_references_on_disk_are_those_listed() -> None:
    listed = {row["file"]: row["sha256"] for row in ROWS}
    there = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in SHIPPED.glob("*.png")}
    assert there == listed
    assert sum(p.stat().st_size for p in SHIPPED.iterdir()) < 400_000
    assert {(row["style"], row["variant"]) for row in ROWS} == {
        (family, variant) for family in FAMILIES for variant in SHIPPED_VARIANTS
    }
    assert {row["style"] for row in ROWS if row["held_out"]} == set(HELD_OUT_FAMILIES)


def test_references_are_drawn_by_the_styles_as_they_are() -> None:
    """Up to rounding: thresholds may fall otherwise on a CPU with other vector units."""
    for row in ROWS:
        data, name = reference(row["style"], row["variant"], row["scene"])
        drawn_by_hash = "--h" not in row["file"]
        assert not drawn_by_hash or name == reference(row["style"], row["variant"])[1]
        now, then = (
            np.asarray(Image.open(io.BytesIO(b)).convert("RGB")).astype(int)
            for b in (data, (SHIPPED / row["file"]).read_bytes())
        )
        assert then.shape == (64, 64, 3)
        assert np.abs(now - then).mean() < 1.0, row["file"]


def test_references_are_written_alike_twice(tmp_path: Path) -> None:
    families = ["mosaic", "neon"]
    assert write(tmp_path / "a", families, range(3)) == 6
    assert write(tmp_path / "b", families, range(3)) == 6
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["mosaic--00.png", "mosaic--01.png", "mosaic--02.png",
                     "neon--00.png", "neon--01.png", "neon--02.png", "references.json"]  # fmt: skip
    assert [(tmp_path / "a" / n).read_bytes() for n in names] == [
        (tmp_path / "b" / n).read_bytes() for n in names
    ]
