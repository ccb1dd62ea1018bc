"""LoRA changes nothing at first, merges exactly, and its files are PEFT's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from stylear.errors import WeightsError
from stylear.model import lora
from stylear.model.decoder_config import DecoderConfig
from stylear.model.transformer import Decoder

CONFIG = DecoderConfig(
    vocab_size=24,
    hidden_size=16,
    intermediate_size=20,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
)
IDS = [6, 7, 5]


def plain(**changes: int) -> Decoder:
    config = DecoderConfig(**({**vars(CONFIG)} | changes))
    decoder = Decoder(config, IDS)
    decoder.init_weights(0, std=0.3)
    return decoder.eval()


def trained(seed: int = 1, rank: int = 3, alpha: float | None = None) -> Decoder:
    """A decoder whose LoRA is not zero any more."""
    decoder = plain()
    lora.apply_lora(decoder, rank, alpha=alpha)
    generator = torch.Generator().manual_seed(seed)
    for parameter in lora.lora_parameters(decoder):
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return decoder


@torch.no_grad()
def logits(decoder: Decoder) -> torch.Tensor:
    ids = torch.arange(14).view(2, 7)
    return decoder.image_logits(decoder(decoder.embed(ids)))


def test_fresh_lora_changes_nothing_and_only_it_trains() -> None:
    decoder = plain()
    before = logits(decoder)
    lora.apply_lora(decoder, 4)
    assert torch.allclose(logits(decoder), before, atol=1e-6)
    layers = [name for name, _ in lora.lora_layers(decoder)]
    assert len(layers) == 2 * 5 + 1
    assert {"model.layers.1.self_attn.o_proj", "model.layers.0.mlp.down_proj", "lm_head"} < {
        *layers
    }
    trainable = {id(p) for p in decoder.parameters() if p.requires_grad}
    assert trainable == {id(p) for p in lora.lora_parameters(decoder)}
    assert len(trainable) == 22
    with pytest.raises(ValueError, match="has LoRA already"):
        lora.apply_lora(decoder)
    with pytest.raises(ValueError, match="'x_proj'"):
        lora.apply_lora(plain(), targets=["q_proj", "x_proj"])


def test_seven_billion_model_gets_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        decoder = Decoder(DecoderConfig(), list(range(4, 8196)))
    count = 0
    for name, module in decoder.named_modules():
        if isinstance(module, nn.Linear) and name.split(".")[-1] in decoder.lora_targets:
            count += 4 * (module.in_features + module.out_features)
    assert round(count / 1e6, 1) == 6.4  # million, as published


def test_change_is_alpha_over_rank_times_b_a() -> None:
    layer = lora.LoraLinear(nn.Linear(2, 2, bias=False), rank=1, alpha=3.0)
    layer.weight.data = torch.eye(2)
    layer.lora_A.data = torch.tensor([[1.0, 2.0]])
    layer.lora_B.data = torch.tensor([[10.0], [20.0]])
    x = torch.tensor([[1.0, 1.0]])
    expected = torch.tensor([[1.0 + 3 * 10 * 3, 1.0 + 3 * 20 * 3]])
    assert torch.equal(layer(x), expected)
    assert torch.equal(layer.rows(x, torch.tensor([1])), expected[:, 1:])


def test_merged_decoder_equals_the_adapted_one_under_plain_names() -> None:
    decoder = trained(alpha=6.0)
    expected = logits(decoder)
    assert not torch.allclose(expected, logits(plain()), atol=1e-2)
    lora.merge_lora(decoder)
    assert torch.allclose(logits(decoder), expected, atol=1e-4)
    assert decoder.state_dict().keys() == plain().state_dict().keys()
    assert all(p.requires_grad for p in decoder.parameters())


def test_peft_library_reads_what_is_written(tmp_path: Path) -> None:
    from peft import PeftModel

    decoder = trained(alpha=6.0)
    lora.write_peft(decoder, tmp_path, "somewhere")

    class Wrapped(nn.Module):  # PEFT asks for a forward and a config
        def __init__(self) -> None:
            super().__init__()
            base = plain()
            self.model, self.lm_head = base.model, base.lm_head
            self.config = {"model_type": "custom"}

    theirs = PeftModel.from_pretrained(Wrapped(), str(tmp_path)).merge_and_unload()
    lora.merge_lora(decoder)
    ours = decoder.state_dict()
    state = theirs.state_dict()
    assert state.keys() == ours.keys()
    assert all(torch.allclose(state[name], ours[name], atol=1e-5) for name in ours)


def test_peft_files_are_read_back(tmp_path: Path) -> None:
    decoder = trained(alpha=6.0)
    lora.write_peft(decoder, tmp_path, None)
    again = plain()
    lora.read_peft(again, tmp_path)
    assert torch.equal(logits(again), logits(decoder))
    keys = load_file(tmp_path / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.self_attn.k_proj"
    assert keys[f"{name}.lora_A.weight"].shape == (3, 16)
    assert keys[f"{name}.lora_B.weight"].shape == (8, 3)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (3, 6.0)


def test_a_peft_directory_with_a_torch_file_is_read(tmp_path: Path) -> None:
    decoder = trained(alpha=6.0)
    lora.write_peft(decoder, tmp_path, None)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_model.safetensors").unlink()
    again = plain()
    with pytest.raises(WeightsError, match=r"adapter_model\.bin, found neither"):
        lora.read_peft(again, tmp_path)
    torch.save(stored, tmp_path / "adapter_model.bin")
    lora.read_peft(again, tmp_path)
    assert torch.equal(logits(again), logits(decoder))


def test_adapter_of_another_model_is_named(tmp_path: Path) -> None:
    lora.write_peft(trained(), tmp_path, None)
    with pytest.raises(WeightsError, match=r"layers\.0\.mlp\.down_proj: expected 28 inputs"):
        lora.read_peft(plain(intermediate_size=28), tmp_path)
    with pytest.raises(WeightsError, match=r"layers\.1\.mlp\.down_proj.*found no such layer"):
        lora.read_peft(plain(num_hidden_layers=1), tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"use_dora": True}))
    with pytest.raises(WeightsError, match="expected LoRA, found DoRA"):
        lora.read_peft(plain(), tmp_path)
    with pytest.raises(WeightsError, match="other: expected LoRA weights, found none"):
        lora.install_lora(plain(), {}, {}, "other")


@pytest.mark.parametrize(
    "changes",
    [
        {"use_rslora": True},
        {"alpha_pattern": {"layers.1.self_attn.k_proj": 12.0, r".*\.down_proj": 1.0}},
        {"rank_pattern": {"q_proj": 2}, "use_rslora": True},
    ],
)
def test_rslora_and_patterns_scale_as_in_peft(tmp_path: Path, changes: dict[str, object]) -> None:
    from peft import LoraConfig, get_peft_model

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            base = plain()
            self.model, self.lm_head = base.model, base.lm_head
            self.config = {"model_type": "custom"}

        def forward(self) -> None:
            raise NotImplementedError

    config = LoraConfig(
        r=3, lora_alpha=6, target_modules=["q_proj", "k_proj", "down_proj"], **changes
    )
    theirs = get_peft_model(Wrapped(), config)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in theirs.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    theirs.save_pretrained(tmp_path)
    ours = plain()
    lora.read_peft(ours, tmp_path)
    lora.merge_lora(ours)
    expected = theirs.merge_and_unload().state_dict()
    found = ours.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], atol=1e-5) for name in found)


def test_layers_of_their_own_rank_are_written_as_patterns(tmp_path: Path) -> None:
    decoder = plain()
    lora.apply_lora(decoder, 3, ["q_proj"])
    layers = dict(lora.lora_layers(decoder))
    name = "model.layers.1.self_attn.q_proj"
    decoder.set_submodule(name, lora.LoraLinear(layers[name], 2, 8.0))
    for parameter in lora.lora_parameters(decoder):
        parameter.data.normal_(generator=torch.Generator().manual_seed(4))
    lora.write_peft(decoder, tmp_path, None)
    again = plain()
    lora.read_peft(again, tmp_path)
    assert torch.equal(logits(again), logits(decoder))
