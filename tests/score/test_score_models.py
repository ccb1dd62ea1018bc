"""Scores of CLIPs in the layouts in which users have them, against open_clip used by hand."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.device import ON_DEVICE
from builders.pictures_folder import encoded
from PIL import Image

from stylear.curate.recipe import ClipTextScore, check_recipe
from stylear.curate.score import compute_scorer_fingerprint, open_scorer, read_metadata
from stylear.curate.score.scorer import Context
from stylear.curate.score.sweep import ShardToScore, score_shards
from stylear.encoders.clip import ClipEncoder, save_clip
from stylear.pair import Origin, Pair, content_id, digest

ARCH = "ViT-S-32-alt"
CAPTIONS = ["a red apple on a table", "two boats", "", "ein Haus, naïve – 物"]
LONG = "one more word " * 40


def config(**preprocess: Any) -> dict[str, Any]:
    """A genuine open_clip config with its own byte-pair tokenizer, small."""
    return {
        "model_cfg": {
            "embed_dim": 32,
            "vision_cfg": {"image_size": 48, "patch_size": 16, "width": 64, "layers": 2},
            "text_cfg": {
                "context_length": 77,
                "vocab_size": 49408,
                "width": 64,
                "heads": 2,
                "layers": 2,
            },
        },
        "preprocess_cfg": {
            "mean": [0.48145466, 0.4578275, 0.40821073],
            "std": [0.26862954, 0.26130258, 0.27577711],
            **preprocess,
        },
    }


def pair(number: int, caption: str, width: int, height: int) -> Pair:
    image = Image.open(io.BytesIO(encoded(number, 64))).resize((width, height))
    out = io.BytesIO()
    image.save(out, ("PNG", "JPEG", "WEBP")[number % 3])
    origin = Origin("raw", "test", content_id(caption))
    return Pair(digest(number), caption, out.getvalue(), origin)


PAIRS = [pair(n, text, 40 + 9 * n, 70 - 8 * n) for n, text in enumerate([*CAPTIONS, LONG])]


def by_hand(model: torch.nn.Module, transform: Any, tokenizer: Any) -> list[float]:
    """What a user of open_clip writes, all pairs in one batch."""
    clip: Any = model.eval()
    images = [Image.open(io.BytesIO(pair.image)).convert("RGB") for pair in PAIRS]
    with torch.no_grad():
        pictures = clip.encode_image(torch.stack([transform(pair) for pair in images]))
        texts = clip.encode_text(tokenizer([pair.caption for pair in PAIRS]))
    pictures = pictures / pictures.norm(dim=-1, keepdim=True)
    texts = texts / texts.norm(dim=-1, keepdim=True)
    cosines: list[float] = (pictures * texts).sum(dim=-1).tolist()
    return cosines


def scored(spec: ClipTextScore) -> Any:
    context = Context([])
    shard = ShardToScore("raw", iter(PAIRS), [open_scorer(spec, context)])
    [tables] = score_shards([shard], context, lambda number, tables: tables)
    return tables[spec.name]


def clip_text(model: str, **changes: Any) -> ClipTextScore:
    return ClipTextScore(name="text", type="clip-text", model=model, **(ON_DEVICE | changes))


@pytest.mark.parametrize("resize", ["shortest", "longest", "squash"])
def test_a_directory_scores_as_open_clip_by_hand(tmp_path: Path, resize: str) -> None:
    import open_clip

    settings = config(resize_mode=resize, interpolation="bilinear")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        save_clip(open_clip.CLIP(**settings["model_cfg"]), settings, None, tmp_path)
    name = f"local-dir:{tmp_path}"
    model, _, transform = open_clip.create_model_and_transforms(name)
    expected = by_hand(model, transform, open_clip.get_tokenizer(name))
    table = scored(clip_text(str(tmp_path)))
    assert table["text"].to_pylist() == pytest.approx(expected, abs=6e-6)  # half of 5 decimals
    assert len({round(value, 4) for value in expected}) == len(PAIRS)
    assert table["text.truncated"].to_pylist() == [False, False, False, False, True]
    assert f"48 px, {resize}, bilinear" in read_metadata(table)["preprocessing"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of an architecture that open_clip knows, as its trainer saves them."""
    import open_clip

    file = tmp_path_factory.mktemp("weights") / "epoch_1.pt"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        model = open_clip.create_model(ARCH)
    torch.save({"epoch": 1, "state_dict": model.state_dict()}, file)
    return file


