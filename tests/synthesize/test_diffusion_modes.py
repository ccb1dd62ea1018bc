"""Metadata, device, dtype and speed modes of diffusers synthesisers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.diffusion_jobs import draw_jobs
from builders.drawn_jobs import (
    GUIDANCE,
    REFERENCES,
    ROWS,
    STEPS,
    draw,
    jobs_of,
    pixels_of,
    recipe,
)

from stylear.curate.recipe.synthesizers import InstantStyleSettings
from stylear.curate.synthesize import open_synthesizer
from stylear.curate.synthesize.diffusers.load import choose_device, choose_dtype
from stylear.curate.synthesize.diffusers.tuning import move_to_device
from stylear.curate.synthesize.prompts.sources import Content

pytestmark = pytest.mark.filterwarnings(  # diffusers' Euler scheduler turns tensors into arrays
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


def test_a_prompt_beyond_the_encoders_length_is_recorded(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [Content("k0", " ".join(["cat"] * 40), "c0"), Content("k1", "a cat", "c1")]
    spec = recipe(folder, negative_prompt="owl " * 30)
    jobs = jobs_of(spec, rows)
    pairs = draw_jobs(open_synthesizer(spec, REFERENCES), jobs)
    lengths = {
        (p.origin.details["prompt_tokens"], p.origin.details["prompt_truncated_at"]) for p in pairs
    }
    assert lengths == {
        (122, 77),
        (6, None),
    }  # three letters are three tokens here, start and end two
    assert pairs[0].origin.details["negative_prompt_tokens"] == 92
    assert pairs[0].origin.details["negative_prompt_truncated_at"] == 77
    assert all(pair.caption == pair.origin.details["prompt"] for pair in pairs)
    assert "truncated" not in capsys.readouterr().err


def test_metadata_has_the_sampler_and_all_its_settings(folder: Path) -> None:
    options = {"timestep_spacing": "trailing"}
    spec = recipe(folder, sampler="DDIMScheduler", sampler_options=options)
    jobs, pairs = draw(spec, 2)
    details = pairs[0].origin.details
    assert details["sampler"] == "DDIMScheduler"
    sampler_options = json.loads(str(details["sampler_options"]))
    assert (sampler_options["timestep_spacing"], sampler_options["beta_end"]) == ("trailing", 0.012)
    assert (details["steps"], details["guidance"], details["negative_prompt"]) == (
        STEPS,
        GUIDANCE,
        "blurry",
    )
    assert str(folder) not in json.dumps(dict(details))
    assert (
        pairs[0].origin.reference_sha256 == {r.id: r for r in REFERENCES}[jobs[0].reference].sha256
    )
    _, usual = draw(recipe(folder), 2)
    assert usual[0].image != pairs[0].image


def test_attention_runs_in_torchs_fused_kernel(synthesizer: Any) -> None:
    kinds = {
        type(processor).__name__ for processor in synthesizer.pipeline.unet.attn_processors.values()
    }
    assert kinds == {"AttnProcessor2_0", "IPAdapterAttnProcessor2_0"}


@pytest.mark.cpu
def test_what_auto_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert choose_device("auto") == "cuda"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    assert choose_dtype("auto", "cuda") == torch.bfloat16
    assert choose_dtype("auto", "cpu") == torch.float32
    assert choose_dtype("float16", "cuda") == torch.float16


class Recorded:
    """A pipeline, or a part of one, that notes what it is asked for."""

    def __init__(self, calls: list[str], name: str = "", **parts: Any) -> None:
        self._calls, self._name = calls, name
        vars(self).update(parts)

    def __getattr__(self, name: str) -> Any:
        if name in ("unet", "vae", "transformer"):
            raise AttributeError(name)
        name_path = f"{self._name}.{name}".lstrip(".")
        return lambda *args, **kw: self._calls.append(
            " ".join([name_path, *(str(value) for value in (*args, *kw.values()))])
        )


@pytest.mark.parametrize(
    ("settings", "device", "expected"),
    [
        ({}, "cpu", ["vae.enable_slicing", "to cpu"]),
        ({"offload": "model"}, "cpu", ["vae.enable_slicing", "to cpu"]),
        (
            {"vae_slicing": False, "vae_tiling": True, "compile": True},
            "cuda",
            [
                "vae.enable_tiling",
                "unet.to torch.channels_last",
                "vae.to torch.channels_last",
                "to cuda",
                "unet.compile",
            ],
        ),
        (
            {"offload": "model", "vae_slicing": False},
            "cuda",
            [
                "unet.to torch.channels_last",
                "vae.to torch.channels_last",
                "enable_model_cpu_offload cuda",
            ],
        ),
        (
            {"offload": "sequential", "vae_slicing": False},
            "cuda",
            [
                "unet.to torch.channels_last",
                "vae.to torch.channels_last",
                "enable_sequential_cpu_offload cuda",
            ],
        ),
    ],
)
@pytest.mark.cpu
def test_modes_are_set_as_the_settings_say(
    settings: dict[str, Any], device: str, expected: list[str]
) -> None:
    calls: list[str] = []
    parts = {name: Recorded(calls, name) for name in ("unet", "vae")}
    move_to_device(
        Recorded(calls, **parts),
        InstantStyleSettings(model="sdxl", ip_adapter="adapter", **settings),
        device,
    )
    assert calls == expected


def test_bfloat16_is_drawn_with_on_request(folder: Path) -> None:
    jobs, pairs = draw(recipe(folder, dtype="bfloat16"), 1)
    assert len(jobs) == len(ROWS[:1])
    assert pairs[0].origin.details["dtype"] == "bfloat16"
    _, usual = draw(recipe(folder), 1)
    assert usual[0].origin.details["dtype"] == "float32"
    assert (pixels_of(usual[0]) != pixels_of(pairs[0])).any()
