"""style-aligned, flux-redux and pipeline from a recipe to shards: made again, the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders.device import ON_DEVICE
from builders.pictures_folder import make_folders, make_recipe, settings, tree
from builders.tiny_flux import write_flux
from builders.tiny_sdxl import write_sdxl

from stylear.curate import run as runner
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.recipe import dump_recipe, load_recipe

SIZE = 32
SPECS: dict[str, dict[str, Any]] = {
    "style-aligned": {"model": "models/sdxl", "steps": 2, "inversion_skip": 1},
    "flux-redux": {"model": "models/flux", "redux": "models/redux", "steps": 1},
    "pipeline": {
        "model": "models/flux",
        "pipeline": "FluxImg2ImgPipeline",
        "call": {"prompt": "{prompt}", "image": "{reference}", "num_inference_steps": 2},
    },
}


@pytest.mark.parametrize("backend", sorted(SPECS))
def test_a_recipe_and_its_resolved_form_make_the_same_shards(backend: str, tmp_path: Path) -> None:
    make_folders(tmp_path, pictures=4, styles=2)
    (write_sdxl if backend == "style-aligned" else write_flux)(tmp_path / "models")
    spec = {
        "backend": backend,
        "contents": 2,
        "candidates": 2,
        "shard_pairs": 2,
        "settings": {"size": SIZE, **ON_DEVICE, **SPECS[backend]},
    }
    workers = 2 if backend == "style-aligned" else 1  # it keeps most from one image to the next
    recipe = make_recipe(tmp_path, settings(synthesize=spec))
    path = tmp_path / "resolved.yaml"
    path.write_text(dump_recipe(recipe), "utf-8")
    assert load_recipe(path) == recipe
    runner.run_stages(["fetch", "synthesize"], recipe, tmp_path / "one", workers=1)
    runner.run_stages(["fetch", "synthesize"], load_recipe(path), tmp_path / "two", workers=workers)
    one = tree(tmp_path / "one" / "stylized")
    assert sorted(one) == [f"{i:05d}.{end}" for i in range(2) for end in ("parquet", "tar")]
    assert tree(tmp_path / "two" / "stylized") == one
    pairs = list(iter_pairs(tmp_path / "one" / "stylized"))
    assert [pair.kept for pair in pairs] == [True] * 4
    assert {pair.origin.source for pair in pairs} == {f"synthesizer:{backend}"}
