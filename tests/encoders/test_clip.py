"""ClipEncoder equals open_clip and transformers used by hand, and fails in words."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.tiny_clip import CONFIG, WORDS, tiny_tokenizer, write_tiny_clip
from PIL import Image

from stylear.encoders.clip import ClipEncoder, save_clip
from stylear.encoders.preprocess import to_rgb
from stylear.errors import SourceError, WeightsError
from stylear.weights.files import hash_path


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny-clip")


@pytest.fixture(scope="module")
def clip(directory: Path) -> ClipEncoder:
    return ClipEncoder.open(str(directory))


def picture(seed: int = 0, size: tuple[int, int] = (40, 32)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def test_open_says_what_it_opened(clip: ClipEncoder, directory: Path) -> None:
    assert (clip.name, clip.image_size, clip.num_patches, clip.feature_dim) == (
        "tiny-clip",
        32,
        16,
        32,
    )
    assert clip.weights_sha256 == hash_path(directory / "open_clip_model.safetensors")


def test_embeddings_equal_open_clip_used_by_hand(clip: ClipEncoder, directory: Path) -> None:
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{directory}")
    model.eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{directory}")
    image, texts = picture(), ["a red apple", "the cat in a house"]
    with torch.no_grad():
        by_hand = model.encode_image(transform(image)[None], normalize=True)
        texts_by_hand = model.encode_text(tokenizer(texts), normalize=True)
    torch.testing.assert_close(clip.embed_images(clip.preprocess([image])), by_hand)
    torch.testing.assert_close(clip.embed_texts(texts), texts_by_hand)


def test_texts_are_words_between_start_and_end(clip: ClipEncoder) -> None:
    ids = clip._tokenizer(["A red apple"])[0].tolist()
    expected = [2, *(4 + WORDS.index(word) for word in ("a", "red", "apple")), 1]
    assert ids == expected + [0] * (12 - len(expected))
    long = clip._tokenizer(["a " * 50])[0].tolist()
    assert len(long) == 12
    assert long[-1] == 1


def test_preprocess_takes_bytes_pictures_and_arrays_alike(clip: ClipEncoder) -> None:
    image = picture(size=(32, 32))
    pixels = clip.preprocess([png(image), image, np.asarray(image)])
    assert pixels.shape == (3, 3, 32, 32)
    assert torch.equal(pixels[0], pixels[1])
    assert torch.equal(pixels[0], pixels[2])
    red = torch.from_numpy(np.asarray(image).copy())[..., 0] / 255
    torch.testing.assert_close(pixels[0, 0], (red - 0.5) / 0.2)
    assert clip.preprocess([]).shape == (0, 3, 32, 32)


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert to_rgb(clear).getpixel((0, 0)) == (255, 255, 255)


def test_bytes_that_are_no_image_are_a_source_error() -> None:
    with pytest.raises(SourceError, match="do not decode"):
        to_rgb(b"not an image")


def test_patch_features_enter_the_last_block(clip: ClipEncoder) -> None:
    seen = []
    last = clip.model.visual.transformer.resblocks[-1]
    handle = last.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    pixels = clip.preprocess([picture(1), picture(2)])
    clip.embed_images(pixels)
    handle.remove()
    features = clip.patch_features(pixels)
    assert features.shape == (2, 17, 32)
    torch.testing.assert_close(features, seen[0])


def test_patch_features_equal_hidden_states_of_transformers(clip: ClipEncoder) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        hidden_act="gelu",
    )
    theirs = CLIPVisionModel(config).eval()
    ours = clip.model.visual.state_dict()
    prefix = next(iter(theirs.state_dict())).partition("embeddings.")[0]
    renamed = {
        "embeddings.class_embedding": ours["class_embedding"],
        "embeddings.patch_embedding.weight": ours["conv1.weight"],
        "embeddings.position_embedding.weight": ours["positional_embedding"],
    }
    for part in ("weight", "bias"):
        renamed[f"pre_layrnorm.{part}"] = ours[f"ln_pre.{part}"]
        renamed[f"post_layernorm.{part}"] = ours[f"ln_post.{part}"]
        for i in range(3):
            block, layer = f"transformer.resblocks.{i}", f"encoder.layers.{i}"
            for name, rows in zip(
                "qkv", ours[f"{block}.attn.in_proj_{part}"].chunk(3), strict=True
            ):
                renamed[f"{layer}.self_attn.{name}_proj.{part}"] = rows
            for old, new in (
                ("attn.out_proj", "self_attn.out_proj"),
                ("ln_1", "layer_norm1"),
                ("ln_2", "layer_norm2"),
                ("mlp.c_fc", "mlp.fc1"),
                ("mlp.c_proj", "mlp.fc2"),
            ):
                renamed[f"{layer}.{new}.{part}"] = ours[f"{block}.{old}.{part}"]
    result = theirs.load_state_dict({prefix + k: v for k, v in renamed.items()}, strict=False)
    assert not result.unexpected_keys
    assert all("position_ids" in key for key in result.missing_keys)
    pixels = clip.preprocess([picture(3)])
    with torch.no_grad():
        hidden = theirs(pixels, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(clip.patch_features(pixels), hidden, atol=2e-5, rtol=1e-5)


def test_saving_writes_the_same_bytes_in_half_precision(directory: Path, tmp_path: Path) -> None:
    again = write_tiny_clip(tmp_path / "again")
    assert {p.name for p in again.iterdir()} == {
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert hash_path(again) == hash_path(directory)
    from safetensors.torch import load_file

    dtypes = {t.dtype for t in load_file(again / "open_clip_model.safetensors").values()}
    assert dtypes == {torch.float16}


def test_opening_leaves_the_random_state_alone(directory: Path) -> None:
    before = torch.get_rng_state()
    ClipEncoder.open(str(directory))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_architecture_with_a_checkpoint_file(tmp_path: Path) -> None:
    import open_clip

    name = "ViT-S-32-alt"
    tiny = dict(open_clip.get_model_config(name))
    file = tmp_path / "weights.safetensors"
    save_clip(open_clip.CLIP(**tiny), {"model_cfg": tiny}, None, tmp_path / "d")
    (tmp_path / "d" / "open_clip_model.safetensors").rename(file)
    clip = ClipEncoder.open(f"{name}/{file}")
    assert clip.name == f"{name}/weights.safetensors"
    assert clip.embed_texts(["a dog"]).shape == (1, tiny["embed_dim"])


def test_a_tag_is_never_downloaded() -> None:
    with pytest.raises(
        WeightsError, match="ViT-H-14/laion2b_s32b_b79k: expected a checkpoint file"
    ):
        ClipEncoder.open("ViT-H-14/laion2b_s32b_b79k")


def test_a_missing_tokenizer_is_not_looked_up(directory: Path, tmp_path: Path) -> None:
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        (tmp_path / name).write_bytes((directory / name).read_bytes())
    with pytest.raises(WeightsError, match="expected the tokenizer"):
        ClipEncoder.open(str(tmp_path))


def test_weights_of_another_model_are_named(directory: Path, tmp_path: Path) -> None:
    write_tiny_clip(tmp_path)
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["width"] = 48
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"open_clip cannot load it.*size mismatch"):
        ClipEncoder.open(str(tmp_path))


def test_a_cut_off_weights_file_is_named(tmp_path: Path) -> None:
    write_tiny_clip(tmp_path)
    weights = tmp_path / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"open_clip_model\.safetensors"):
        ClipEncoder.open(str(tmp_path))


def test_an_unknown_name_says_what_was_expected() -> None:
    with pytest.raises(WeightsError, match="no-such-clip: expected a model directory"):
        ClipEncoder.open("no-such-clip")


def test_a_transformers_tokenizer_can_be_saved(tmp_path: Path) -> None:
    import open_clip
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(), pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    save_clip(open_clip.CLIP(**CONFIG["model_cfg"]), CONFIG, fast, tmp_path)
    assert ClipEncoder.open(str(tmp_path)).embed_texts(["a cat"]).shape == (1, 24)
