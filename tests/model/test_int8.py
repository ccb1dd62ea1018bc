"""Weights in 8 bits are close to those they stand for, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stylear.model.decoder_config import DecoderConfig
from stylear.model.int8 import Int8Linear, quantize_blocks, quantize_rows
from stylear.model.lora import apply_lora, lora_layers
from stylear.model.transformer import Decoder


def test_a_row_is_scaled_by_its_largest_weight() -> None:
    integers, scales = quantize_rows(torch.tensor([[1.27, -0.635, 0.01], [0.0, 0.0, 0.0]]))
    assert integers.tolist() == [[127, -64, 1], [0, 0, 0]]
    assert scales[0].item() == pytest.approx(0.01)


def test_products_and_gradients_are_those_of_the_rounded_weight() -> None:
    torch.manual_seed(0)
    base = nn.Linear(8, 4)
    layer = Int8Linear(base)
    rounded = layer.weight * layer.scales[:, None]
    assert (rounded - base.weight).abs().max() <= layer.scales.max() / 2 + 1e-7
    x = torch.randn(3, 8, requires_grad=True)
    expected = nn.functional.linear(x, rounded, base.bias)
    torch.testing.assert_close(layer(x), expected)
    (ours,) = torch.autograd.grad(layer(x).square().sum(), x)
    (theirs,) = torch.autograd.grad(expected.square().sum(), x)
    torch.testing.assert_close(ours, theirs)


def test_blocks_take_a_quarter_of_fp32_and_lora_trains_on_them() -> None:
    config = DecoderConfig(
        vocab_size=24,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    decoder = Decoder(config, [6, 7, 5])
    decoder.init_weights(0, std=0.2)
    apply_lora(decoder, 2)
    embeds = decoder.embed(torch.arange(10).view(2, 5))
    before = sum(p.nbytes for p in decoder.model.layers.parameters() if p.ndim == 2)
    with torch.no_grad():
        exact = decoder.image_logits(decoder(embeds))
    quantize_blocks(decoder)
    quantize_blocks(decoder)  # a second time changes nothing
    after = sum(p.nbytes for p in decoder.model.layers.parameters() if p.ndim == 2)
    assert after < 0.35 * before
    logits = decoder.image_logits(decoder(embeds))
    assert (logits - exact).abs().max() < 0.05 * exact.abs().max()
    logits.square().sum().backward()
    assert len(list(lora_layers(decoder))) == 2 * 5 + 1
    for _, layer in lora_layers(decoder):
        assert layer.lora_B.grad is not None
        assert layer.lora_B.grad.abs().sum() > 0
