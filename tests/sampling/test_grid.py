"""The grid puts each picture in its cell and its labels around it."""

from __future__ import annotations

import pytest
from PIL import Image, ImageFont

from stylear.sampling.grid import TEXT_PX, Block, Row, draw_grid, wrap_text


def plain(colour: str) -> Image.Image:
    return Image.new("RGB", (8, 8), colour)


def count(picture: Image.Image, colour: tuple[int, int, int]) -> int:
    colours = picture.getcolors(picture.width * picture.height) or []
    return sum(number for number, pixel in colours if pixel == colour)


def test_every_picture_fills_one_cell() -> None:
    rows = [Row("stone", plain("#ff0000")), Row("wood", plain("#ff0000"))]
    blocks = [
        Block("base", [[plain("#00ff00"), None], [None, plain("#00ff00")]]),
        Block("tuned", [[plain("#0000ff"), plain("#0000ff")], [plain("#0000ff"), None]]),
    ]
    for across in (1, 2):
        grid = draw_grid(
            blocks, rows=rows, columns=["a dog", "a cat"], cell_px=20, blocks_across=across
        )
        heads = 2 if across == 2 else 4
        assert count(grid, (255, 0, 0)) == heads * 400
        assert count(grid, (0, 255, 0)) == 2 * 400
        assert count(grid, (0, 0, 255)) == 3 * 400


def test_cells_that_do_not_match_the_labels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'base': expected 1x2 cells, found \[1\]"):
        draw_grid([Block("base", [[None]])], rows=[Row("x")], columns=["a", "b"])


def test_long_labels_are_cut_to_the_width() -> None:
    font = ImageFont.load_default(TEXT_PX)
    lines = wrap_text(
        "a very long prompt about a Donaudampfschifffahrtsgesellschaft in rain", 60, font
    )
    assert len(lines) == 3
    assert lines[-1].endswith("...")
    assert all(font.getlength(line) <= 60 for line in lines)
    assert wrap_text("a dog", 60, font) == ["a dog"]
