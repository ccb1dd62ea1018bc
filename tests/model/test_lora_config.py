"""PEFT's options choose the same layers, ranks and scales here as in PEFT, and survive a round trip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stylear.errors import WeightsError
from stylear.model import lora
from stylear.model.decoder_config import DecoderConfig
from stylear.model.lora_config import LoraConfig
from stylear.model.transformer import Decoder

CONFIG = DecoderConfig(
    vocab_size=24,
    hidden_size=16,
    intermediate_size=20,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
)


def plain() -> Decoder:
    decoder = Decoder(CONFIG, [6, 7, 5])
    decoder.init_weights(0, std=0.3)
    return decoder


class Wrapped(nn.Module):
    """PEFT asks for a forward and a config."""

    def __init__(self) -> None:
        super().__init__()
        base = plain()
        self.model, self.lm_head = base.model, base.lm_head
        self.config = {"model_type": "custom"}

    def forward(self) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "mlp.up_proj"]},
        {"target_modules": r".*\.(1|2)\..*_proj", "exclude_modules": ["down_proj"]},
        {"target_modules": ["v_proj", "lm_head"], "layers_to_transform": [1]},
        {"target_modules": ["k_proj"], "layers_to_transform": 0, "use_rslora": True},
        {
            "target_modules": ["q_proj", "o_proj"],
            "rank_pattern": {"o_proj": 5, "layers.1.self_attn.q_proj": 2},
            "alpha_pattern": {"o_proj": 20},
            "lora_dropout": 0.25,
        },
    ],
)
def test_layers_ranks_and_scales_are_those_of_peft(options: dict[str, Any], tmp_path: Path) -> None:
    import peft

    theirs = peft.get_peft_model(Wrapped(), peft.LoraConfig(r=3, lora_alpha=6, **options))
    theirs.peft_config["default"].save_pretrained(str(tmp_path))
    expected = {
        name.removeprefix("base_model.model."): (
            module.r["default"],
            module.scaling["default"],
            getattr(module.lora_dropout["default"], "p", 0.0),
        )
        for name, module in theirs.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    }
    path = tmp_path / "adapter_config.json"
    decoder = plain()
    lora.apply_lora_config(decoder, LoraConfig.from_peft(json.loads(path.read_text()), path))
    found = {
        name: (layer.rank, pytest.approx(layer.scale), layer.dropout)
        for name, layer in lora.lora_layers(decoder)
    }
    assert len(found) >= 1
    assert found == expected


def test_all_linear_layers_are_those_of_the_blocks() -> None:
    decoder = plain()
    lora.apply_lora_config(decoder, LoraConfig(target_modules="all-linear"))
    names = [name for name, _ in lora.lora_layers(decoder)]
    assert len(names) == 2 * 7
    assert "lm_head" not in names


def test_written_options_are_read_back(tmp_path: Path) -> None:
    decoder = plain()
    config = LoraConfig(
        r=3, lora_alpha=6.0, use_rslora=True, lora_dropout=0.25, rank_pattern={"o_proj": 2}
    )
    lora.apply_lora_config(decoder, config)
    lora.write_peft(decoder, tmp_path, None)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (written["r"], written["lora_alpha"]) == (3, 6.0)
    assert (written["use_rslora"], written["lora_dropout"]) == (True, 0.25)
    again = plain()
    lora.read_peft(again, tmp_path)
    layers = [dict(lora.lora_layers(each)) for each in (decoder, again)]
    assert layers[0].keys() == layers[1].keys()
    for name, layer in layers[0].items():
        other = layers[1][name]
        assert (other.rank, other.alpha, other.scale) == (layer.rank, layer.alpha, layer.scale)
        assert (other.use_rslora, other.dropout) == (True, 0.25)


def test_dropout_acts_in_training_alone() -> None:
    layer = lora.LoraLinear(nn.Linear(64, 1, bias=False), rank=1, alpha=1.0)
    layer.weight.data.zero_()
    layer.lora_A.data.fill_(1.0)
    layer.lora_B.data.fill_(1.0)
    layer.dropout = 0.5
    x = torch.ones(1, 64)
    torch.manual_seed(0)
    trained = layer(x).item()
    assert trained % 2 == 0  # kept inputs count twice
    assert trained != 64
    layer.eval()
    assert layer(x).item() == 64


def test_options_that_are_more_than_lora_are_refused() -> None:
    for key, value in {"lora_bias": True, "layer_replication": [[0, 1]]}.items():
        with pytest.raises(WeightsError, match=f"adapter: {key} expected unset, found") as raised:
            LoraConfig.from_peft({"r": 2, key: value}, "adapter")
        assert raised.value.hint == "merge the adapter into its base with peft and use that"
    with pytest.raises(ValueError, match="no layer matches 'nothing'"):
        lora.apply_lora_config(plain(), LoraConfig(target_modules="nothing"))
