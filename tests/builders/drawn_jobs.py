"""Jobs for the synthesisers that draw prompts, and what they make of them."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from builders.device import ON_DEVICE
from stylear.curate.recipe.synthesis import SynthesizeSettings
from stylear.curate.references import StyleReference
from stylear.curate.synthesize import Job, open_synthesizer
from stylear.curate.synthesize.plan import plan_jobs
from stylear.curate.synthesize.prompts.sources import Content
from stylear.pair import Pair

SIZE, STEPS, GUIDANCE = 32, 2, 5.0


def reference(name: str, seed: int) -> StyleReference:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    data = out.getvalue()
    return StyleReference(name, data, hashlib.sha256(data).hexdigest(), Path(name), False)


REFERENCES = [reference("red", 1), reference("blue", 2)]
PICTURES = {r.id: Image.open(io.BytesIO(r.image)).convert("RGB") for r in REFERENCES}
ROWS = [Content(f"key{i}", caption, f"c{i}") for i, caption in enumerate(["a cat", "an owl"])]


def recipe(folder: Path, backend: str = "instantstyle", **settings: Any) -> Any:
    """A recipe of SDXL with an adapter."""
    values = {
        "model": str(folder / "sdxl"),
        "ip_adapter": str(folder / "adapter"),
        "steps": STEPS,
        "batch_size": 4,
        "negative_prompt": "blurry",
        **settings,
    }
    return bare_recipe(backend, **values)


def bare_recipe(backend: str, **settings: Any) -> Any:
    """What a synthesiser reads of a recipe; 2 contents x 2 references x 2 candidates."""
    return SimpleNamespace(
        seed=0,
        image=SimpleNamespace(size=SIZE, format="png", quality=95),
        mix=SimpleNamespace(val_fraction=0.0),
        synthesize=SynthesizeSettings(
            backend=backend,
            references_per_content=2,
            candidates=2,
            settings={"size": SIZE, **ON_DEVICE, **settings},
        ),
    )


def jobs_of(recipe: Any, rows: list[Content] | None = None) -> list[Job]:
    return list(plan_jobs(rows or ROWS, REFERENCES, recipe))


def draw(recipe: Any, count: int | None = None) -> tuple[list[Job], list[Pair]]:
    jobs = jobs_of(recipe)[:count]
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


def drawn_plainly(pipeline: Any, jobs: list[Job], **options: Any) -> list[np.ndarray]:
    """The images of jobs as a user of diffusers would draw them, one call each."""
    import torch

    pipeline.set_progress_bar_config(disable=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    options = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, **options}
    drawn = [
        pipeline(
            prompt=job.prompt,
            negative_prompt="blurry",
            ip_adapter_image=PICTURES[job.reference],
            generator=torch.Generator("cpu").manual_seed(job.seed),
            height=SIZE,
            width=SIZE,
            **options,
        ).images[0]
        for job in jobs
    ]
    torch.set_num_threads(threads)
    return [np.asarray(image).astype(int) for image in drawn]
