"""A Janus directory is written and read back; adapters name their base; what does not fit is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.tiny_clip import write_tiny_clip
from builders.tiny_janus import HIDDEN, VOCABULARY, write_tiny_janus
from builders.tiny_model import write_tiny_base
from safetensors.torch import load_file, save_file

from stylear.errors import UsageError, WeightsError
from stylear.model import lora
from stylear.model.build import attach_style_encoder
from stylear.model.lineage import hash_decoder
from stylear.model.lora_config import LoraConfig
from stylear.model.open import load_model
from stylear.model.released import export_peft, export_released, import_released
from stylear.model.save import save_model
from stylear.model.style_model import StyleModel
from stylear.sampling.context import compute_grid, measure_prompt

SIZES = {"depth": 1, "heads": 2, "dim_head": 8}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_janus(tmp_path_factory.mktemp("janus") / "base")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_clip(tmp_path_factory.mktemp("clips") / "tiny-clip"))


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


def edit(path: Path, part: str | None = None, **changes: object) -> None:
    config = json.loads(path.read_text())
    (config if part is None else config[part]).update(changes)
    path.write_text(json.dumps(config))


def sequence() -> torch.Tensor:
    return torch.cat([torch.arange(60, 68), VOCABULARY + torch.arange(9)])[None]


@torch.no_grad()
def logits(model: StyleModel) -> torch.Tensor:
    return model.decoder.image_logits(model.decoder(model.decoder.embed(sequence())))


def adapted(base: Path, clip: str) -> StyleModel:
    model = attach_style_encoder(load_model(base), clip, 3, seed=5, sizes=SIZES)
    lora.apply_lora(model.decoder, 2)
    for parameter in lora.lora_parameters(model.decoder):
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def test_a_full_model_is_read_by_us_and_by_transformers(base: Path, tmp_path: Path) -> None:
    from transformers import JanusForConditionalGeneration

    model = load_model(base)
    with torch.no_grad():
        model.decoder.generation_head.vision_head.bias.add_(1.5)
    save_model(model, tmp_path / "full", dtype=None)
    again = load_model(tmp_path / "full")
    assert torch.equal(logits(again), logits(model))
    assert not torch.allclose(logits(again), logits(load_model(base)), atol=1)
    vq, expected = again.vq.state_dict(), model.vq.state_dict()
    assert all(torch.equal(vq[key], expected[key]) for key in expected)
    theirs, loading_info = JanusForConditionalGeneration.from_pretrained(
        tmp_path / "full", output_loading_info=True
    )
    unused = ("model.vision_model.", "model.aligner.", "lm_head.")
    assert all(key.startswith(unused) for key in loading_info["missing_keys"])
    assert loading_info["unexpected_keys"] == set()
    text, codes = sequence().split([8, 9], dim=1)
    with torch.no_grad():
        drawn = theirs.prepare_embeddings_for_image_generation(codes - VOCABULARY)
        embeds = torch.cat([theirs.get_input_embeddings()(text), drawn], dim=1)
        hidden = theirs.model.language_model(inputs_embeds=embeds).last_hidden_state
        assert torch.allclose(theirs.model.generation_head(hidden), logits(model), atol=1e-4)


def test_half_precision_changes_no_code(base: Path, tmp_path: Path) -> None:
    model = load_model(base)
    save_model(model, tmp_path / "half")
    stored = load_file(tmp_path / "half" / "model.safetensors")
    assert stored["model.language_model.norm.weight"].dtype == torch.float16
    vq, expected = load_model(tmp_path / "half").vq.state_dict(), model.vq.state_dict()
    assert all(torch.equal(vq[key], expected[key]) for key in expected)


def test_an_adapter_is_small_and_names_its_base(copy: Path, clip: str, tmp_path: Path) -> None:
    model = adapted(copy, clip)
    save_model(model, tmp_path / "run", dtype=None)
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "resampler.safetensors"} < files
    assert "model.safetensors" not in files
    again = load_model(tmp_path / "run")
    assert again.settings == model.settings
    assert again.settings.base == {"model": str(copy), "sha256": hash_decoder(copy)}
    assert again.settings.style_placeholder == "<image_placeholder>"
    assert torch.equal(logits(again), logits(model))
    assert again.resampler is not None
    assert again.clip is not None
    features = again.clip.patch_features(torch.zeros(1, 3, 32, 32))
    assert again.resampler(features).shape == (1, 3, HIDDEN)
    config = json.loads((tmp_path / "run" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(copy)
    path = copy / "model.safetensors"
    save_file(load_file(path) | {"extra": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="base decoder expected sha256"):
        load_model(tmp_path / "run")


@torch.no_grad()
def test_peft_applies_an_adapter_to_transformers_model(
    base: Path, clip: str, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import JanusForConditionalGeneration

    model = adapted(base, clip)
    save_model(model, tmp_path / "run", dtype=None)
    plain = JanusForConditionalGeneration.from_pretrained(base).eval()
    with pytest.warns(FutureWarning):  # peft's, about a name of transformers'
        theirs = PeftModel.from_pretrained(plain, str(tmp_path / "run")).base_model.model
    names = [name for name, _ in theirs.named_modules() if name.endswith("lora_A")]
    assert len(names) == 2 * 5 + 1
    assert not [name for name in names if "vision_model" in name]
    text, codes = sequence().split([8, 9], dim=1)
    drawn = theirs.prepare_embeddings_for_image_generation(codes - VOCABULARY)
    embeds = torch.cat([theirs.get_input_embeddings()(text), drawn], dim=1)
    hidden = theirs.model.language_model(inputs_embeds=embeds).last_hidden_state
    assert torch.allclose(theirs.model.generation_head(hidden), logits(model), atol=1e-4)


def test_lora_on_all_linear_layers_leaves_the_head_over_codes_out(base: Path) -> None:
    decoder = load_model(base).decoder
    lora.apply_lora_config(decoder, LoraConfig(r=2, target_modules="all-linear"))
    names = {name for name, _ in lora.lora_layers(decoder)}
    assert {"generation_head.proj_out", "model.layers.1.mlp.up_proj"} < names
    assert "generation_head.vision_head" not in names


def test_a_merged_adapter_is_a_full_model(base: Path, clip: str, tmp_path: Path) -> None:
    model = adapted(base, clip)
    expected = logits(model)
    lora.merge_lora(model.decoder)
    save_model(model, tmp_path / "merged", dtype=None)
    assert torch.allclose(logits(load_model(tmp_path / "merged")), expected, atol=1e-4)


def test_an_adapter_of_another_family_is_named(base: Path, clip: str, tmp_path: Path) -> None:
    save_model(adapted(base, clip), tmp_path / "run", dtype=None)
    other = tmp_path / "chameleon"
    write_tiny_base(other)
    origin = {"model": str(other), "sha256": hash_decoder(other)}
    edit(tmp_path / "run" / "stylear.json", base=origin)
    with pytest.raises(WeightsError, match=r"generation_head.*found no such layer"):
        load_model(tmp_path / "run")


def test_weights_of_another_family_are_listed(copy: Path, tmp_path: Path) -> None:
    write_tiny_base(tmp_path / "chameleon")
    shutil.copy(tmp_path / "chameleon" / "model.safetensors", copy)
    with pytest.raises(WeightsError, match=r"weights of another model.*found nothing.*more\)"):
        load_model(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.language_model.norm.weight", r"model\.norm\.weight expected 32, found nothing"),
        ("model.generation_head.vision_head.bias", r"vision_head\.bias expected 24, found nothing"),
        (
            "model.vqmodel.quant_conv.bias",
            r"VQ model: .*quant_conv\.bias expected 6, found nothing",
        ),
        ("surplus", r"model\.rope\.odd expected nothing, found 3"),
        ("vqsurplus", r"VQ model: .*decoder\.up\.odd expected nothing, found 3"),
    ],
)
def test_missing_and_surplus_keys_are_named(copy: Path, change: str, message: str) -> None:
    path = copy / "model.safetensors"
    tensors = load_file(path)
    if change == "surplus":
        tensors["model.language_model.rope.odd"] = torch.zeros(3)
    elif change == "vqsurplus":
        tensors["model.vqmodel.decoder.up.odd"] = torch.zeros(3)
    else:
        del tensors[change]
    save_file(tensors, path)
    with pytest.raises(WeightsError, match=message) as caught:
        load_model(copy)
    assert (
        caught.value.hint == "the weights and the config beside them must belong to the same model"
    )


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("text_config", {"model_type": "qwen2"}, "model_type expected 'llama', found 'qwen2'"),
        ("text_config", {"head_dim": 64}, "head_dim expected 8, found 64"),
        (
            "text_config",
            {"hidden_size": "32"},
            "hidden_size expected a positive integer, found '32'",
        ),
        ("text_config", {"num_hidden_layers": 0}, "num_hidden_layers expected a positive integer"),
        ("text_config", {"rope_parameters": "default"}, "rope_parameters expected an object"),
        ("vq_config", {"channel_multiplier": 3}, "expected a list of positive integers, found 3"),
        (
            "vision_config",
            {"patch_size": 0},
            "vision_config: patch_size expected a positive integer",
        ),
        (None, {"vision_config": [1]}, "expected `vision_config` with the settings of that part"),
        ("text_config", {"vocab_size": 200}, "vocab_size expected above the tokenizer's last id"),
        ("text_config", {"hidden_size": 64, "head_dim": None}, "projection_dim expected 64"),
        ("text_config", {"rope_scaling": {"type": "yarn"}, "rope_parameters": None}, "rope_type"),
        (
            "vq_config",
            {"image_token_embed_dim": 16},
            "vq_config: image_token_embed_dim expected 32, found 16",
        ),
        ("vq_config", {"double_latent": True}, "double_latent expected False, found True"),
        ("vq_config", {"hidden_act": "relu"}, "hidden_act expected 'gelu', found 'relu'"),
        ("vq_config", {"num_embeddings": 30}, r"embedding\.weight expected 30x6, found 24x6"),
        (None, {"text_config": None}, "expected `text_config` with the settings of that part"),
        (None, {"vq_config": None}, "expected `vq_config` with the settings of that part"),
        (None, {"model_type": "multi_modality"}, "found 'multi_modality'"),
        (None, {"model_type": None}, "expected one of 'chameleon', 'janus', found None"),
    ],
)
def test_a_wrong_config_is_named(
    copy: Path, part: str | None, changes: dict[str, Any], message: str
) -> None:
    edit(copy / "config.json", part, **changes)
    with pytest.raises(WeightsError, match=message) as caught:
        load_model(copy)
    known = "multi_modality" in str(changes)
    assert "transformers' format" in str(caught.value.hint) if known else caught.value.hint


def test_released_weights_want_a_base_of_their_own_family(
    base: Path, clip: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="model_type expected 'chameleon', found 'janus'"):
        import_released(base, tmp_path, tmp_path / "out")
    save_model(adapted(base, clip), tmp_path / "run", dtype=None)
    with pytest.raises(WeightsError, match="model_type expected 'chameleon', found 'janus'"):
        export_released(tmp_path / "run", tmp_path / "out")
    export = export_peft(tmp_path / "run", tmp_path / "peft", "deepseek-community/Janus-Pro-1B")
    assert (export.lora_layers, export.rank) == (2 * 5 + 1, 2)
    assert not (tmp_path / "out").exists()


def test_a_control_image_stands_within_the_chat_turn(base: Path, clip: str) -> None:
    model = adapted(base, clip)
    codes = torch.arange(16).view(4, 4)
    ids = model.encode_prompt("a dog", control=codes)
    span = model.layout.image_span(codes)
    start = ids.index(span[0])
    assert ids[start : start + len(span)] == span
    assert len(model.layout.null_prompt(ids)) == len(ids)


def test_a_tokenizer_of_another_model_is_named(copy: Path, tmp_path: Path) -> None:
    write_tiny_base(tmp_path / "chameleon")
    shutil.copy(tmp_path / "chameleon" / "tokenizer.json", copy)
    with pytest.raises(WeightsError, match="expected the token <｜begin") as caught:
        load_model(copy)
    assert "published with the model" in str(caught.value.hint)


def test_another_size_than_the_family_s_is_named(base: Path) -> None:
    model = load_model(base)
    assert (model.grid, compute_grid(model, 16)) == ((4, 4), (4, 4))
    with pytest.raises(
        UsageError, match=r"expected 16 pixels, the only size of Janus \(4 x 4"
    ) as caught:
        compute_grid(model, 32)
    assert caught.value.hint == "leave the size out"
    length = measure_prompt(model, "a dog", is_styled=False)
    # <begin_of_image> and the codes but the last are read after the prompt
    assert length.max_tokens == 128 - 16