def test_an_architecture_with_a_checkpoint_scores_as_open_clip_by_hand(checkpoint: Path) -> None:
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(ARCH, pretrained=str(checkpoint))
    expected = by_hand(model, transform, open_clip.get_tokenizer(ARCH))
    table = scored(clip_text(f"{ARCH}/{checkpoint}"))
    assert table["text"].to_pylist() == pytest.approx(expected, abs=6e-6)
    assert read_metadata(table)["model"] == f"{ARCH}/epoch_1.pt"


def test_another_architecture_with_the_same_checkpoint_is_another_scorer(checkpoint: Path) -> None:
    one, other = (clip_text(f"{arch}/{checkpoint}") for arch in (ARCH, "ViT-S-32"))
    assert compute_scorer_fingerprint(one) != compute_scorer_fingerprint(other)


def test_half_precision_is_near_and_recorded(checkpoint: Path) -> None:
    full = scored(clip_text(f"{ARCH}/{checkpoint}"))
    half = scored(clip_text(f"{ARCH}/{checkpoint}", dtype="bfloat16"))
    assert half["text"].to_pylist() == pytest.approx(full["text"].to_pylist(), abs=0.02)
    assert half["text"].to_pylist() != full["text"].to_pylist()
    assert [read_metadata(table)["dtype"] for table in (full, half)] == ["float32", "bfloat16"]


def test_a_recipe_finds_models_beside_it(checkpoint: Path) -> None:
    names = [f"{ARCH}/{checkpoint.name}", "mini-clip", f"{ARCH}/missing.pt"]
    scores = [{"name": f"s{n}", "type": "clip-text", "model": m} for n, m in enumerate(names)]
    recipe = check_recipe(
        {"name": "x", "raw": [{"type": "mini"}], "score": scores}, checkpoint.parent
    )
    models = [getattr(spec, "model", None) for spec in recipe.score]
    assert models == [f"{ARCH}/{checkpoint}", "mini-clip", f"{ARCH}/missing.pt"]


def test_both_halves_of_preprocessing_are_open_clips_own(tmp_path: Path) -> None:
    """Bit for bit: bytes in threads, then one scaling of the whole batch."""
    import open_clip

    settings = config()
    save_clip(open_clip.CLIP(**settings["model_cfg"]), settings, None, tmp_path)
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    clip = ClipEncoder.open(str(tmp_path))
    images = [Image.open(io.BytesIO(pair.image)).convert("RGB") for pair in PAIRS]
    resized = [clip.preprocessor.resize(image) for image in images]
    assert {pair.dtype for pair in resized} == {torch.uint8}
    assert torch.equal(
        clip.preprocessor.normalize(resized), torch.stack([transform(image) for image in images])
    )


def test_a_transform_of_another_build_is_left_whole(checkpoint: Path) -> None:
    import open_clip
    from torchvision import transforms

    model, _, _ = open_clip.create_model_and_transforms(ARCH, pretrained=str(checkpoint))
    strange = transforms.Compose([transforms.Resize((224, 224)), transforms.PILToTensor()])
    clip = ClipEncoder("x", checkpoint, model, strange, open_clip.get_tokenizer(ARCH))
    image = Image.open(io.BytesIO(PAIRS[0].image)).convert("RGB")
    assert torch.equal(clip.preprocess([image, image]), torch.stack([strange(image)] * 2))
