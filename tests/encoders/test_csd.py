"""CSD equals open_clip's OpenAI tower used by hand, and its checkpoint is read without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.tiny_csd import DIM, PATCH, SIZE, csd_tensors, tiny_tower, write_tiny_csd
from PIL import Image
from safetensors.torch import save_file

from stylear.encoders.style import CsdEncoder, read_csd
from stylear.errors import SourceError, WeightsError
from stylear.weights.files import hash_path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_csd(tmp_path_factory.mktemp("csd") / "checkpoint.pth")


def picture(seed: int = 0, size: tuple[int, int] = (48, 40)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def by_hand(images: list[Image.Image]) -> torch.Tensor:
    """open_clip's own transform and its tower with the projection that the checkpoint calls style."""
    import open_clip

    model = tiny_tower()
    transform = open_clip.image_transform(SIZE, is_train=False)
    return model.encode_image(torch.stack([transform(image) for image in images]), normalize=True)


def test_style_embeddings_equal_openais_tower_used_by_hand(checkpoint: Path) -> None:
    encoder = CsdEncoder.open(checkpoint)
    images = [picture(0), picture(1, (33, 90))]
    embeds = encoder.embed_images(encoder.preprocess(images))
    assert embeds.shape == (2, DIM)
    torch.testing.assert_close(embeds, by_hand(images))
    assert abs(float(embeds[0] @ embeds[1])) < 0.999  # the pictures differ


def test_the_tower_has_openais_activation(checkpoint: Path) -> None:
    """With the usual GELU the numbers would be near and wrong."""
    encoder = CsdEncoder.open(checkpoint)
    names = {type(module).__name__ for module in encoder.model.modules()}
    assert "QuickGELU" in names
    assert "GELU" not in names


def test_content_is_the_other_projection(checkpoint: Path) -> None:
    encoder = CsdEncoder.open(checkpoint)
    pixels = encoder.preprocess([picture()])
    style, content = encoder.model(pixels)
    features = encoder.model.backbone(pixels)
    flipped = features.flip(-1) @ csd_tensors()["last_layer_style"]
    torch.testing.assert_close(content, torch.nn.functional.normalize(flipped, dim=-1))
    assert not torch.allclose(style, content)


def test_open_says_what_it_opened(checkpoint: Path) -> None:
    encoder = CsdEncoder.open(checkpoint)
    assert (encoder.name, encoder.image_size) == ("checkpoint.pth", SIZE)
    assert encoder.weights_sha256 == hash_path(checkpoint)
    assert encoder.preprocess([]).shape == (0, 3, SIZE, SIZE)


@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 0.02), (torch.float16, 0.002)])
def test_half_precision_moves_cosines_little(
    checkpoint: Path, dtype: torch.dtype, most: float
) -> None:
    images = [picture(seed) for seed in range(6)]
    cosines = []
    for encoder in (CsdEncoder.open(checkpoint), CsdEncoder.open(checkpoint, dtype=dtype)):
        embeds = encoder.embed_images(encoder.preprocess(images))
        assert embeds.dtype == torch.float32
        cosines.append(embeds @ embeds.T)
    assert 0 < float((cosines[0] - cosines[1]).abs().max()) < most


def test_the_hub_layout_without_prefix_is_read_too(tmp_path: Path) -> None:
    save_file(csd_tensors(), tmp_path / "model.safetensors")
    torch.save(csd_tensors(), tmp_path / "pytorch_model.bin")
    expected = by_hand([picture()])
    for name in ("model.safetensors", "pytorch_model.bin"):
        encoder = CsdEncoder.open(tmp_path / name)
        torch.testing.assert_close(encoder.embed_images(encoder.preprocess([picture()])), expected)


def touch(path: str) -> None:
    Path(path).touch()


class Touch:
    """A pickle that would make a file when it is loaded the usual way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (touch, (str(self.path),))


def test_what_a_pickle_holds_beside_tensors_is_not_executed(tmp_path: Path) -> None:
    path = write_tiny_csd(tmp_path / "hostile.pth", more=Touch(tmp_path / "made"))
    assert set(read_csd(path)) == set(csd_tensors())
    assert not (tmp_path / "made").exists()
    torch.load(path, weights_only=False)  # it would have been
    assert (tmp_path / "made").exists()


class Shell:
    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return (os.system, ("true",))


def test_a_pickle_that_names_the_shell_is_refused(tmp_path: Path) -> None:
    path = write_tiny_csd(tmp_path / "shell.pth", more=Shell())
    with pytest.raises(WeightsError, match=r"shell\.pth: cannot be read: .*posix"):
        read_csd(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"last_layer_style": None}, "last_layer_style expected 2 dimensions, found nothing"),
        ({"backbone.conv1.weight": None}, "backbone.conv1.weight expected 4 dimensions"),
        (
            {"backbone.ln_post.weight": None},
            "backbone.ln_post.weight expected 64, found nothing",
        ),
        (
            {"last_layer_content": torch.zeros(8, DIM)},
            f"last_layer_content expected 64x{DIM}, found 8x{DIM}",
        ),
        ({"text.proj": torch.zeros(2)}, "text.proj expected nothing, found 2"),
        (
            {"backbone.conv1.weight": torch.zeros(48, 3, PATCH, PATCH)},
            "its width a multiple of 64, found width 48",
        ),
    ],
)
def test_wrong_keys_and_shapes_are_named(
    tmp_path: Path, change: dict[str, torch.Tensor | None], message: str
) -> None:
    tensors = {k: v for k, v in {**csd_tensors(), **change}.items() if v is not None}
    torch.save({"model_state_dict": tensors}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=message):
        CsdEncoder.open(tmp_path / "other.pth")


def test_files_that_are_no_checkpoint_are_named(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.pth: expected a model .* found nothing"):
        CsdEncoder.open(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="expected a CSD checkpoint, found a directory"):
        CsdEncoder.open(tmp_path)
    (tmp_path / "cut.pth").write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(WeightsError, match=r"cut\.pth: expected weights .* cut off"):
        CsdEncoder.open(tmp_path / "cut.pth")
    torch.save(["no", "mapping"], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match=r"list\.pth: expected named tensors, found list"):
        CsdEncoder.open(tmp_path / "list.pth")
    torch.save({"model_state_dict": 3}, tmp_path / "number.pth")
    with pytest.raises(WeightsError, match="model_state_dict: expected named tensors, found int"):
        CsdEncoder.open(tmp_path / "number.pth")
    with pytest.raises(SourceError, match="do not decode"):
        CsdEncoder.open(checkpoint).preprocess([b"no image"])
