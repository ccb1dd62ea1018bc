"""Control images stand as codes within the prompt; pictures may have any shape that has size tokens."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.tiny_clip import write_tiny_clip
from builders.tiny_model import DECODER, VQ
from PIL import Image
from typer.testing import CliRunner

from stylear.cli import app
from stylear.errors import UsageError
from stylear.model.build import attach_style_encoder, new_model
from stylear.model.save import save_model
from stylear.model.style_model import StyleModel
from stylear.model.tokenizer import build_tokenizer
from stylear.model.vq import VQModel
from stylear.sampling.context import compute_grid, measure_prompt
from stylear.sampling.control import choose_size, crop_centre, encode_control, list_shapes
from stylear.sampling.generate import generate

CONTROL = Image.linear_gradient("L").resize((32, 32))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with tokens of three sizes and templates of the released form."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    words = ["image style is", "according to the provided and"] * 2
    tokenizer = build_tokenizer(words, VQ.num_embeddings, size_units=[1, 2, 4], text_vocabulary=280)
    config = replace(DECODER, max_position_embeddings=400)
    base = new_model(
        folder / "base",
        tokenizer,
        config,
        VQModel(VQ),
        prompt_template="style {style}. {prompt}",
    )
    settings = replace(base.settings, control_template="style {style}, image {image} and {prompt}")
    clip = write_tiny_clip(folder / "clip")
    sizes = {"depth": 1, "heads": 2, "dim_head": 8}
    styled = attach_style_encoder(replace(base, settings=settings), str(clip), 3, sizes=sizes)
    save_model(styled, folder / "model", dtype=None)
    return folder / "model"


@pytest.fixture(scope="module")
def model(directory: Path) -> StyleModel:
    from stylear.model.open import load_model

    return load_model(directory)


def test_the_control_image_stands_whole_where_the_template_says(model: StyleModel) -> None:
    codes = torch.arange(16).view(4, 4)
    ids = model.encode_prompt("a {image} cat", control=codes)
    layout = model.layout
    span = layout.image_span(codes)
    start = ids.index(span[0])
    assert ids[start : start + len(span)] == span
    assert ids.count(layout.style_placeholder) == 3
    before = layout.encode_text("style S* S* S*, image ")
    after = layout.encode_text(" and a {image} cat")
    assert ids == [layout.bos, *before, *span, *after, layout.sep]


def test_a_control_image_is_encoded_as_the_vq_model_does(model: StyleModel) -> None:
    pixels = torch.from_numpy(np.array(CONTROL.convert("RGB"))).permute(2, 0, 1) / 127.5 - 1
    expected = model.vq.encode(pixels[None])[0]
    assert torch.equal(encode_control(model, CONTROL, 4, 4), expected)
    assert encode_control(model, CONTROL.resize((77, 300)), 4, 8).shape == (4, 8)


def test_the_centre_of_a_covering_picture_is_kept() -> None:
    levels = np.repeat(np.arange(0, 256, 32, dtype=np.uint8), 8)
    wide = Image.fromarray(np.tile(levels, (16, 1)))
    assert wide.size == (64, 16)
    cropped = crop_centre(wide, 16, 16)
    assert np.array_equal(np.asarray(cropped), np.asarray(wide)[:, 24:40])
    assert crop_centre(Image.new("RGB", (3, 1000)), 32, 8).size == (32, 8)


def test_a_control_image_changes_the_picture_and_counts_as_prompt(model: StyleModel) -> None:
    reference = CONTROL.convert("RGB")
    plain, controlled, again = (
        generate(model, ["a cat"], [reference], seeds=[3], control=control)[0].tobytes()
        for control in (None, CONTROL, CONTROL)
    )
    assert plain != controlled
    assert controlled == again
    codes = encode_control(model, CONTROL, 4, 4)
    longer = measure_prompt(model, "a cat", is_styled=True, control=codes).tokens
    assert longer - measure_prompt(model, "a cat", is_styled=True).tokens >= len(
        model.layout.image_span(codes)
    )
    with pytest.raises(UsageError, match="expected a style reference with a control image"):
        generate(model, ["a cat"], seeds=[3], control=CONTROL)


def test_shapes_are_those_that_the_released_code_crops_to() -> None:
    shapes = list_shapes(576)  # 768 x 768 in units of 32 pixels
    assert (24, 24) in shapes
    assert shapes[0] == (48, 12)
    assert shapes[-1] == (12, 48)
    assert all(width * height <= 576 for width, height in shapes)
    assert len(shapes) == len(set(shapes))


def test_the_size_is_that_nearest_to_the_control_image(model: StyleModel) -> None:
    assert choose_size(model, Image.new("RGB", (500, 490))) == (32, 32)
    assert choose_size(model, Image.new("RGB", (400, 110))) == (64, 16)
    assert choose_size(model, Image.new("RGB", (50, 90))) == (16, 32)


def test_pictures_have_the_width_and_height_asked_for(model: StyleModel) -> None:
    (picture,) = generate(model, ["a cat"], seeds=[0], size_px=(64, 16))
    assert picture.size == (64, 16)
    assert compute_grid(model, (64, 16)) == (2, 8)
    assert compute_grid(model, 32) == (4, 4)


def test_a_side_without_a_token_lists_the_nearest(model: StyleModel) -> None:
    with pytest.raises(
        UsageError, match="expected a side that the model's vocabulary has"
    ) as caught:
        generate(model, ["a cat"], seeds=[0], size_px=(48, 32))
    assert caught.value.hint == "the nearest it has: 16, 32, 64 pixels"


def test_the_command_follows_a_control_image(directory: Path, tmp_path: Path) -> None:
    style, depth = tmp_path / "style.png", tmp_path / "depth.png"
    CONTROL.save(style)
    CONTROL.resize((60, 15)).save(depth)
    words = ["generate", "--model", str(directory), "--style", str(style), "--prompt", "a cat"]
    out = ["--out", str(tmp_path / "out"), "--json"]
    result = CliRunner().invoke(app, [*words, "--control", str(depth), *out])
    assert result.exit_code == 0, result.exception
    (line,) = json.loads(result.stdout)["pictures"]
    assert (line["control"], line["size_px"]) == ("depth.png", [64, 16])
    with Image.open(tmp_path / "out" / line["file"]) as picture:
        assert picture.size == (64, 16)
    depth.write_text("no picture")
    result = CliRunner().invoke(app, [*words, "--control", str(depth), *out, "--force"])
    assert "expected a depth map or segmentation" in str(result.exception)
