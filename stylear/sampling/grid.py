"""Grid: one picture of pictures in labelled rows and columns."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

BACKGROUND, INK, FAINT, EMPTY = "white", "#222222", "#666666", "#eeeeee"
GAP, TEXT_PX, TITLE_PX, MAX_LINES = 4, 11, 15, 3


@dataclass(frozen=True)
class Row:
    """The head of a row: its label, and the picture of its style reference if it has one."""

    label: str
    picture: Image.Image | None = None


@dataclass(frozen=True)
class Block:
    """A titled table of pictures, such as those of one model; None leaves a cell empty."""

    title: str
    cells: Sequence[Sequence[Image.Image | None]]


def draw_grid(
    blocks: Sequence[Block],
    *,
    rows: Sequence[Row],
    columns: Sequence[str],
    cell_px: int = 96,
    blocks_across: int = 1,
) -> Image.Image:
    """Draw blocks of the same rows and columns, `blocks_across` of them side by side, the rest below.

    Row heads are drawn once for each line of blocks. Raises ValueError if a block does not have rows x
    columns cells.
    """
    for block in blocks:
        found = [len(line) for line in block.cells]
        if found != [len(columns)] * len(rows):
            raise ValueError(
                f"{block.title!r}: expected {len(rows)}x{len(columns)} cells, found {found}"
            )
    text, title = ImageFont.load_default(TEXT_PX), ImageFont.load_default(TITLE_PX)
    line_px = TEXT_PX + 3
    heads = [wrap_text(label, cell_px, text) for label in columns]
    names = [wrap_text(row.label, cell_px, text) for row in rows]
    title_px = TITLE_PX + 3 * GAP if any(block.title for block in blocks) else 0
    head_px = max((len(lines) for lines in heads), default=0) * line_px + GAP
    pictured = any(row.picture is not None for row in rows)
    name_px = max((len(lines) for lines in names), default=0) * line_px if pictured else 0
    row_px = cell_px + name_px + GAP
    stub_px = cell_px + 2 * GAP if pictured or any(names) else 0
    block_px = len(columns) * (cell_px + GAP) + 2 * GAP
    across = max(1, min(blocks_across, len(blocks)))
    band_px = title_px + head_px + len(rows) * row_px
    bands = -(-len(blocks) // across)
    canvas = Image.new("RGB", (stub_px + across * block_px, bands * band_px + GAP), BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    for index, block in enumerate(blocks):
        left = stub_px + index % across * block_px
        top = index // across * band_px
        pen.text((left, top + GAP), block.title, INK, title)
        for j, lines in enumerate(heads):
            _write_lines(pen, left + j * (cell_px + GAP), top + title_px, lines, text, line_px)
        for i, row in enumerate(rows):
            y = top + title_px + head_px + i * row_px
            if index % across == 0:
                if row.picture is not None:
                    _paste_cell(canvas, row.picture, GAP, y, cell_px)
                name_y = y + cell_px + 1 if pictured else y + (cell_px - line_px) // 2
                _write_lines(pen, GAP, name_y, names[i], text, line_px, FAINT if pictured else INK)
            for j, picture in enumerate(block.cells[i]):
                _paste_cell(canvas, picture, left + j * (cell_px + GAP), y, cell_px)
    return canvas


def encode_png(picture: Image.Image) -> bytes:
    """The picture as PNG bytes."""
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def _paste_cell(
    canvas: Image.Image, picture: Image.Image | None, x: int, y: int, side: int
) -> None:
    """Paste the picture, scaled to fit a square cell; grey for an empty cell."""
    if picture is None:
        canvas.paste(EMPTY, (x, y, x + side, y + side))
        return
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    fitted = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    canvas.paste(fitted, (x + (side - size[0]) // 2, y + (side - size[1]) // 2))


def _write_lines(
    pen: ImageDraw.ImageDraw,
    x: int,
    y: int,
    lines: Sequence[str],
    font: Any,
    line_px: int,
    ink: str = INK,
) -> None:
    for i, line in enumerate(lines):
        pen.text((x, y + i * line_px), line, ink, font)


def wrap_text(text: str, width: int, font: Any) -> list[str]:
    """The text in at most MAX_LINES lines of `width` pixels; text that does not fit ends in `...`."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    cut = len(lines) > MAX_LINES
    lines = lines[:MAX_LINES]
    for i, line in enumerate(lines):
        end = "..." if cut and i == len(lines) - 1 else ""
        if font.getlength(line + end) > width:
            end = "..."
            while line and font.getlength(line + end) > width:
                line = line[:-1]
        lines[i] = line + end
    return lines
