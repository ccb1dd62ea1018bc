"""instantstyle: a tiny SDXL and IP-Adapter in their genuine layout, against plain diffusers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from builders.drawn_jobs import (
    GUIDANCE,
    REFERENCES,
    ROWS,
    SIZE,
    STEPS,
    draw,
    drawn_plainly,
    pixels_of,
    recipe,
)
from builders.tiny_sdxl import write_sdxl

from stylear.curate.synthesize import open_synthesizer
from stylear.curate.synthesize.plan import plan_jobs
from stylear.errors import WeightsError

pytestmark = pytest.mark.filterwarnings(  # diffusers' Euler scheduler turns tensors into arrays
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sdxl(tmp_path_factory.mktemp("sdxl"))


@pytest.mark.cpu
def test_images_equal_those_of_plain_diffusers(folder: Path) -> None:
    from diffusers import StableDiffusionXLPipeline

    jobs, pairs = draw(recipe(folder))
    assert len(pairs) == 8
    plain = StableDiffusionXLPipeline.from_pretrained(folder / "sdxl", add_watermarker=False)
    plain.load_ip_adapter(
        str(folder / "adapter"),
        subfolder="sdxl_models",
        weight_name="ip-adapter_sdxl.safetensors",
    )
    plain.set_ip_adapter_scale({"up": {"block_0": [0.0, 1.0, 0.0]}})
    expected = drawn_plainly(plain, jobs)
    assert [(pixels_of(a) == b).all() for a, b in zip(pairs, expected, strict=True)] == [True] * 8
    assert len({pair.image for pair in pairs}) == 8


def test_only_the_style_block_hears_the_reference(folder: Path) -> None:
    synthesizer: Any = open_synthesizer(recipe(folder), REFERENCES)
    heard = {
        name: processor.scale
        for name, processor in synthesizer.pipeline.unet.attn_processors.items()
        if hasattr(processor, "scale")
    }
    style = [name for name in heard if name.startswith("up_blocks.0.attentions.1.")]
    assert len(style) == 1
    assert [name for name, scale in heard.items() if scale != [0.0]] == style
    layout: Any = open_synthesizer(recipe(folder, layout_scale=0.5), REFERENCES)
    processors = layout.pipeline.unet.attn_processors
    assert processors["down_blocks.2.attentions.1.transformer_blocks.0.attn2.processor"].scale == [
        0.5
    ]


def test_without_guidance_the_reference_still_counts(folder: Path) -> None:
    jobs, pairs = draw(recipe(folder, guidance=1.0), 4)
    assert {job.reference for job in jobs} == {"red", "blue"}
    assert [pair.kept for pair in pairs] == [True] * 4
    _, silent = draw(recipe(folder, guidance=1.0, style_scale=0.0), 4)
    assert all(a.image != b.image for a, b in zip(pairs, silent, strict=True))


def test_metadata_names_everything_that_made_the_image(folder: Path) -> None:
    jobs, pairs = draw(recipe(folder), 1)
    details = pairs[0].origin.details
    adapter = folder / "adapter" / "sdxl_models" / "ip-adapter_sdxl.safetensors"
    assert details["ip_adapter_sha256"] == hashlib.sha256(adapter.read_bytes()).hexdigest()
    assert details["pipeline"] == "StableDiffusionXLPipeline"
    assert details["sampler"] == "EulerDiscreteScheduler"
    assert details["scale"] == '{"up": {"block_0": [0.0, 1.0, 0.0]}}'
    assert (details["steps"], details["guidance"], details["size"]) == (STEPS, GUIDANCE, SIZE)
    assert details["seed"] == jobs[0].seed
    assert pairs[0].origin.reference_sha256 == jobs[0].reference_sha256
    assert pairs[0].origin.parent == jobs[0].parent


def test_image_encoder_may_be_in_the_pipeline_or_anywhere(folder: Path) -> None:
    encoder = folder / "adapter" / "sdxl_models" / "image_encoder"
    adapter = folder / "adapter" / "sdxl_models" / "ip-adapter_sdxl.safetensors"
    _, named = draw(recipe(folder, ip_adapter=str(adapter), image_encoder=str(encoder)), 1)
    _, drawn = draw(recipe(folder), 1)
    assert (pixels_of(named[0]) != pixels_of(drawn[0])).any()  # keys differ, so seeds do
    assert (
        named[0].origin.details["image_encoder_sha256"]
        == (drawn[0].origin.details["image_encoder_sha256"])
    )


def test_nan_becomes_a_dropped_pair(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthesizer: Any = open_synthesizer(recipe(folder), REFERENCES)
    jobs = plan_jobs(ROWS, REFERENCES, recipe(folder))[:1]
    broken = SimpleNamespace(images=np.full((1, SIZE, SIZE, 3), np.nan))
    monkeypatch.setattr(type(synthesizer.pipeline), "__call__", lambda *_, **__: broken)
    pairs = synthesizer([(job, b"") for job in jobs])
    assert (pairs[0].image, pairs[0].verdict.reason) == (b"", "not-finite")


def test_bad_weights_name_what_is_missing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nothing-here"):
        open_synthesizer(recipe(folder, model=str(tmp_path / "nothing-here")), REFERENCES)
    with pytest.raises(WeightsError, match=r"model_index\.json"):
        open_synthesizer(recipe(folder, model=str(tmp_path)), REFERENCES)
    with pytest.raises(WeightsError, match="no IP-Adapter weights"):
        open_synthesizer(recipe(folder, ip_adapter_weight_name="other.bin"), REFERENCES)
    lonely = tmp_path / "adapter.safetensors"
    lonely.write_bytes(b"not tensors")
    with pytest.raises(WeightsError, match="no image_encoder"):
        open_synthesizer(recipe(folder, ip_adapter=str(lonely)), REFERENCES)
    encoder = str(folder / "adapter" / "sdxl_models" / "image_encoder")
    with pytest.raises(WeightsError, match="expected weights"):
        open_synthesizer(recipe(folder, ip_adapter=str(lonely), image_encoder=encoder), REFERENCES)
