"""Weights in 8 bit: without torchao an error that names it, with it the layers and nothing else."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from stylear.errors import UsageError
from stylear.model.decoder_config import DecoderConfig
from stylear.model.fuse import fuse_decoder
from stylear.model.quantize import count_freed_bytes, find_quantization, quantize_decoder
from stylear.model.transformer import Decoder

CONFIG = DecoderConfig(
    vocab_size=24,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)


def fused_decoder() -> Decoder:
    decoder = Decoder(CONFIG, [6, 7, 5]).eval()
    decoder.init_weights(0, std=0.3)
    fuse_decoder(decoder)
    return decoder


def test_a_missing_torchao_and_another_quantization_are_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder = fused_decoder()
    with pytest.raises(UsageError, match="--quantize: expected int8, found 'int4'"):
        quantize_decoder(decoder, "int4")
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(UsageError, match="expected the package torchao, found none") as caught:
        quantize_decoder(decoder, "int8")
    assert caught.value.hint == "pip install torchao, or leave --quantize out"
    assert find_quantization(decoder) is None


def test_the_matrices_of_the_layers_are_given_to_torchao(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    module = ModuleType("torchao.quantization")
    vars(module).update(
        Int8WeightOnlyConfig=lambda: SimpleNamespace(name="int8"),
        quantize_=lambda layers, config: given.append((layers, config.name)),
    )
    monkeypatch.setitem(sys.modules, "torchao", ModuleType("torchao"))
    monkeypatch.setitem(sys.modules, "torchao.quantization", module)
    decoder = fused_decoder()
    quantize_decoder(decoder, "int8")
    ((layers, name),) = given
    assert name == "int8"
    assert layers is decoder.model.layers
    linear = [part for part in layers.modules() if isinstance(part, nn.Linear)]
    assert len(linear) == 2 * 4  # qkv, o, gate_up, down
    # 32 x (32 + 2 x 16) + 32 x 32 + 3 x 32 x 48 weights of 4 bytes a layer, and small norms of the heads
    weights = 2 * (32 * 64 + 32 * 32 + 3 * 32 * 48)
    assert 3 * weights <= count_freed_bytes(decoder) <= 3 * weights + 3 * 2 * 2 * 6 * 8


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="needs torchao")
@torch.no_grad()
def test_quantized_layers_compute_nearly_the_same() -> None:
    decoder = fused_decoder()
    ids = torch.randint(0, 24, (2, 7))
    expected = decoder(decoder.embed(ids))
    quantize_decoder(decoder, "int8")
    assert find_quantization(decoder) == "int8"
    assert count_freed_bytes(decoder) == 0
    found = decoder(decoder.embed(ids))
    assert (found - expected).abs().max() < 0.1
    assert (found - expected).abs().max() > 0
    cache = decoder.new_cache(2, 7)
    decoder(decoder.embed(ids[:, :6]), cache)
    torch.testing.assert_close(
        decoder(decoder.embed(ids[:, 6:]), cache), found[:, 6:], atol=1e-4, rtol=1e-4
    )
