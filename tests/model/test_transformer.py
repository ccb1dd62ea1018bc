"""The decoder is Chameleon's, its cache changes nothing, and padding is invisible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ChameleonConfig, ChameleonForConditionalGeneration

from stylear.errors import WeightsError
from stylear.model.decoder_config import DecoderConfig
from stylear.model.decoder_layers import QUERIES, attend
from stylear.model.transformer import Decoder, expand_head_norms
from stylear.weights import files as weights

NAMES = {"<pad>": 0, "<s>": 1, "<image>": 2, "IMGIMGCZ": 5, "IMGIMGAZ": 6, "IMGIMGBZ": 7, "a": 8}
IMAGE_IDS = [6, 7, 5]
SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def theirs(**changes: Any) -> ChameleonForConditionalGeneration:
    torch.manual_seed(0)
    vq = {"embed_dim": 4, "num_embeddings": 3, "latent_channels": 4, "base_channels": 32}
    vq |= {"channel_multiplier": [1], "num_res_blocks": 1, "resolution": 8}
    config = ChameleonConfig(**SIZES, vocabulary_map=NAMES, vq_config=vq, **changes)
    model = ChameleonForConditionalGeneration(config).eval()
    for parameter in model.model.layers.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.nn.init.normal_(model.lm_head.weight, std=0.3)
    return model


def small(seed: int = 0, image_ids: list[int] | None = None, **changes: Any) -> Decoder:
    decoder = Decoder(DecoderConfig(**(SIZES | changes)), image_ids or IMAGE_IDS)
    decoder.init_weights(seed, std=0.3)
    return decoder.eval()


@pytest.mark.parametrize("swin_norm", [False, True])
def test_hidden_states_and_image_logits_equal_transformers(tmp_path: Path, swin_norm: bool) -> None:
    reference = theirs(swin_norm=swin_norm)
    reference.save_pretrained(tmp_path)
    config = DecoderConfig.from_dict(weights.read_json(tmp_path / "config.json"))
    tensors = weights.read_tensors(tmp_path / "model.safetensors")
    kept = {k: v for k, v in tensors.items() if not k.startswith("model.vqmodel.")}
    with torch.device("meta"):
        decoder = Decoder(config, IMAGE_IDS)
    weights.load_into(decoder, kept, what="tiny")
    decoder.eval()
    ids = torch.randint(0, 32, (2, 11))
    with torch.no_grad():
        expected = reference.model(ids).last_hidden_state
        hidden = decoder(decoder.embed(ids))
        rows = reference.lm_head(expected)[..., IMAGE_IDS]
    assert torch.allclose(hidden, expected, atol=1e-5)
    assert torch.allclose(decoder.image_logits(hidden), rows, atol=1e-5)


@torch.no_grad()
def test_cached_steps_equal_one_pass() -> None:
    decoder = small()
    ids = torch.randint(0, 32, (3, 10))
    whole = decoder(decoder.embed(ids))
    for attended in (12, None):  # all slots, or those in use
        cache = decoder.new_cache(3, 12)
        parts = []
        used = 0
        for part in ids.split([4, 1, 3, 1, 1], dim=1):
            used += part.shape[1]
            cache.attended = attended or used
            parts.append(decoder(decoder.embed(part), cache))
        assert cache.lengths.tolist() == [10, 10, 10]
        assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)
    cache.attended = 13
    with pytest.raises(ValueError, match="12 slots, needed 13"):
        decoder(decoder.embed(ids[:, :3]), cache)


@torch.no_grad()
def test_rows_of_different_lengths_in_a_cached_batch_equal_rows_alone() -> None:
    decoder = small()
    long, short = torch.randint(0, 32, (1, 7)), torch.randint(0, 32, (1, 3))
    steps = torch.randint(0, 32, (2, 3))
    prompt = torch.cat([long, torch.cat([short, torch.zeros(1, 4, dtype=torch.long)], 1)])
    cache = decoder.new_cache(2, 10)
    decoder(decoder.embed(prompt), cache)
    cache.lengths.copy_(torch.tensor([7, 3]))
    batch = [decoder(decoder.embed(steps[:, i : i + 1]), cache) for i in range(3)]
    assert cache.lengths.tolist() == [10, 6]
    for row, ids in enumerate([long, short]):
        alone = decoder(decoder.embed(torch.cat([ids, steps[row : row + 1]], 1)))[:, -3:]
        assert torch.allclose(torch.cat(batch, 1)[row : row + 1], alone, atol=1e-5)


@torch.no_grad()
def test_right_padding_changes_nothing_before_it() -> None:
    decoder = small()
    ids = torch.randint(0, 32, (1, 6))
    padded = torch.cat([ids, torch.zeros(1, 3, dtype=torch.long)], 1)
    alone = decoder(decoder.embed(ids))
    assert torch.allclose(decoder(decoder.embed(padded))[:, :6], alone, atol=1e-6)


@pytest.mark.parametrize("image_ids", [[6, 7, 5], [5, 6, 7], [9, 3, 20]])
@torch.no_grad()
def test_image_logits_are_rows_of_the_full_logits_ordered_by_code(image_ids: list[int]) -> None:
    decoder = small(image_ids=image_ids)
    hidden = torch.randn(2, 4, 32)
    expected = decoder.lm_head(hidden)[..., image_ids]
    assert torch.allclose(decoder.image_logits(hidden), expected, atol=1e-6)
    full = torch.full((2, 4, 32), float("-inf"))
    full[..., image_ids] = expected
    assert torch.allclose(
        decoder.image_logits(hidden).softmax(-1), full.softmax(-1)[..., image_ids]
    )


def test_gradient_checkpointing_changes_no_gradient() -> None:
    ids = torch.randint(0, 32, (2, 6))
    gradients = []
    for every in (0, 1, 2):
        decoder = small().train()
        decoder.checkpoint_every = every
        decoder.image_logits(decoder(decoder.embed(ids))).square().sum().backward()
        gradients.append([p.grad for p in decoder.parameters()])
    pairs = list(zip(*gradients, strict=True))
    assert len(pairs) > 20
    for plain, *checkpointed in pairs:
        assert all(torch.allclose(plain, other, rtol=1e-4, atol=1e-6) for other in checkpointed)


def test_head_norms_of_every_stored_shape_become_one_row_a_head() -> None:
    config = DecoderConfig(**SIZES)
    rows = torch.arange(16.0).view(2, 8)
    q, k = "model.layers.0.self_attn.q_norm.weight", "model.layers.0.self_attn.k_norm.bias"
    norms = expand_head_norms({q: rows, k: rows[0], "model.norm.weight": rows[0]}, config)
    assert torch.equal(norms[q], rows[[0, 0, 1, 1]])
    assert torch.equal(norms[k], rows[[0, 0]])
    assert norms["model.norm.weight"].shape == (8,)
    full = torch.randn(4, 8)
    assert torch.equal(expand_head_norms({q: full}, config)[q], full)


def test_seed_alone_decides_fresh_weights() -> None:
    one, two, other = (small(seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])


def test_config_of_another_architecture_is_named() -> None:
    with pytest.raises(WeightsError, match="hidden_act expected 'silu', found 'gelu'"):
        DecoderConfig.from_dict({"hidden_act": "gelu"})
    with pytest.raises(WeightsError, match="rope_type expected 'default', found 'yarn'"):
        DecoderConfig.from_dict({"model_type": "chameleon", "rope_scaling": {"type": "yarn"}})
    config = DecoderConfig(**SIZES, rope_theta=500.0)
    assert DecoderConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(("groups", "tokens"), [(2, 9), (4, 9), (2, 2 * QUERIES + 7)])
def test_training_in_bf16_on_a_cpu_gives_the_fused_attention(groups: int, tokens: int) -> None:
    torch.manual_seed(0)
    shapes = [(3, 4, tokens, 8), (3, groups, tokens, 8), (3, groups, tokens, 8)]
    q, k, v = (torch.randn(shape).requires_grad_() for shape in shapes)
    plain = attend(q, k, v.bfloat16())
    fused = attend(q, k, v)
    assert plain.dtype == torch.bfloat16
    torch.testing.assert_close(plain.float(), fused, atol=0.02, rtol=0.02)
    found = torch.autograd.grad(plain.float().sum(), [q, k, v])
    expected = torch.autograd.grad(fused.sum(), [q, k, v])
    for ours, theirs_ in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs_, atol=0.05, rtol=0.05)
