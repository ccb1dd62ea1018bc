"""The aesthetic head is torch's linear layer, and only fits the CLIP that it was made for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders.tiny_aesthetic import write_head

from stylear.encoders.aesthetic import AestheticHead
from stylear.errors import WeightsError
from stylear.weights.files import hash_path


def test_ratings_equal_torchs_linear_layer(tmp_path: Path) -> None:
    path = write_head(tmp_path / "sa_0_4_vit_b_32_linear.pth", 512)
    layer = torch.nn.Linear(512, 1)
    layer.load_state_dict(torch.load(path, weights_only=True))
    embeddings = torch.nn.functional.normalize(
        torch.randn(3, 512, generator=torch.Generator().manual_seed(1)), dim=-1
    )
    head = AestheticHead.open(path, 512)
    with torch.no_grad():
        torch.testing.assert_close(head.rate(embeddings), layer(embeddings).squeeze(1))
        half = head.rate(embeddings.bfloat16())
        torch.testing.assert_close(half, layer(embeddings.bfloat16().float()).squeeze(1))
    assert (head.name, head.weights_sha256) == (path.name, hash_path(path))


def test_a_head_of_another_clip_is_named(tmp_path: Path) -> None:
    path = write_head(tmp_path / "head.pth", 768)
    with pytest.raises(WeightsError, match="a head for embeddings of 512, found one for 768"):
        AestheticHead.open(path, 512)


def test_files_that_are_no_head_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.pth: expected a model .* found nothing"):
        AestheticHead.open(tmp_path / "none.pth", 8)
    with pytest.raises(WeightsError, match="expected an aesthetic head, found a directory"):
        AestheticHead.open(tmp_path, 8)
    layers = {"layers.0.weight": torch.zeros(8, 8)}
    torch.save(layers, tmp_path / "layers.pth")
    with pytest.raises(WeightsError, match="weight expected 1x8, found nothing"):
        AestheticHead.open(tmp_path / "layers.pth", 8)
    torch.save({"weight": torch.zeros(2, 8), "bias": torch.zeros(2)}, tmp_path / "two.pth")
    with pytest.raises(WeightsError, match="weight expected 1x8, found 2x8"):
        AestheticHead.open(tmp_path / "two.pth", 8)
