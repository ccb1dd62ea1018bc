"""Every encoder reads its weights as people have them: under a wrong ending, a level or a prefix."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from builders.odd_weights import LFS_POINTER, PAGE
from builders.tiny_clip import write_tiny_clip
from builders.tiny_csd import csd_tensors
from builders.tiny_dino import write_tiny_dino
from builders.tiny_sam import tiny_sam
from safetensors.torch import load_file, save_file

from stylear.encoders.aesthetic import AestheticHead
from stylear.encoders.clip import ClipEncoder
from stylear.encoders.dino import DinoEncoder
from stylear.encoders.segment import load_sam
from stylear.encoders.style import CsdEncoder
from stylear.errors import WeightsError

Tensors = dict[str, torch.Tensor]
Write = Callable[[Tensors, Path], None]


def write_wrong_ending(tensors: Tensors, path: Path) -> None:
    """A torch checkpoint under a safetensors name, or the other way round."""
    if path.suffix == ".safetensors":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)


def write_level(tensors: Tensors, path: Path) -> None:
    """A training checkpoint; a wrong ending too where the name is that of safetensors."""
    torch.save({"model": tensors, "epoch": 3}, path)


def write_prefix(tensors: Tensors, path: Path) -> None:
    prefixed = {f"module.model.{name}": value for name, value in tensors.items()}
    if path.suffix == ".safetensors":
        save_file(prefixed, path)
    else:
        torch.save(prefixed, path)


WAYS = pytest.mark.parametrize("write", [write_wrong_ending, write_level, write_prefix])


def contiguous(tensors: Tensors) -> Tensors:
    return {name: value.detach().clone().contiguous() for name, value in tensors.items()}


def equal(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@WAYS
@pytest.mark.parametrize("file", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_clip(tmp_path: Path, write: Write, file: str) -> None:
    plain = write_tiny_clip(tmp_path / "clip")
    expected = ClipEncoder.open(str(plain))
    tensors = load_file(plain / "open_clip_model.safetensors")
    other = tmp_path / "other"
    shutil.copytree(plain, other)
    (other / "open_clip_model.safetensors").unlink()
    write(tensors, other / file)
    encoder = ClipEncoder.open(str(other))
    assert equal(encoder.model, expected.model)
    assert encoder.name == "other"
    assert encoder.weights_sha256 != expected.weights_sha256


@WAYS
def test_a_clip_checkpoint_after_its_architecture(tmp_path: Path, write: Write) -> None:
    import open_clip

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model("ViT-S-32-alt", precision="fp16")
    write(contiguous(model.state_dict()), tmp_path / "clip.pt")
    encoder = ClipEncoder.open(f"ViT-S-32-alt/{tmp_path / 'clip.pt'}", dtype=torch.float16)
    assert equal(encoder.model, model)


@WAYS
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_dino(tmp_path: Path, write: Write, file: str) -> None:
    plain = write_tiny_dino(tmp_path / "dino")
    other = tmp_path / "other"
    shutil.copytree(plain, other)
    (other / "model.safetensors").unlink()
    write(load_file(plain / "model.safetensors"), other / file)
    assert equal(DinoEncoder.open(other).model, DinoEncoder.open(plain).model)


@WAYS
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_csd(tmp_path: Path, write: Write, ending: str) -> None:
    tensors = contiguous(csd_tensors())
    path = tmp_path / f"csd.{ending}"
    write(tensors, path)
    loaded = CsdEncoder.open(path).model.state_dict()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


@WAYS
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_sam(tmp_path: Path, write: Write, ending: str) -> None:
    sam = tiny_sam()
    write(contiguous(sam.state_dict()), tmp_path / f"sam.{ending}")
    assert equal(load_sam(tmp_path / f"sam.{ending}"), sam)


@WAYS
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_aesthetic_head(tmp_path: Path, write: Write, ending: str) -> None:
    layer = torch.nn.Linear(8, 1)
    write(contiguous(layer.state_dict()), tmp_path / f"head.{ending}")
    assert equal(AestheticHead.open(tmp_path / f"head.{ending}", 8).layer, layer)


@pytest.mark.parametrize(
    ("content", "message"), [(LFS_POINTER, "found a git-lfs pointer"), (PAGE, "found an HTML page")]
)
def test_what_is_saved_in_place_of_weights_is_named(
    tmp_path: Path, content: bytes, message: str
) -> None:
    clip, dino = write_tiny_clip(tmp_path / "clip"), write_tiny_dino(tmp_path / "dino")
    (clip / "open_clip_model.safetensors").write_bytes(content)
    (dino / "model.safetensors").write_bytes(content)
    (tmp_path / "one.pth").write_bytes(content)
    for open_it in (
        lambda: ClipEncoder.open(str(clip)),
        lambda: ClipEncoder.open(f"ViT-S-32-alt/{tmp_path / 'one.pth'}"),
        lambda: DinoEncoder.open(dino),
        lambda: CsdEncoder.open(tmp_path / "one.pth"),
        lambda: load_sam(tmp_path / "one.pth"),
        lambda: AestheticHead.open(tmp_path / "one.pth", 8),
    ):
        with pytest.raises(WeightsError, match=message):
            open_it()
