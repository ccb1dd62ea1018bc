"""Weights of diffusers synthesisers: LoRAs, checkpoints, variants; what does not fit is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.diffusion_jobs import draw_jobs
from builders.drawn_jobs import (
    REFERENCES,
    draw,
    drawn_plainly,
    jobs_of,
    pixels_of,
    recipe,
)
from builders.tiny_sdxl import write_lora
from safetensors.torch import load_file, save_file

from stylear.curate.references import StyleReference
from stylear.curate.synthesize import open_synthesizer
from stylear.curate.synthesize.diffusers.load import list_files
from stylear.errors import RecipeError, SourceError, WeightsError

pytestmark = pytest.mark.filterwarnings(  # diffusers' Euler scheduler turns tensors into arrays
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


PARTS = ("unet", "vae")


@pytest.mark.parametrize("kind", ["peft", "diffusers", "kohya"])
def test_a_few_step_lora_is_fused_as_diffusers_does(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    from diffusers import LCMScheduler, StableDiffusionXLPipeline

    plain = StableDiffusionXLPipeline.from_pretrained(folder / "sdxl", add_watermarker=False)
    plain.load_ip_adapter(
        str(folder / "adapter"), subfolder="sdxl_models", weight_name="ip-adapter_sdxl.bin"
    )
    plain.set_ip_adapter_scale({"up": {"block_0": [0.0, 1.0, 0.0]}})
    lora = write_lora(tmp_path / "lcm.safetensors", plain.unet, kind=kind)
    spec = recipe(
        folder, lora=str(lora), lora_scale=0.5, sampler="LCMScheduler", guidance=1.0, steps=3
    )
    jobs, pairs = draw(spec, 3)
    assert pairs[0].origin.details["lora_sha256"] == hashlib.sha256(lora.read_bytes()).hexdigest()
    assert pairs[0].origin.details["lora"] == "lcm.safetensors"
    plain.load_lora_weights(load_file(lora))
    plain.fuse_lora(lora_scale=0.5)
    plain.unload_lora_weights()
    plain.scheduler = LCMScheduler.from_config(plain.scheduler.config)
    expected = drawn_plainly(plain, jobs, num_inference_steps=3, guidance_scale=1.0)
    assert [(pixels_of(a) == b).all() for a, b in zip(pairs, expected, strict=True)] == [True] * 3
    _, without = draw(recipe(folder, sampler="LCMScheduler", guidance=1.0, steps=3), 3)
    assert all(a.image != b.image for a, b in zip(pairs, without, strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "Pipeline"}, "sampler: expected a scheduler of diffusers, found 'Pipeline'"),
        ({"sampler": "DiffusionPipeline"}, "sampler: expected a scheduler of diffusers"),
        ({"sampler_options": {"spacing": "x"}}, "sampler_options.spacing: EulerDiscreteScheduler"),
        ({"device": "warp"}, "device: expected a torch device, found 'warp'"),
        ({"device": "cuda:1"}, "device: string should match pattern"),
    ],
)
def test_impossible_settings_are_refused_by_name(
    folder: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        open_synthesizer(recipe(folder, **settings), REFERENCES)
    assert f"synthesize.settings.{message}" in caught.value.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: {**t, "unet.up.weight": torch.zeros(2)},
            "unet.up.weight: expected a layer of that name, found 2",
        ),
        (
            lambda t: {**t, **{f"prior.to_q.lora_{x}.weight": torch.zeros(2, 2) for x in "AB"}},
            "expected 45 LoRA layers to match the pipeline, found 44",
        ),
        (lambda t: {"weight": torch.zeros(2)}, "cannot be loaded: Invalid LoRA checkpoint"),
        (lambda t: {f"{k.replace('to_q', 'to_z')}": v for k, v in t.items()}, "to_z.lora_A.weight"),
        (
            lambda t: {k: v[:, :3].contiguous() for k, v in t.items()},
            "expected 16 on axis 1, found 2x3",
        ),
        (lambda t: {}, "expected tensors of a LoRA, found none"),
    ],
)
def test_a_lora_of_another_model_is_refused_by_key(
    folder: Path, tmp_path: Path, synthesizer: Any, change: Any, message: str
) -> None:
    tensors = load_file(write_lora(tmp_path / "lora.safetensors", synthesizer.pipeline.unet))
    save_file(change(tensors), tmp_path / "lora.safetensors")
    with pytest.raises(WeightsError) as caught:
        open_synthesizer(recipe(folder, lora=str(tmp_path / "lora.safetensors")), REFERENCES)
    assert message in caught.value.message


def changed_pipeline(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder / "sdxl", tmp_path / "sdxl"))


@pytest.mark.parametrize(
    ("part", "file", "key"),
    [
        ("unet", "diffusion_pytorch_model", "conv_in.weight"),
        ("vae", "diffusion_pytorch_model", "decoder.conv_in.weight"),
        ("text_encoder", "model", "text_model.final_layer_norm.weight"),
    ],
)
@pytest.mark.parametrize("shape", [None, (3, 3)])
def test_a_checkpoint_with_wrong_keys_or_shapes_is_refused(
    folder: Path, tmp_path: Path, part: str, file: str, key: str, shape: Any
) -> None:
    model = changed_pipeline(folder, tmp_path)
    weights = model / part / f"{file}.safetensors"
    tensors = load_file(weights)
    [key] = [name for name in tensors if key.endswith(name) or name == key]
    if shape is None:
        del tensors[key]
    else:
        tensors[key] = torch.zeros(shape)
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=part) as caught:
        open_synthesizer(recipe(folder, model=str(model)), REFERENCES)
    assert f"{key} expected" in caught.value.message
    assert ("found nothing" if shape is None else "found 3x3") in caught.value.message


def test_text_encoders_with_the_keys_of_their_release_are_read(
    folder: Path, tmp_path: Path
) -> None:
    model = changed_pipeline(folder, tmp_path)
    for part in ("text_encoder", "text_encoder_2"):
        weights = model / part / "model.safetensors"
        tensors = {
            key
            if key.startswith(("text_model.", "text_projection"))
            else f"text_model.{key}": value
            for key, value in load_file(weights).items()
        }
        tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
        save_file(tensors, weights, metadata={"format": "pt"})
    _, released = draw(recipe(folder, model=str(model)), 2)
    _, usual = draw(recipe(folder), 2)
    assert [pair.image for pair in released] == [pair.image for pair in usual]


def test_a_variant_is_read_where_there_is_one(
    folder: Path, tmp_path: Path, synthesizer: Any
) -> None:
    model = changed_pipeline(folder, tmp_path)
    usual = {part: sorted(file.name for file in list_files(model / part, None)) for part in PARTS}
    synthesizer.pipeline.unet.save_pretrained(model / "unet", variant="fp16", max_shard_size="9KB")
    assert {p: sorted(f.name for f in list_files(model / p, None)) for p in PARTS} == usual
    assert {f.name for f in list_files(model / "vae", "fp16")} == set(usual["vae"])
    chosen = [file.name for file in list_files(model / "unet", "fp16")]
    assert len(chosen) > 3
    assert all("fp16" in name for name in chosen if name != "config.json")
    (model / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    draw_jobs(open_synthesizer(recipe(folder, model=str(model), variant="fp16"), REFERENCES), [])


def test_pickled_weights_are_not_read(folder: Path, tmp_path: Path) -> None:
    model = changed_pipeline(folder, tmp_path)
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(WeightsError, match="unet"):
        open_synthesizer(recipe(folder, model=str(model)), REFERENCES)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("unet", ["evil", "Unet"]),
        ("unet", ["os", "path"]),
        ("_class_name", ["pipeline", "Evil"]),
        ("scheduler", ["diffusers.schedulers", "EulerDiscreteScheduler"]),
    ],
)
def test_code_that_comes_with_a_model_is_not_run(
    folder: Path, tmp_path: Path, name: str, value: Any
) -> None:
    model = changed_pipeline(folder, tmp_path)
    for spot in (model, model / "unet"):
        (spot / "evil.py").write_text("raise SystemExit('code of a model ran')")
        (spot / "pipeline.py").write_text("raise SystemExit('code of a model ran')")
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps({**index, name: value}))
    with pytest.raises(
        WeightsError, match=f"{name}: expected a class of diffusers or transformers"
    ):
        open_synthesizer(recipe(folder, model=str(model)), REFERENCES)


def test_a_reference_that_is_no_image_is_named(folder: Path) -> None:
    spec = recipe(folder)
    bad = StyleReference("red", b"no image", REFERENCES[0].sha256, Path("styles/red.png"), False)
    with pytest.raises(SourceError, match=r"styles/red\.png is not a readable image"):
        draw_jobs(open_synthesizer(spec, [bad, REFERENCES[1]]), jobs_of(spec))
