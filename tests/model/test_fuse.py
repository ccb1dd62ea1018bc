"""A decoder fused for sampling computes the same and is saved under the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders.tiny_model import write_tiny_base

from stylear.model import lora
from stylear.model.decoder_config import DecoderConfig
from stylear.model.decoder_layers import multiply
from stylear.model.fuse import FusedAttention, FusedMLP, compile_blocks, fuse_decoder
from stylear.model.open import load_model, open_model
from stylear.model.save import save_model
from stylear.model.transformer import Decoder
from stylear.weights.files import hash_path

SIZES: dict[str, Any] = {
    "vocab_size": 24,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True},
    {"num_key_value_heads": 1, "qk_norm": False},
    {"swin_norm": True, "num_key_value_heads": 2},
]


def random_decoder(seed: int = 0, **changes: Any) -> Decoder:
    """All parameters random, norms and biases too, so that a swapped pair shows."""
    torch.manual_seed(seed)
    decoder = Decoder(DecoderConfig(**SIZES | changes), [6, 7, 5])
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return decoder.eval()


@pytest.mark.parametrize("changes", VARIANTS)
@torch.no_grad()
def test_a_fused_decoder_computes_the_same_hidden_states(changes: dict[str, Any]) -> None:
    decoder = random_decoder(**changes)
    ids = torch.randint(0, 24, (2, 7))
    expected = decoder(decoder.embed(ids))
    fuse_decoder(decoder)
    block = decoder.model.layers[0]
    assert isinstance(block.self_attn, FusedAttention)
    assert isinstance(block.mlp, FusedMLP)
    torch.testing.assert_close(decoder(decoder.embed(ids)), expected, atol=1e-5, rtol=1e-5)
    cache = decoder.new_cache(2, 8)
    steps = [decoder(decoder.embed(part), cache) for part in ids.split([4, 2, 1], dim=1)]
    torch.testing.assert_close(torch.cat(steps, 1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_fused_decoder_has_the_state_dict_of_the_plain_one(changes: dict[str, Any]) -> None:
    decoder = random_decoder(**changes)
    expected = {name: value.clone() for name, value in decoder.state_dict().items()}
    fuse_decoder(decoder)
    fuse_decoder(decoder)
    found = decoder.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert not any(parameter.requires_grad for parameter in decoder.parameters())


@torch.no_grad()
def test_lora_is_merged_before_projections_are_fused() -> None:
    decoder = random_decoder()
    lora.apply_lora(decoder, 2)
    for parameter in lora.lora_parameters(decoder):
        torch.nn.init.normal_(parameter, std=0.3)
    ids = torch.randint(0, 24, (2, 7))
    expected = decoder(decoder.embed(ids))
    logits = decoder.image_logits(expected)
    fuse_decoder(decoder)
    assert list(lora.lora_layers(decoder)) == []
    found = decoder(decoder.embed(ids))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(decoder.image_logits(found), logits, atol=1e-3, rtol=1e-3)


def test_a_model_opened_for_sampling_is_saved_as_it_was(tmp_path: Path) -> None:
    model = write_tiny_base(tmp_path / "tiny")
    opened = open_model(str(tmp_path / "tiny"), device="cpu")
    assert isinstance(opened.decoder.model.layers[1].self_attn, FusedAttention)
    save_model(opened, tmp_path / "saved")
    assert hash_path(tmp_path / "saved") == hash_path(tmp_path / "tiny")
    again = load_model(tmp_path / "saved").decoder.state_dict()
    assert all(torch.equal(again[name], v) for name, v in model.decoder.state_dict().items())


@pytest.mark.parametrize("tokens", [1, 2, 8, 9])
def test_a_few_tokens_times_a_matrix_is_a_linear_layer(tokens: int) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(1, tokens, 16), torch.randn(24, 16), torch.randn(24)
    with torch.no_grad():
        for offset in (None, bias):
            expected = torch.nn.functional.linear(x, weight, offset)
            torch.testing.assert_close(multiply(x, weight, offset), expected)


def test_layers_are_traced_whole_and_share_what_was_compiled() -> None:
    decoder = random_decoder()
    fuse_decoder(decoder)
    ids = torch.randint(0, 24, (2, 3))
    with torch.no_grad():
        expected = decoder(decoder.embed(ids))
        graphs: list[int] = []

        def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
            graphs.append(len(graph.graph.nodes))
            return graph.forward

        compile_blocks(decoder, backend=backend, fullgraph=True)
        torch.testing.assert_close(decoder(decoder.embed(ids)), expected)
    assert len(graphs) == 2  # before and after attention, for both layers
