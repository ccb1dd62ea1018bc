"""style-aligned on a tiny random SDXL: against plain diffusers, and image by image."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.drawn_jobs import PICTURES, REFERENCES, SIZE, bare_recipe, draw, jobs_of, worst
from builders.tiny_sdxl import write_lora, write_sdxl
from diffusers import StableDiffusionXLPipeline
from PIL import Image

from stylear.curate.recipe.synthesizers import parse_backend_settings
from stylear.curate.synthesize import open_synthesizer
from stylear.curate.synthesize.diffusers.inversion import (
    encode_image,
    invert_latents,
    make_ddim_scheduler,
)
from stylear.curate.synthesize.diffusers.shared_attention import SharedAttention, share_attention
from stylear.errors import RecipeError, WeightsError

STEPS, GUIDANCE = 3, 4.0

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sdxl(tmp_path_factory.mktemp("sdxl"))


def spec(folder: Path, **settings: Any) -> Any:
    values = {"steps": STEPS, "guidance": GUIDANCE, "inversion_skip": 0, **settings}
    return bare_recipe("style-aligned", model=str(folder / "sdxl"), **values)


def plain(folder: Path) -> Any:
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder / "sdxl", add_watermarker=False)
    pipeline.scheduler = make_ddim_scheduler(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize(
    ("guidance", "negative"), [(GUIDANCE, ""), (GUIDANCE, "blurry"), (1.0, "")]
)
@pytest.mark.cpu
def test_without_sharing_an_image_is_that_of_plain_diffusers(
    folder: Path, guidance: float, negative: str
) -> None:
    jobs, pairs = draw(spec(folder, shared_layers=0.0, guidance=guidance, negative_prompt=negative))
    pipeline = plain(folder)
    expected = [
        pipeline(
            job.prompt,
            negative_prompt=negative or None,
            generator=torch.Generator("cpu").manual_seed(job.seed),
            num_inference_steps=STEPS,
            guidance_scale=guidance,
            height=SIZE,
            width=SIZE,
            output_type="np",
        ).images[0]
        for job in jobs
    ]
    assert len(pairs) == 8
    assert worst(pairs, expected) == 0
    assert len({pair.image for pair in pairs}) == 8


def by_hand(folder: Path, jobs: list[Any], **share_options: Any) -> list[np.ndarray]:
    """Each image drawn beside its reference, written out with diffusers' own call."""
    pipeline = plain(folder)
    share_attention(pipeline.unet, 2, **share_options)
    trails = {}
    for name, image in PICTURES.items():
        square = image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        latents = encode_image(pipeline, np.asarray(square, np.float32) / np.float32(255))
        trails[name] = invert_latents(
            pipeline,
            latents,
            steps=STEPS,
            prompt=f"{name} drawing",
            guidance_scale=2.0,
            height=SIZE,
            width=SIZE,
        )
    images = []
    for job in jobs:
        trail = trails[job.reference]
        noise = torch.randn(
            1, 4, SIZE // 2, SIZE // 2, generator=torch.Generator("cpu").manual_seed(job.seed)
        )

        def replay(
            _: Any, step: int, time: Any, values: dict[str, Any], trail: Any = trail
        ) -> dict[str, Any]:
            values["latents"][0] = trail[step + 1]
            return values

        both = pipeline(
            [f"{job.reference} drawing", job.prompt],
            latents=torch.cat([trail[:1], noise]),
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            height=SIZE,
            width=SIZE,
            callback_on_step_end=replay,
            output_type="np",
        ).images
        images.append(both[1])
    return images


@pytest.mark.parametrize(
    "options", [{}, {"shift": 0.0, "key_scale": 0.5, "group_norm": False, "layers": 0.5}]
)
def test_an_image_is_drawn_beside_its_reference(folder: Path, options: dict[str, Any]) -> None:
    names = {
        "shift": "reference_shift",
        "key_scale": "reference_scale",
        "group_norm": "share_group_norm",
        "layers": "shared_layers",
    }
    settings = {names[name]: value for name, value in options.items()}
    jobs, pairs = draw(spec(folder, reference_prompt="{style} drawing", **settings))
    assert {job.reference for job in jobs} == {"red", "blue"}
    expected = by_hand(folder, list(jobs), **{"shift": 0.6931, "group_norm": True, **options})
    assert worst(pairs, expected) <= 1


@pytest.mark.cpu
def test_batch_size_order_and_neighbours_change_no_image_on_a_cpu(folder: Path) -> None:
    jobs = jobs_of(spec(folder))
    drawn = {}
    for size in (1, 4):
        synthesizer = open_synthesizer(spec(folder, batch_size=size), REFERENCES)
        for order in (jobs, jobs[::-1], jobs[3:4]):
            for pair in synthesizer([(job, b"") for job in order]):
                drawn.setdefault(pair.key, set()).add(pair.image)
    assert len(drawn) == 8
    assert {len(images) for images in drawn.values()} == {1}


