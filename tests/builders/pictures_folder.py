"""A folder of small pictures with captions, style images and a recipe over them, for tests."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from stylear.curate.recipe import Recipe, load_recipe
from stylear.pair import Origin, Pair, content_id, digest

SIZE = 32


def picture(seed: int, size: int = 40) -> Image.Image:
    """Blurred coloured squares, another for every seed."""
    rng = np.random.default_rng(seed)
    squares = rng.integers(0, 255, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(squares).resize((size, size), Image.Resampling.BICUBIC)


def encoded(seed: int, size: int = 16, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    picture(seed, size).save(out, kind)
    return out.getvalue()


def raw_pair(number: int, *, image: bool = True, kind: str = "PNG") -> Pair:
    """A raw pair; without an image it is one that a download failed for."""
    pair = Pair(
        key=digest("test", number),
        caption=f"thing number {number}, naïve – 物",
        image=encoded(number, kind=kind) if image else b"",
        origin=Origin(
            kind="raw",
            source=f"folder:{number}.png",
            content=content_id(f"thing number {number}"),
            details={"licence": "CC0", "place": number, "ratio": 0.5, "other": None},
        ),
    )
    return pair if image else pair.drop("fetch", "timeout")


def make_folders(root: Path, pictures: int = 24, styles: int = 6) -> None:
    """`root/photos` with captions.csv, and `root/styles`."""
    for name, count, start in (("photos", pictures, 0), ("styles", styles, 1000)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            picture(start + number).save(root / name / f"{name[0]}{number:03d}.png")
    with (root / "photos" / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        rows.writerows(
            [f"p{number:03d}.png", f"thing number {number}"] for number in range(pictures)
        )


def settings(**changes: Any) -> dict[str, Any]:
    """A recipe over such folders that needs no model, with top-level keys changed."""
    return {
        "name": "tiny",
        "image": {"size": SIZE},
        "raw": [{"type": "folder", "path": "photos"}],
        "references": [{"type": "folder", "path": "styles"}],
        "synthesize": {
            "backend": "statistics",
            "contents": 12,
            "candidates": 2,
            "shard_pairs": 6,
        },
        "score": [{"name": "texture", "type": "texture"}],
        "filter": {"best_of": 1, "duplicates": {"phash_distance": None}},
        "mix": {"val_fraction": 0.25, "shard_pairs": 10, "raw_per_stylized": 1.0},
        **changes,
    }


def write_recipe(
    root: Path, values: dict[str, Any] | None = None, name: str = "recipe.yaml"
) -> Path:
    path = root / name
    path.write_text(yaml.safe_dump(values if values is not None else settings()), "utf-8")
    return path


def make_recipe(root: Path, values: dict[str, Any] | None = None) -> Recipe:
    return load_recipe(write_recipe(root, values))


def tree(folder: Path, left_out: Sequence[str] = (".lock",)) -> dict[str, bytes]:
    """Every file of a folder by its path in it, but the notes about the recipe's folder and the sources.

    `left_out` are names of files and folders.
    """
    unwanted = {*left_out, ".recipe-folder.json", ".source-hashes.json"}
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and unwanted.isdisjoint(path.relative_to(folder).parts)
    }
