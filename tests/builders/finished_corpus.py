"""A small finished corpus with styles, drops, both splits and preference pairs, for tests.

The texture ranks the candidates on both sides, so that no model is loaded.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from builders.pictures_folder import make_recipe, picture
from stylear.curate import run as runner
from stylear.curate.corpus.layout import STAGES
from stylear.curate.recipe import Recipe

CAPTIONS = [f"thing number {number}" for number in range(16)]
STYLES = ["warm--1", "warm--2", "cold--1", "cold--2", "plain"]


def finished_settings(**changes: Any) -> dict[str, Any]:
    """The recipe, with top-level keys changed."""
    return {
        "name": "small",
        "image": {"size": 24},
        "raw": [{"type": "folder", "path": "photos"}],
        "references": [{"type": "folder", "path": "styles"}],
        "synthesize": {
            "backend": "statistics",
            "contents": 12,
            "candidates": 2,
            "shard_pairs": 8,
        },
        "score": [{"name": "texture", "type": "texture"}],
        "filter": {
            "text_score": "texture",
            "style_score": "texture",
            "duplicates": {"phash_distance": None},
        },
        "mix": {"val_fraction": 0.3, "shard_pairs": 8, "raw_per_stylized": 1.0},
        "pairs": {"margin": 0.0},
        **changes,
    }


def make_sources(root: Path, captions: list[str] | None = None) -> None:
    """`root/photos` with captions, one of them no picture, and `root/styles`."""
    (root / "photos").mkdir(parents=True)
    (root / "styles").mkdir()
    with (root / "photos" / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        for number, caption in enumerate([*(captions or CAPTIONS), "no picture at all"]):
            rows.writerow([f"p{number:03d}.png", caption])
            picture(number).save(root / "photos" / f"p{number:03d}.png")
    (root / "photos" / f"p{number:03d}.png").write_bytes(b"not a picture")
    for number, name in enumerate(STYLES):
        picture(1000 + number).save(root / "styles" / f"{name}.png")


def finish(root: Path, captions: list[str] | None = None, **changes: Any) -> Path:
    """Make sources and run every stage over them; the corpus."""
    make_sources(root, captions)
    recipe: Recipe = make_recipe(root, finished_settings(**changes))
    runner.run_stages(STAGES, recipe, root / "corpus", workers=1)
    return root / "corpus"
