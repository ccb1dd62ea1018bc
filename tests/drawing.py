"""Two references, two prompts and a recipe for the tests of synthesisers that draw a prompt."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from curate.references import StyleReference
from curate.synthesize import Content, Job, open_synthesizer, plan
from stylear.pair import Pair

SIZE = 32
ROWS = [Content(f"key{i}", caption, f"c{i}") for i, caption in enumerate(["a cat", "an owl"])]


def reference(name: str, seed: int) -> StyleReference:
    """An upright picture of noise, so that a square of it is not all of it."""
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    data = out.getvalue()
    return StyleReference(name, data, hashlib.sha256(data).hexdigest(), Path(name), False)


REFERENCES = [reference("red--1", 1), reference("blue", 2)]
PICTURES = {r.id: Image.open(io.BytesIO(r.image)).convert("RGB") for r in REFERENCES}
SQUARES = {
    name: ImageOps.fit(image, (SIZE, SIZE), Image.Resampling.LANCZOS)
    for name, image in PICTURES.items()
}


def recipe(backend: str, **settings: Any) -> Any:
    """As much of a recipe as planning and synthesis read."""
    return SimpleNamespace(
        seed=0,
        image=SimpleNamespace(size=SIZE, format="png", quality=95),
        mix=SimpleNamespace(val_fraction=0.0),
        synthesize=SimpleNamespace(
            backend=backend,
            contents=None,
            references_per_content=2,
            candidates=2,
            prompts=None,
            settings={"size": SIZE, "device": "cpu", **settings},
        ),
    )


def draw(recipe: Any, count: int | None = None) -> tuple[list[Job], list[Pair]]:
    """The first jobs of a plan and what became of them."""
    jobs = plan(ROWS, REFERENCES, recipe)[:count]
    return jobs, open_synthesizer(recipe, REFERENCES)([(job, b"") for job in jobs])


def pixels_of(pair: Pair) -> np.ndarray:
    assert pair.kept, pair.verdict
    return np.asarray(Image.open(io.BytesIO(pair.image))).astype(int)


def worst(pairs: list[Pair], expected: list[np.ndarray]) -> int:
    """The largest difference of a level between images and pixels in [0, 1]."""
    return max(
        int(np.abs(pixels_of(pair) - np.rint(np.clip(pixels, 0, 1) * 255).astype(int)).max())
        for pair, pixels in zip(pairs, expected, strict=True)
    )
