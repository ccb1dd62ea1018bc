"""The loop that trains the mini decoders: what it computes, and that it resumes exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stylear.mini.packing import TokenPacker
from stylear.mini.pretraining import (
    PackedBatch,
    StyleInput,
    code_loss,
    corrupt_codes,
    rate_scale,
    train,
)
from stylear.model.decoder_config import DecoderConfig
from stylear.model.families.chameleon import ChameleonLayout
from stylear.model.tokenizer import build_tokenizer
from stylear.model.transformer import Decoder

SIDE, STEPS = 4, 6


@pytest.fixture(scope="module")
def layout() -> ChameleonLayout:
    return ChameleonLayout(build_tokenizer(["a cat", "a dog"], 16, (SIDE // 2,)))


def tiny_decoder(layout: ChameleonLayout) -> Decoder:
    config = DecoderConfig(
        vocab_size=max(layout.vocabulary.values()) + 1, hidden_size=32, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    decoder = Decoder(config, layout.image_token_ids)
    decoder.init_weights(0)
    return decoder


def batch_of(layout: ChameleonLayout, generator: torch.Generator) -> PackedBatch:
    packer = TokenPacker(layout, [layout.encode_prompt(t) for t in ("a cat", "a dog")], SIDE)
    codes = torch.randint(16, (4, SIDE * SIDE), generator=generator)
    prompts = torch.randint(2, (4,), generator=generator)
    ids, columns = packer.pack(prompts, codes, torch.tensor([False, False, False, True]))
    return PackedBatch(ids, columns, codes)


def test_the_loss_is_the_cross_entropy_of_each_code_after_the_codes_before(
    layout: ChameleonLayout,
) -> None:
    decoder = tiny_decoder(layout)
    batch = batch_of(layout, torch.Generator().manual_seed(1))
    hidden = decoder(decoder.embed(batch.ids))
    losses = [
        F.cross_entropy(decoder.image_logits(hidden[row, column])[None], code[None])
        for row in range(4)
        for column, code in zip(batch.columns[row], batch.codes[row], strict=True)
    ]
    assert code_loss(decoder, None, batch).item() == pytest.approx(
        torch.stack(losses).mean().item(), rel=1e-5
    )


def test_style_tokens_reach_only_the_rows_that_are_styled(layout: ChameleonLayout) -> None:
    class Resampler(torch.nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return features

    decoder = tiny_decoder(layout)
    batch = batch_of(layout, torch.Generator().manual_seed(1))
    for styled, changes in (([False] * 4, False), ([True, False, False, False], True)):
        style = StyleInput(torch.ones(4, 1, 32), torch.zeros(4, 1, 32), torch.tensor(styled))
        with_style = PackedBatch(batch.ids, batch.columns, batch.codes, style)
        same = torch.equal(
            code_loss(decoder, Resampler(), with_style), code_loss(decoder, None, batch)
        )
        assert same is not changes


def test_a_run_that_was_stopped_ends_with_the_weights_of_one_that_was_not(
    layout: ChameleonLayout, tmp_path: Path
) -> None:
    def run(work: Path, stop: int | None) -> dict[str, Tensor]:
        calls = 0

        def draw(generator: torch.Generator) -> PackedBatch:
            nonlocal calls
            calls += 1
            if calls == stop:
                raise KeyboardInterrupt
            return batch_of(layout, generator)

        decoder = tiny_decoder(layout)
        train(decoder, None, draw, work=work, steps=STEPS, lr=1e-2, save_every=2, compiled=False)
        return decoder.state_dict()

    whole = run(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", 6)
    resumed = run(tmp_path / "stopped", None)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    start = tiny_decoder(layout).state_dict()
    assert not torch.equal(whole["lm_head.weight"], start["lm_head.weight"])


def test_the_rate_warms_up_stays_and_falls() -> None:
    assert rate_scale(0, 1000) == pytest.approx(0.01)
    assert rate_scale(99, 1000) == 1.0
    assert rate_scale(750, 1000) == 1.0
    assert rate_scale(875, 1000) == pytest.approx(0.02 + 0.98 * 0.5)


def test_corrupted_codes_are_others_of_the_batch_at_most_so_many_of_a_row() -> None:
    codes = 10 + torch.arange(200 * 256).view(200, 256) % 7
    seen = corrupt_codes(codes, 0.5, torch.Generator().manual_seed(0))
    assert set(seen.unique().tolist()) == set(range(10, 17))
    wrong = (seen != codes).float().mean(1)
    assert wrong.max() < 0.55
    assert wrong.min() < 0.05
    assert wrong.mean().item() == pytest.approx(0.25 * 6 / 7, abs=0.03)
    assert torch.equal(corrupt_codes(codes, 0.0, torch.Generator().manual_seed(0)), codes)
