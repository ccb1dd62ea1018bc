"""Draw the style references of the mini family: scenes that are in no corpus, in each style.

    python -m stylear.mini.references --out stylear/mini/references
    python -m stylear.mini.references --variants 16 --train-only --out mini-build/references

Writes `<style>--<variant>.png` (64 px) and `references.json`: style, variant, scene, held out or not.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from stylear.mini.styles import (
    HELD_OUT_FAMILIES,
    HOUSE_FAMILIES,
    TRAIN_FAMILIES,
    make_style,
    render,
)
from stylear.pair import digest

SIZE, SUPER = 64, 8  # drawn eight times larger, then reduced
Brush = ImageDraw.ImageDraw
SHIPPED_VARIANTS = (0, 1)  # of each family, in the package
HOUSE_VARIANT = 0
EVALUATION_SCENES = (4, 5)  # by name; the corpus of the demo has references of the others


def harbour(d: Brush) -> None:
    """A lighthouse on a rock above waves."""
    d.ellipse((40, 4, 56, 20), fill="#f7c948")
    d.polygon([(18, 60), (24, 18), (34, 18), (40, 60)], fill="#e8e4dc", outline="#333", width=1)
    for top, colour in ((26, "#d64545"), (38, "#d64545"), (50, "#d64545")):
        d.polygon([(22.5 - top / 14, top + 6), (23, top), (35, top), (36, top + 6)], fill=colour)
    d.polygon([(22, 18), (29, 8), (36, 18)], fill="#7b341e")
    d.rectangle((0, 54, 64, 64), fill="#2b6cb0")
    for x in range(0, 64, 12):
        d.arc((x, 50, x + 12, 60), 180, 360, fill="#90cdf4", width=2)


def cottage(d: Brush) -> None:
    """A cottage with a chimney beside a tree."""
    d.rectangle((0, 50, 64, 64), fill="#68a357")
    d.rectangle((36, 10, 42, 26), fill="#8d5b4c")
    d.rectangle((10, 28, 46, 54), fill="#f0d9a8", outline="#5b4636", width=1)
    d.polygon([(5, 30), (28, 10), (51, 30)], fill="#b5483a", outline="#5b2b22", width=1)
    d.rectangle((24, 38, 33, 54), fill="#6b4f3a")
    d.rectangle((14, 34, 21, 41), fill="#9fd3e8", outline="#5b4636", width=1)
    d.rectangle((36, 34, 43, 41), fill="#9fd3e8", outline="#5b4636", width=1)
    d.ellipse((48, 26, 63, 46), fill="#2f7d4f")
    d.rectangle((54, 44, 57, 54), fill="#6b4f3a")


def vase(d: Brush) -> None:
    """A striped vase with three flowers on a table."""
    d.rectangle((0, 54, 64, 64), fill="#a47148")
    for x, y, colour in ((20, 14, "#e05780"), (32, 8, "#f6bd60"), (45, 15, "#7b2cbf")):
        d.line((32, 36, x, y), fill="#3a7d44", width=2)
        for turn in range(6):
            a = turn * np.pi / 3
            d.ellipse(
                (x - 4 + 5 * np.cos(a), y - 4 + 5 * np.sin(a), x + 4 + 5 * np.cos(a), y + 4 + 5 * np.sin(a)),
                fill=colour,
            )  # fmt: skip
        d.ellipse((x - 3, y - 3, x + 3, y + 3), fill="#fff3b0")
    d.polygon([(26, 32), (38, 32), (44, 46), (38, 58), (26, 58), (20, 46)], fill="#3d5a98")
    d.rectangle((21, 44, 43, 48), fill="#f2e9e4")


def mountains(d: Brush) -> None:
    """Two peaks, a lake and a low sun."""
    d.ellipse((8, 8, 22, 22), fill="#ff9f1c")
    d.polygon([(0, 46), (20, 16), (40, 46)], fill="#6d6875")
    d.polygon([(24, 46), (46, 10), (64, 40), (64, 46)], fill="#4a4e69")
    d.polygon([(40, 20), (46, 10), (53, 21), (47, 24)], fill="#f8f9fa")
    d.polygon([(15, 23), (20, 16), (25, 23), (20, 26)], fill="#f8f9fa")
    d.rectangle((0, 46, 64, 64), fill="#48a9a6")
    d.line((8, 52, 30, 52), fill="#d4f1f4", width=1)
    d.line((28, 58, 56, 58), fill="#d4f1f4", width=1)


def blocks(d: Brush) -> None:
    """Toy blocks: a cube, an arch and a ball."""
    d.polygon([(6, 34), (18, 28), (30, 34), (18, 40)], fill="#ffd166", outline="#7a5c00", width=1)
    d.polygon([(6, 34), (18, 40), (18, 56), (6, 50)], fill="#ef476f", outline="#6d1530", width=1)
    d.polygon([(30, 34), (18, 40), (18, 56), (30, 50)], fill="#c9184a", outline="#6d1530", width=1)
    d.pieslice((32, 26, 60, 86), 180, 360, fill="#118ab2", outline="#073b4c", width=1)
    d.pieslice((40, 40, 52, 80), 180, 360, fill="#ffffff")
    d.ellipse((26, 6, 44, 24), fill="#06d6a0", outline="#05674e", width=1)
    d.ellipse((30, 9, 36, 15), fill="#c7f9e5")


def gate(d: Brush) -> None:
    """A garden gate between two pillars, with round bushes."""
    d.rectangle((6, 16, 16, 58), fill="#b08968", outline="#5c4033", width=1)
    d.rectangle((48, 16, 58, 58), fill="#b08968", outline="#5c4033", width=1)
    d.ellipse((5, 6, 17, 18), fill="#dda15e", outline="#5c4033", width=1)
    d.ellipse((47, 6, 59, 18), fill="#dda15e", outline="#5c4033", width=1)
    for x in range(19, 47, 6):
        d.rectangle((x, 22 + abs(x - 31) / 2, x + 2, 58), fill="#1d3557")
    d.rectangle((16, 34, 48, 37), fill="#1d3557")
    d.ellipse((14, 46, 30, 62), fill="#588157")
    d.ellipse((36, 48, 52, 64), fill="#3a5a40")


SCENES: dict[str, Callable[[Brush], None]] = {
    "a lighthouse above waves": harbour,
    "a cottage beside a tree": cottage,
    "a vase with three flowers": vase,
    "two mountains above a lake": mountains,
    "toy blocks": blocks,
    "a garden gate": gate,
}


class Scaled:
    """Draws on a canvas SUPER times larger than its coordinates say."""

    def __init__(self, brush: Brush) -> None:
        self.brush = brush

    def __getattr__(self, name: str) -> Callable[..., None]:
        def draw(points: Any, *angles: float, width: int = 0, **colours: Any) -> None:
            scaled = (np.asarray(points, float) * SUPER).tolist()
            flat = [tuple(p) for p in scaled] if isinstance(scaled[0], list) else scaled
            size = {"width": width * SUPER} if width else {}
            getattr(self.brush, name)(flat, *angles, **colours, **size)

        return draw


def scene(name: str) -> np.ndarray[Any, Any]:
    """The scene on white, (64, 64, 3) uint8."""
    canvas = Image.new("RGB", (SIZE * SUPER, SIZE * SUPER), "white")
    brush: Any = Scaled(ImageDraw.Draw(canvas))
    SCENES[name](brush)
    return np.asarray(canvas.resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def reference(family: str, variant: int, name: str | None = None) -> tuple[bytes, str]:
    """PNG bytes of a reference, and the name of its scene (by default drawn by hash, so scenes mix)."""
    names = sorted(SCENES)
    if name is None:
        name = names[int(digest("scene", family, variant)[:8], 16) % len(names)]
    pixels = render(scene(name), make_style(family, variant), seed=variant)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue(), name


def write(out: Path, families: list[str], variants: range | tuple[int, ...]) -> int:
    """Write references and their list; the number written."""
    jobs = [(f"{f}--{v:02d}", f, v, None) for f in families for v in variants]
    return write_rows(out, jobs)


def write_shipped(out: Path) -> int:
    """Write the embedded references: two variants of each style, and one variant of the held-out styles on
    several scenes (`blueprint--h0` ...), as a house that has a look of its own would have them."""
    jobs: list[tuple[str, str, int, str | None]] = [
        (f"{family}--{variant:02d}", family, variant, None)
        for family in [*TRAIN_FAMILIES, *HELD_OUT_FAMILIES]
        for variant in SHIPPED_VARIANTS
    ]
    for family in HELD_OUT_FAMILIES:
        for number, name in enumerate(sorted(SCENES)):
            if family in HOUSE_FAMILIES or number in EVALUATION_SCENES:
                jobs.append((f"{family}--h{number}", family, HOUSE_VARIANT, name))
    return write_rows(out, jobs)


def write_rows(out: Path, jobs: Sequence[tuple[str, str, int, str | None]]) -> int:
    """Write references (id, family, variant, scene or None) and their list; the number written."""
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for stem, family, variant, wanted in jobs:
        data, name = reference(family, variant, wanted)
        (out / f"{stem}.png").write_bytes(data)
        rows.append(
            {
                "file": f"{stem}.png",
                "style": family,
                "variant": variant,
                "held_out": family in HELD_OUT_FAMILIES,
                "scene": name,
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        )
    (out / "references.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the style references.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", type=int, default=None, help="variants of each style")
    parser.add_argument("--train-only", action="store_true", help="leave held-out styles out")
    options = parser.parse_args()
    if options.variants is None and not options.train_only:
        print(write_shipped(options.out), "references")
        return
    families = [*TRAIN_FAMILIES, *([] if options.train_only else HELD_OUT_FAMILIES)]
    variants = SHIPPED_VARIANTS if options.variants is None else range(options.variants)
    print(write(options.out, families, variants), "references")


if __name__ == "__main__":
    main()
