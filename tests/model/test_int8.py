"""Weights in 8 bits are close to those they stand for, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stylear.errors import UsageError
from stylear.model.decoder_config import DecoderConfig
from stylear.model.fuse import fuse_decoder
from stylear.model.int8 import (
    Int8Linear,
    count_freed_bytes,
    find_quantization,
    quantize_blocks,
    quantize_decoder,
    quantize_rows,
)
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


def fused_decoder() -> Decoder:
    config = DecoderConfig(
        vocab_size=24,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    decoder = Decoder(config, [6, 7, 5]).eval()
    decoder.init_weights(0, std=0.3)
    fuse_decoder(decoder)
    return decoder


@torch.no_grad()
def test_a_decoder_for_sampling_computes_nearly_the_same_with_and_without_a_cache() -> None:
    decoder = fused_decoder()
    ids = torch.randint(0, 24, (2, 7), generator=torch.Generator().manual_seed(0))
    expected = decoder(decoder.embed(ids))
    assert find_quantization(decoder) is None
    # q, k, v; o; gate, up; down: 32 x (32 + 2 x 16) + 32 x 32 + 3 x 32 x 48 weights of 4 bytes a layer
    assert count_freed_bytes(decoder) == 3 * 2 * (32 * 64 + 32 * 32 + 3 * 32 * 48)
    quantize_decoder(decoder, "int8")
    assert (find_quantization(decoder), count_freed_bytes(decoder)) == ("int8", 0)
    found = decoder(decoder.embed(ids))
    assert 0 < (found - expected).abs().max() < 0.1
    cache = decoder.new_cache(2, 7)
    decoder(decoder.embed(ids[:, :6]), cache)
    last = decoder(decoder.embed(ids[:, 6:]), cache)
    torch.testing.assert_close(last, found[:, 6:], atol=1e-4, rtol=1e-4)


def test_a_decoder_in_8_bits_is_not_saved_and_another_quantization_is_an_error() -> None:
    decoder = fused_decoder()
    with pytest.raises(UsageError, match="--quantize: expected int8, found 'int4'"):
        quantize_decoder(decoder, "int4")
    quantize_decoder(decoder, "int8")
    with pytest.raises(ValueError, match=r"qkv_proj\.weight: 8-bit weights cannot be saved"):
        decoder.state_dict()
