"""DINOv2 equals transformers used by hand; the content alignment score against its formula."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.tiny_dino import PATCHES, SIZE, write_tiny_dino
from PIL import Image
from safetensors.torch import load_file, save_file

from stylear.encoders.dino import DinoEncoder, content_alignment
from stylear.errors import SourceError, WeightsError
from stylear.weights.files import hash_path

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_dino(tmp_path_factory.mktemp("dino") / "tiny-dino")


def picture(seed: int = 0, size: tuple[int, int] = (64, 50)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_embeddings_equal_transformers_used_by_hand(directory: Path) -> None:
    from transformers import BitImageProcessor, Dinov2Model

    encoder = DinoEncoder.open(directory)
    images = [picture(0), picture(1, (90, 70))]
    processor = BitImageProcessor.from_pretrained(directory)
    model = Dinov2Model.from_pretrained(directory).eval()
    with torch.no_grad():
        hidden = model(**processor(images, return_tensors="pt")).last_hidden_state
    pixels = encoder.preprocess(images)
    assert hidden.shape == (2, 1 + PATCHES, 32)
    torch.testing.assert_close(encoder.patch_features(pixels), hidden[:, 1:])
    embeds = encoder.embed_images(pixels)
    torch.testing.assert_close(embeds, torch.nn.functional.normalize(hidden[:, 0], dim=-1))
    assert float(embeds[0] @ embeds[1]) < 0.9999  # the pictures differ


@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 0.05), (torch.float16, 0.005)])
def test_half_precision_moves_cosines_little(
    directory: Path, dtype: torch.dtype, most: float
) -> None:
    images = [picture(seed) for seed in range(6)]
    cosines = []
    for encoder in (DinoEncoder.open(directory), DinoEncoder.open(directory, dtype=dtype)):
        embeds = encoder.embed_images(encoder.preprocess(images))
        assert embeds.dtype == torch.float32
        cosines.append(embeds @ embeds.T)
    assert 0 < float((cosines[0] - cosines[1]).abs().max()) < most


def test_register_tokens_are_no_patches(tmp_path: Path) -> None:
    from transformers import BitImageProcessor, Dinov2WithRegistersModel

    place = write_tiny_dino(tmp_path / "registers", registers=4)
    encoder, model = DinoEncoder.open(place), Dinov2WithRegistersModel.from_pretrained(place).eval()
    processor = BitImageProcessor.from_pretrained(place)
    with torch.no_grad():
        hidden = model(**processor([picture()], return_tensors="pt")).last_hidden_state
    assert hidden.shape[1] == 1 + 4 + PATCHES
    features = encoder.patch_features(encoder.preprocess([picture()]))
    torch.testing.assert_close(features, hidden[:, 5:])


def test_open_says_what_it_opened(directory: Path) -> None:
    encoder = DinoEncoder.open(directory)
    assert (encoder.name, encoder.image_size) == ("tiny-dino", SIZE)
    assert encoder.weights_sha256 == hash_path(directory / WEIGHTS)
    assert encoder.preprocess([]).shape == (0, 3, SIZE, SIZE)
    with pytest.raises(SourceError, match="do not decode"):
        encoder.preprocess([b"no image"])


def test_a_torch_file_is_read_as_well(directory: Path, tmp_path: Path) -> None:
    place = tmp_path / "older"
    shutil.copytree(directory, place)
    torch.save(load_file(place / WEIGHTS), place / "pytorch_model.bin")
    (place / WEIGHTS).unlink()
    pixels = DinoEncoder.open(directory).preprocess([picture()])
    torch.testing.assert_close(
        DinoEncoder.open(place).embed_images(pixels),
        DinoEncoder.open(directory).embed_images(pixels),
    )


def test_the_content_alignment_is_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(2, 7, 5, generator=generator)
    b = torch.randn(2, 7, 5, generator=generator)

    def normal(x: torch.Tensor) -> torch.Tensor:
        spread = (x.var(dim=1, correction=0, keepdim=True) + 1e-5).sqrt()
        return (x - x.mean(dim=1, keepdim=True)) / spread

    expected = ((normal(a) - normal(b)) ** 2).flatten(1).mean(dim=1)
    torch.testing.assert_close(content_alignment(a, b), expected)


def test_the_content_alignment_ignores_level_and_contrast_of_a_channel() -> None:
    """These are what a style changes; where things stand is what it has to keep."""
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(1, 50, 8, generator=generator)
    other = a * torch.linspace(0.5, 3, 8) + torch.linspace(-4, 4, 8)
    assert content_alignment(a, other).item() == pytest.approx(0, abs=1e-4)
    moved = a[:, torch.randperm(50, generator=generator)]
    assert content_alignment(a, moved).item() > 1


def dropped(key: str) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        tensors = load_file(place / WEIGHTS)
        del tensors[key]
        save_file(tensors, place / WEIGHTS, {"format": "pt"})

    return change


def replaced(key: str, value: torch.Tensor) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        save_file({**load_file(place / WEIGHTS), key: value}, place / WEIGHTS, {"format": "pt"})

    return change


def settings(file: str, **changes: object) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        config = json.loads((place / file).read_text())
        (place / file).write_text(json.dumps({**config, **changes}))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dropped("layernorm.weight"), "layernorm.weight expected, found nothing"),
        (replaced("head.bias", torch.zeros(3)), "head.bias expected nothing of that name"),
        (
            replaced("layernorm.bias", torch.zeros(8)),
            r"layernorm.bias expected 32, found 8",
        ),
        (settings("config.json", model_type="vit"), "expected model_type dinov2 or .* found 'vit'"),
        (settings("config.json", hidden_size="wide"), "transformers cannot load it"),
        (
            settings("preprocessor_config.json", do_center_crop=False),
            "preprocessor_config.json: expected a square crop",
        ),
        (lambda place: (place / WEIGHTS).unlink(), "expected model.safetensors or pytorch_model"),
        (
            lambda place: (place / WEIGHTS).write_bytes(b"cut off"),
            "model.safetensors: expected weights .* found text: 'cut off'",
        ),
        (
            lambda place: (place / "preprocessor_config.json").unlink(),
            "preprocessor_config.json: expected this file",
        ),
    ],
)
def test_directories_that_do_not_fit_are_named(
    directory: Path, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    place = tmp_path / "other"
    shutil.copytree(directory, place)
    change(place)
    with pytest.raises(WeightsError, match=message):
        DinoEncoder.open(place)


def test_a_missing_directory_is_named(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none: expected a model directory .* found nothing"):
        DinoEncoder.open(tmp_path / "none")
    with pytest.raises(WeightsError, match="expected the directory of a DINOv2 model, found a"):
        DinoEncoder.open(directory / WEIGHTS)
