"""A corpus scored by every scorer that needs a model of its own, with tiny models of each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import ImageDraw

from builders.device import ON_DEVICE
from builders.pictures_folder import make_folders, picture
from builders.scored_corpus import scoring
from builders.tiny_aesthetic import write_head
from builders.tiny_clip import write_tiny_clip
from builders.tiny_csd import write_tiny_csd
from builders.tiny_dino import write_tiny_dino

CLIP = {"model": "clip", "batch_size": 4, **ON_DEVICE}
SCORES: list[dict[str, Any]] = [
    {**CLIP, "name": "csd", "type": "csd", "model": "csd.pth"},
    {**CLIP, "name": "dino", "type": "dino", "model": "dino"},
    {**CLIP, "name": "cas", "type": "cas", "model": "dino"},
    {**CLIP, "name": "nice", "type": "aesthetic", "head": "head.pth"},
    {**CLIP, "name": "leak", "type": "leakage"},
    {**CLIP, "name": "subject", "type": "leakage", "segment": "grabcut"},
    {**CLIP, "name": "near", "type": "nearest"},
]
WITHOUT_SUBJECT = "warm--1"
STYLES = ("warm--1", "warm--2", "cold--1", "cold--2")


def write_scored_corpus(root: Path) -> Path:
    """Sources, the tiny models, and `corpus` scored by all SCORES together; the folder of all."""
    make_folders(root, pictures=16, styles=0)
    for number, name in enumerate(STYLES):
        drawn = picture(1000 + number)
        if name != WITHOUT_SUBJECT:
            ImageDraw.Draw(drawn).ellipse((10, 10, 30, 30), (255 - 60 * number, 20 * number, 10))
        drawn.save(root / "styles" / f"{name}.png")
        (root / "styles" / f"{name}.txt").write_text(f"a {('red', 'blue')[number % 2]} house")
    write_tiny_clip(root / "clip", seed=3)
    write_tiny_csd(root / "csd.pth")
    write_tiny_dino(root / "dino")
    write_head(root / "head.pth")
    scoring(root, root / "corpus", SCORES, before=("fetch", "synthesize"))
    return root
