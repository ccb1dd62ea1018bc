"""A model directory is a Chameleon checkpoint: written whole, read back equal, errors by name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders.tiny_clip import write_tiny_clip
from safetensors.torch import load_file, save_file

from stylear.errors import StorageError, WeightsError
from stylear.model import lora
from stylear.model.build import attach_style_encoder, new_model
from stylear.model.decoder_config import DecoderConfig
from stylear.model.lineage import describe_lineage
from stylear.model.open import load_model
from stylear.model.save import save_model
from stylear.model.style_model import StyleModel
from stylear.model.tokenizer import build_tokenizer
from stylear.model.vq import VQConfig, VQModel
from stylear.weights import files as weights
from stylear.weights import names

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2}
VQ = VQConfig(
    embed_dim=4,
    num_embeddings=6,
    z_channels=4,
    resolution=16,
    base_channels=4,
    channel_multiplier=(1, 1),
    num_res_blocks=1,
    norm_groups=2,
    patch=2,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "base"
    tokenizer = build_tokenizer(["a red apple", "a dog"] * 3, 6, [2], text_vocabulary=280)
    torch.manual_seed(0)
    new_model(directory, tokenizer, DecoderConfig(**SIZES, **HEADS), VQModel(VQ), seed=3)
    return directory


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_clip(tmp_path_factory.mktemp("clips") / "tiny-clip"))


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


@torch.no_grad()
def logits(model: StyleModel) -> torch.Tensor:
    ids = torch.tensor([model.encode_prompt("a red apple", style=False)])
    return model.decoder.image_logits(model.decoder(model.decoder.embed(ids)))


def styled(base: Path, clip: str) -> StyleModel:
    sizes = {"dim": 8, "depth": 1, "heads": 2, "dim_head": 64, "ff_mult": 2}
    return attach_style_encoder(load_model(base), clip, 2, seed=5, sizes=sizes)


def test_fresh_model_is_a_base_model_in_the_chameleon_layout(base: Path) -> None:
    model = load_model(base)
    assert (model.name, model.grid, model.num_style_tokens) == ("base", (4, 4), 0)
    assert (model.clip, model.resampler) == (None, None)
    assert model.layout.num_codes == 6
    assert not model.decoder.training
    names = sorted(path.name for path in base.iterdir())
    assert names == [
        "config.json",
        "model.safetensors",
        "stylear.json",
        "tokenizer.json",
        "vqgan.safetensors",
    ]
    stored = load_file(base / "model.safetensors")
    assert stored["model.layers.1.self_attn.q_norm.weight"].dtype == torch.float16
    with pytest.raises(WeightsError, match="has no style encoder"):
        model.style_features([])


def test_transformers_reads_the_config_and_every_decoder_weight(base: Path) -> None:
    from transformers import ChameleonConfig, ChameleonForConditionalGeneration

    model = load_model(base)
    config = ChameleonConfig.from_pretrained(base)
    config.vq_config.base_channels = 32  # theirs has 32 groups in every norm
    config.vocabulary_map = model.layout.vocabulary
    theirs = ChameleonForConditionalGeneration(config).eval()
    result = theirs.load_state_dict(weights.read_tensors(base / "model.safetensors"), strict=False)
    assert result.unexpected_keys == []
    assert all(key.startswith("model.vqmodel.") for key in result.missing_keys)
    ids = torch.randint(0, config.vocab_size, (1, 9))
    with torch.no_grad():
        expected = theirs.model(ids).last_hidden_state
        assert torch.allclose(model.decoder(model.decoder.embed(ids)), expected, atol=1e-5)


def test_saving_a_loaded_model_gives_the_same_bytes(base: Path, tmp_path: Path) -> None:
    save_model(load_model(base), tmp_path / "again")
    files = sorted(p.name for p in base.iterdir())
    assert files == sorted(p.name for p in (tmp_path / "again").iterdir())
    assert all((base / f).read_bytes() == (tmp_path / "again" / f).read_bytes() for f in files)


def test_style_part_is_written_and_read_back(base: Path, clip: str, tmp_path: Path) -> None:
    model = styled(base, clip)
    assert model.resampler is not None
    assert model.settings.base == {
        "model": str(base),
        "sha256": weights.hash_path(base / "model.safetensors"),
    }
    save_model(model, tmp_path / "run", dtype=None)
    again = load_model(tmp_path / "run")
    assert again.settings == model.settings
    assert again.clip is not None
    assert again.resampler is not None
    features = again.clip.patch_features(torch.zeros(1, 3, 32, 32))
    assert torch.equal(again.resampler(features), model.resampler(features))
    assert again.resampler(features).shape == (1, 2, 16)
    ids = again.encode_prompt("a dog")
    assert ids.count(again.layout.style_placeholder or -1) == 2
    assert load_model(tmp_path / "run", with_clip=False).clip is None


def test_adapter_is_small_and_needs_its_base(copy: Path, clip: str, tmp_path: Path) -> None:
    model = styled(copy, clip)
    lora.apply_lora(model.decoder, 2)
    for parameter in lora.lora_parameters(model.decoder):
        torch.nn.init.normal_(parameter, std=0.3)
    save_model(model, tmp_path / "run", dtype=None)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "resampler.safetensors"} < names
    assert not names & {"model.safetensors", "vqgan.safetensors"}
    again = load_model(tmp_path / "run")
    assert torch.equal(logits(again), logits(model))
    assert not torch.allclose(logits(again), logits(load_model(copy)), atol=1e-3)
    assert describe_lineage(again) == describe_lineage(load_model(copy))
    path = copy / "model.safetensors"
    save_file(load_file(path) | {"lm_head.weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="base decoder expected sha256"):
        load_model(tmp_path / "run")
    shutil.rmtree(copy)
    with pytest.raises(WeightsError, match="expected a model directory"):
        load_model(tmp_path / "run")


def test_sharded_weights_are_one_model(copy: Path) -> None:
    expected = logits(load_model(copy))
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for part, keys in parts.items():
        save_file({key: tensors[key] for key in keys}, copy / part)
    index = {"weight_map": {key: part for part, keys in parts.items() for key in keys}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert torch.equal(logits(load_model(copy)), expected)
    (copy / "model-2.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"beside it, missing model-2\.safetensors"):
        load_model(copy)


@pytest.mark.parametrize("prefix", ["module.", "model."])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_training_checkpoint_is_a_model_too(copy: Path, prefix: str, file: str) -> None:
    expected = logits(load_model(copy))
    stored = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save({"state_dict": {prefix + key: value for key, value in stored.items()}}, copy / file)
    codes = load_file(copy / "vqgan.safetensors")
    (copy / "vqgan.safetensors").unlink()
    torch.save({prefix + key: value for key, value in codes.items()}, copy / "vqgan.ckpt")
    assert torch.equal(logits(load_model(copy)), expected)


def test_the_hash_of_sharded_weights_is_that_of_the_shards(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors\.index\.json, found neither"):
        load_model(copy)
    save_file(tensors, copy / "one.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, "one.safetensors")}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    first = describe_lineage(load_model(copy))["sha256"]
    save_file(
        {**tensors, "lm_head.weight": tensors["lm_head.weight"] + 1}, copy / "one.safetensors"
    )
    assert describe_lineage(load_model(copy))["sha256"] != first


def test_model_parallel_head_norms_are_read(copy: Path) -> None:
    path = copy / "model.safetensors"
    tensors = load_file(path)
    expected = logits(load_model(copy))
    for name in [n for n in tensors if "_norm." in n and "self_attn" in n]:
        tensors[name] = tensors[name][:1].clone()
    save_file(tensors, path)
    assert torch.equal(logits(load_model(copy)), expected)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_checkpoint_of_another_model_is_named(copy: Path, tmp_path: Path) -> None:
    edit(copy / "config.json", intermediate_size=32)
    with pytest.raises(WeightsError, match=r"gate_proj\.weight expected 32x16, found 24x16"):
        load_model(copy)
    edit(copy / "config.json", intermediate_size=24, vocab_size=100)
    with pytest.raises(WeightsError, match="vocab_size expected above"):
        load_model(copy)
    edit(copy / "config.json", model_type="llama")
    with pytest.raises(WeightsError, match="one of 'chameleon', 'janus', found 'llama'"):
        load_model(copy)
    edit(copy / "config.json", model_type="chameleon")
    edit(copy / "stylear.json", colour="red")
    with pytest.raises(WeightsError, match="unknown setting 'colour'"):
        load_model(copy)
    with pytest.raises(WeightsError, match=r"config\.json: expected this file"):
        load_model(tmp_path)
    with pytest.raises(WeightsError, match="no-such-model: expected a model directory or one of"):
        load_model("no-such-model")


def test_codes_of_vq_and_vocabulary_must_agree(copy: Path) -> None:
    torch.manual_seed(0)
    VQModel(VQConfig(**(vars(VQ) | {"num_embeddings": 5}))).save_pretrained(copy)
    with pytest.raises(WeightsError, match="found 5 and 6"):
        load_model(copy)


def test_save_replaces_a_model_but_nothing_else(base: Path, tmp_path: Path) -> None:
    model = load_model(base)
    target = tmp_path / "out"
    save_model(model, target)
    (target / "left-over.txt").write_text("x")
    save_model(model, target)
    assert not (target / "left-over.txt").exists()
    other = tmp_path / "photos"
    other.mkdir()
    (other / "photo.png").write_text("x")
    with pytest.raises(
        StorageError, match="photos: expected an empty directory or a model directory"
    ):
        save_model(model, other)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "photos"]


def test_interrupted_save_leaves_the_old_model(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    save_model(load_model(base), target)
    before = {p.name: p.read_bytes() for p in target.iterdir()}
    model = load_model(base)
    model.decoder.init_weights(99)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stylear.model.families.chameleon.Chameleon.write_weights", fail)
    with pytest.raises(OSError, match="No space"):
        save_model(model, target)
    assert {p.name: p.read_bytes() for p in target.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_packaged_vq_model_is_pointed_to_and_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "MINI_MODELS", tmp_path / "packaged")
    torch.manual_seed(0)
    vq = VQModel(VQ)
    vq.save_pretrained(tmp_path / "packaged" / "some-vq")
    tokenizer = build_tokenizer(["a red apple"], 6, [2], text_vocabulary=280)
    model = new_model(tmp_path / "model", tokenizer, DecoderConfig(**SIZES, **HEADS), "some-vq")
    assert not list((tmp_path / "model").glob("vqgan.*"))
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    codes = load_model(tmp_path / "model").vq.encode(pixels)
    assert torch.equal(codes, VQModel.from_pretrained(tmp_path / "packaged/some-vq").encode(pixels))
    assert model.config["vq_model"] == "some-vq"


def test_a_model_whose_packaged_tokenizer_has_changed_says_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "MINI_MODELS", tmp_path / "packaged")
    VQModel(VQ).save_pretrained(tmp_path / "packaged" / "some-vq")
    tokenizer = build_tokenizer(["a red apple"], 6, [2], text_vocabulary=280)
    new_model(tmp_path / "model", tokenizer, DecoderConfig(**SIZES, **HEADS), "some-vq")
    other = replace(VQ, base_channels=2 * VQ.base_channels)
    VQModel(other).save_pretrained(tmp_path / "packaged" / "some-vq")
    with pytest.raises(WeightsError, match="another some-vq: base_channels expected") as raised:
        load_model(tmp_path / "model")
    assert "train it again" in str(raised.value.hint)