def test_images_of_one_batch_are_those_drawn_alone(folder: Path) -> None:
    synthesizer: Any = open_synthesizer(spec(folder), REFERENCES)
    jobs = [j for j in jobs_of(spec(folder)) if j.reference == "blue"]
    assert len(jobs) == 4
    with torch.inference_mode():
        together = synthesizer.draw(jobs)
        alone = [synthesizer.draw([job])[0] for job in jobs]
    for a, b in zip(together, alone, strict=True):
        assert np.abs(a.pixels - b.pixels).max() < 1e-4


def test_how_the_reference_conditions_an_image_decides_it(folder: Path) -> None:
    [job] = jobs_of(spec(folder))[:1]
    other = replace(job, reference="blue" if job.reference == "red" else "red")
    assert other.seed == job.seed  # the same noise beside another reference
    changes: list[dict[str, Any]] = [
        {},
        {"inversion_skip": 1},
        {"shared_layers": 0.0},
        {"reference_shift": 0.0},
        {"reference_prompt": "a drawing"},
    ]
    images = []
    for settings in changes:
        synthesizer: Any = open_synthesizer(spec(folder, **settings), REFERENCES)
        with torch.inference_mode():
            images += [synthesizer.draw([one])[0].pixels for one in (job, other)]
    assert len({image.tobytes() for image in images}) == 2 * len(changes) - 1  # 0 layers: no matter


def test_a_reference_is_inverted_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stylear.curate.synthesize.backends import style_aligned

    calls = []

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(options["steps"])
        return invert_latents(*args, **options)

    monkeypatch.setattr(style_aligned, "invert_latents", counted)
    draw(spec(folder))
    assert calls == [STEPS, STEPS]  # two references, eight images


def test_metadata_records_how_the_reference_was_read(folder: Path) -> None:
    jobs, pairs = draw(spec(folder, reference_prompt="{style}", shared_layers=0.5), 8)
    synthesizer: Any = open_synthesizer(spec(folder, shared_layers=0.5), REFERENCES)
    processors = synthesizer.pipeline.unet.attn_processors.values()
    count = sum(isinstance(processor, SharedAttention) for processor in processors)
    assert count > 0
    for job, pair in zip(jobs, pairs, strict=True):
        details = pair.origin.details
        assert details["pipeline"] == "StableDiffusionXLPipeline"
        assert details["sampler"] == "DDIMScheduler"
        assert json.loads(str(details["sampler_options"]))["clip_sample"] is False
        assert details["shared_attention_layers"] == count
        assert details["reference_prompt"] == job.reference
        assert details["prompt_tokens"] == 6  # start, "a" and "cat" by letters, end; "an" is one
        assert details["seed"] == job.seed
        assert details["model_sha256"] == synthesizer.details["model_sha256"]
        assert (details["reference_shift"], details["inversion_guidance"]) == (0.6931, 2.0)


def test_a_lora_is_fused_into_a_unet_whose_norms_are_shared(folder: Path, tmp_path: Path) -> None:
    lora = write_lora(tmp_path / "lora.safetensors", plain(folder).unet, kind="kohya")
    states = []
    for layers in (1.0, 0.0):
        fused: Any = open_synthesizer(
            spec(folder, lora=str(lora), shared_layers=layers), REFERENCES
        )
        state = fused.pipeline.unet.state_dict()
        states.append([value for name, value in state.items() if ".attn1." in name])
    assert len(states[0]) == len(states[1]) > 0
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    [job] = jobs_of(spec(folder))[:1]
    images = []
    for settings in ({}, {"lora": str(lora)}):
        opened: Any = open_synthesizer(spec(folder, **settings), REFERENCES)
        with torch.inference_mode():
            images.append(opened.draw([job])[0].pixels)
    assert np.abs(images[0] - images[1]).max() > 0.01


@pytest.mark.filterwarnings("ignore:.*upcast_vae:FutureWarning")  # diffusers' own, in float16
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_drawn_with_on_request(folder: Path, dtype: str) -> None:
    opened: Any = open_synthesizer(spec(folder, dtype=dtype), REFERENCES)
    whole: Any = open_synthesizer(spec(folder), REFERENCES)
    [job] = jobs_of(spec(folder))[:1]
    with torch.inference_mode():
        found, expected = (each.draw([job])[0].pixels for each in (opened, whole))
    assert opened.pipeline.unet.dtype == opened.pipeline.vae.dtype == getattr(torch, dtype)
    assert np.abs(found - expected).mean() < 0.05


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "LCMScheduler"}, "style-aligned samples with DDIM"),
        ({"sampler_options": {"eta": 1}}, "style-aligned samples with DDIM"),
        ({"inversion_skip": 50}, r"inversion_skip: expected less than steps \(50\)"),
        ({"reference_prompt": "{style.__class__}"}, r"the only placeholder is \{style\}"),
        ({"shared_layers": 2}, r"settings\.shared_layers"),
        ({"ip_adapter": "x"}, r"settings\.ip_adapter"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    assert parse_backend_settings("style-aligned", {"model": "x"}).model_dump()["steps"] == 50
    with pytest.raises(RecipeError, match=message):
        parse_backend_settings("style-aligned", {"model": "x", **changes})


def test_a_missing_model_is_named(folder: Path) -> None:
    with pytest.raises(WeightsError, match="nowhere"):
        open_synthesizer(bare_recipe("style-aligned", model=str(folder / "nowhere")), REFERENCES)
