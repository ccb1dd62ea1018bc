"""Masks from a file, from GrabCut and from any segment-anything checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.tiny_sam import disc, tiny_sam
from PIL import Image

from stylear.encoders import segment
from stylear.encoders.segment import Segmenter, _sam_sizes, cut_out, load_sam, subject_mask
from stylear.errors import SourceError, UsageError, WeightsError
from stylear.weights.files import hash_path


def test_a_mask_file_is_white_on_the_subject(tmp_path: Path) -> None:
    expected = np.zeros((64, 64), dtype=bool)
    expected[10:20, 30:50] = True
    Image.fromarray(expected).save(tmp_path / "mask.png")
    assert np.array_equal(subject_mask(disc(), str(tmp_path / "mask.png")), expected)
    half = Image.fromarray(expected).resize((32, 32), Image.Resampling.NEAREST)
    half.save(tmp_path / "half.png")
    assert np.array_equal(subject_mask(disc(), str(tmp_path / "half.png")), expected)


def test_a_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    Image.new("L", (64, 48), 255).save(tmp_path / "mask.png")
    with pytest.raises(UsageError, match="shape of its picture, 64x64, found 64x48"):
        subject_mask(disc(), str(tmp_path / "mask.png"))


def test_a_mask_is_black_where_it_is_transparent_and_keeps_16_bits(tmp_path: Path) -> None:
    levels = np.full((64, 64), 300, dtype=np.uint16)
    levels[:8] = 65535
    Image.fromarray(levels).save(tmp_path / "deep.png")
    rgba = np.full((64, 64, 4), 255, dtype=np.uint8)
    rgba[8:, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    for name in ("deep.png", "clear.png"):
        mask = subject_mask(disc(), str(tmp_path / name))
        assert np.array_equal(mask, levels > 300), name


def test_grabcut_finds_the_disc() -> None:
    y, x = np.mgrid[:64, :64]
    expected = (x - 32) ** 2 + (y - 32) ** 2 <= 16**2
    mask = subject_mask(disc(), "grabcut")
    assert mask.dtype == bool
    overlap = (mask & expected).sum() / (mask | expected).sum()
    assert overlap > 0.9
    assert np.array_equal(mask, subject_mask(disc(), "grabcut"))


def test_cut_out_keeps_the_subject_alone() -> None:
    mask = np.zeros((64, 64), dtype=bool)
    mask[32, 32] = True
    picture = cut_out(disc(), mask)
    assert picture.getpixel((32, 32)) == (255, 0, 0)
    assert picture.getpixel((31, 32)) == (255, 255, 255)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_sam_checkpoint_loads_by_its_keys_and_masks_alike(tmp_path: Path, suffix: str) -> None:
    from safetensors.torch import save_file
    from segment_anything import SamPredictor

    sam = tiny_sam()
    file = tmp_path / f"sam{suffix}"
    if suffix == ".pth":
        torch.save(sam.state_dict(), file)
    else:
        save_file(sam.state_dict(), file)
    picture = disc()
    by_hand = SamPredictor(sam)
    by_hand.set_image(np.asarray(picture))
    box = np.array([10, 12, 50, 52])
    expected, _, _ = by_hand.predict(box=box, multimask_output=False)
    loaded = SamPredictor(load_sam(file))
    loaded.set_image(np.asarray(picture))
    mask, _, _ = loaded.predict(box=box, multimask_output=False, return_logits=True)
    logits, _, _ = by_hand.predict(box=box, multimask_output=False, return_logits=True)
    np.testing.assert_allclose(mask, logits, atol=1e-5)
    if expected.any():
        assert np.array_equal(subject_mask(picture, f"sam:{file}@10,12,50,52"), expected[0])


def test_a_point_takes_the_surest_mask_of_three(tmp_path: Path) -> None:
    from segment_anything import SamPredictor

    sam = tiny_sam(1)
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    picture = disc()
    by_hand = SamPredictor(sam)
    by_hand.set_image(np.asarray(picture))
    masks, sure, _ = by_hand.predict(np.array([[32, 32]]), np.array([1]))
    expected = masks[sure.argmax()]
    assert expected.any()
    assert np.array_equal(subject_mask(picture, f"sam:{tmp_path}/sam.pth@32,32"), expected)


def test_without_a_prompt_the_largest_central_mask_with_a_free_border_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segment_anything import SamPredictor

    torch.save(tiny_sam().state_dict(), tmp_path / "sam.pth")
    small, large, whole = (torch.zeros(64, 64, dtype=torch.bool) for _ in range(3))
    small[30:34, 30:34] = True
    large[16:48, 16:48] = True
    whole[:] = True

    def predict(self: Any, points: Any, labels: Any) -> tuple[Any, Any, Any]:
        masks = torch.stack([small, large, whole]).expand(len(points), 3, 64, 64)
        return masks, torch.tensor([[0.95, 0.9, 0.99]]).expand(len(points), 3), None

    monkeypatch.setattr(SamPredictor, "predict_torch", predict)
    mask = subject_mask(disc(), f"sam:{tmp_path / 'sam.pth'}")
    assert np.array_equal(mask, large.numpy())


@pytest.mark.parametrize(
    ("name", "dim", "depth", "heads"),
    [("vit_b", 768, 12, 12), ("vit_l", 1024, 24, 16), ("vit_h", 1280, 32, 16)],
)
def test_the_published_sizes_are_read_from_their_keys(
    name: str, dim: int, depth: int, heads: int
) -> None:
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        published = sam_model_registry[name]()
    sizes = _sam_sizes(published.state_dict())
    assert sizes["encoder"] == {
        "depth": depth,
        "embed_dim": dim,
        "num_heads": heads,
        "mlp_ratio": 4.0,
        "window_size": 14,
        "global_attn_indexes": [depth // 4 * k - 1 for k in (1, 2, 3, 4)],
    }
    assert (sizes["grid"], sizes["patch"], sizes["prompt_width"]) == (64, 16, 256)
    assert sizes["decoder"] == {
        "num_multimask_outputs": 3,
        "iou_head_depth": 3,
        "iou_head_hidden_dim": 256,
    }


def test_a_registered_sam_is_named_and_what_it_takes_is_said_when_it_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STYLEAR_MODELS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"sam-vit-b: .*375 MB, licence: Apache-2\.0") as caught:
        subject_mask(disc(), "sam:sam-vit-b@32,32")
    assert caught.value.hint == "fetch it: stylear models fetch sam-vit-b"
    file = tmp_path / "sam-vit-b" / "sam_vit_b_01ec64.pth"
    file.parent.mkdir()
    torch.save(tiny_sam(1).state_dict(), file)
    facts = {"bytes": file.stat().st_size, "sha256": hash_path(file)}
    lock = {"models": {"sam-vit-b": {"files": {file.name: facts}}}}
    (tmp_path / "weights.lock").write_text(json.dumps(lock))
    by_name = subject_mask(disc(), "sam:sam-vit-b@32,32")
    assert np.array_equal(by_name, subject_mask(disc(), f"sam:{file}@32,32"))
    box = "sam:sam-vit-b@8,8,56,56"
    segmenter = Segmenter(box)
    masks = segmenter([disc(), disc()])
    assert np.array_equal(masks[0], masks[1])


def test_a_sam_is_loaded_once_for_all_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(tiny_sam(1).state_dict(), tmp_path / "sam.pth")
    loads: list[str | Path] = []
    load = segment.load_sam
    monkeypatch.setattr(segment, "load_sam", lambda path: loads.append(path) or load(path))
    segmenter = Segmenter(f"sam:{tmp_path / 'sam.pth'}@32,32")
    assert loads == []
    first, second = segmenter([disc()]), segmenter([disc(), disc()])
    assert loads == [str(tmp_path / "sam.pth")]
    assert np.array_equal(first[0], second[1])


@pytest.mark.parametrize("prompt", ["64,1", "1,64", "9,9,9,20", "9,20,20,9", "70,1,90,20"])
def test_a_point_or_box_off_the_picture_is_refused(prompt: str) -> None:
    with pytest.raises(UsageError, match=f"within 64x64 pixels, found {prompt}"):
        subject_mask(disc(), f"sam:missing.pth@{prompt}")


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    picture = disc()
    with pytest.raises(UsageError, match="expected a mask picture, `grabcut` or"):
        subject_mask(picture, "nothing-here.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(SourceError, match=r"text\.png: expected a mask picture"):
        subject_mask(picture, str(tmp_path / "text.png"))
    Image.new("L", (64, 64)).save(tmp_path / "black.png")
    with pytest.raises(SourceError, match="expected a subject"):
        subject_mask(picture, str(tmp_path / "black.png"))
    with pytest.raises(WeightsError, match="found nothing"):
        subject_mask(picture, "sam:missing.pth")
    with pytest.raises(UsageError, match="found 3 numbers"):
        subject_mask(picture, "sam:missing.pth@1,2,3")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="expected a segment-anything checkpoint"):
        subject_mask(picture, f"sam:{tmp_path / 'other.pth'}")
