"""A preset is the released code's settings and templates; flags override it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders.tiny_model import write_tiny_model
from PIL import Image
from typer.testing import CliRunner

from stylear.cli import app
from stylear.errors import UsageError
from stylear.model.open import load_model
from stylear.sampling.generate import Sampling
from stylear.sampling.presets import PRESETS, apply_templates, choose_sampling, get_preset

TEMPLATE = (
    "Instant style Generation. Given image style is {style}. "
    "Please generate an same style image according to my instruction: {prompt}"
)


def test_the_released_preset_has_the_published_constants() -> None:
    released = get_preset("released")
    assert (released.guidance, released.top_k, released.temperature) == (4.0, 2000, 1.0)
    assert (released.noise, released.removal) == (0.3, 0.8)
    assert released.prompt_template == TEMPLATE
    assert get_preset("released-control").noise == 0.1
    assert released.control_template == (
        "Instant style Generation. Given image style is {style}. Please generate an image according to "
        "the provided image {image} and according to my instruction: {prompt}"
    )


def test_flags_override_a_preset_and_defaults_fill_the_rest() -> None:
    released = PRESETS["released-control"]
    assert choose_sampling(released, guidance=2.0, noise=None) == Sampling(guidance=2.0, noise=0.1)
    assert choose_sampling(None, top_k=7, batch_size=3) == Sampling(top_k=7, batch_size=3)
    with pytest.raises(UsageError, match="noise: expected at least 0, found -1"):
        choose_sampling(released, noise=-1.0)


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(
        UsageError, match="--preset: expected one of released, released-control, found 'fast'"
    ):
        get_preset("fast")


def test_the_command_takes_template_and_settings_from_the_preset(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "tiny")
    model = load_model(tmp_path / "tiny")
    applied = apply_templates(model, PRESETS["released"])
    assert applied.decoder is model.decoder
    assert len(applied.encode_prompt("a cat")) > len(model.encode_prompt("a cat"))
    style = tmp_path / "style.png"
    Image.radial_gradient("L").save(style)
    words = ["generate", "--model", str(tmp_path / "tiny"), "--style", str(style)]
    words += ["--prompt", "a cat", "--preset", "released", "--noise", "0", "--json"]
    words += ["--style-guidance", "2"]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.exception
    (line,) = json.loads(result.stdout)["pictures"]
    assert (line["guidance"], line["top_k"], line["noise"], line["removal"]) == (
        4.0,
        2000,
        0.0,
        0.8,
    )
    assert line["style_guidance"] == 2.0
    assert line["prompt_tokens"] == len(applied.encode_prompt("a cat"))
