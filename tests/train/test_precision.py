"""The frozen base is held in fewer bits, what trains stays in fp32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders.tiny_training import read_losses, sft_settings, write_training_inputs

from stylear.errors import UsageError
from stylear.model.lora import apply_lora, lora_parameters
from stylear.model.open import load_model
from stylear.train import sft_trainer as sft
from stylear.train.precision import choose_base_format, decoder_autocast, hold_base


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_inputs(tmp_path_factory.mktemp("precision"))


def test_the_base_follows_the_precision_unless_it_trains(place: Path) -> None:
    def choose(**more: object) -> str:
        return choose_base_format(sft_settings(place, "unused", **more))

    assert choose() == "fp32"
    assert choose(precision="bf16") == "bf16"
    assert choose(precision="bf16", base_dtype="fp32") == "fp32"
    assert choose(precision="bf16", full=True) == "fp32"
    with pytest.raises(UsageError, match="base_dtype: expected fp32 with full, found bf16"):
        choose(precision="bf16", base_dtype="bf16", full=True)
    with pytest.raises(UsageError, match="expected fp32 with precision fp32, found bf16"):
        choose(base_dtype="bf16")


def test_lora_and_resampler_stay_in_fp32_beside_a_bf16_base(place: Path) -> None:
    model = load_model(place / "model")
    apply_lora(model.decoder)
    hold_base(model, sft_settings(place, "unused", precision="bf16"))
    trained = lora_parameters(model.decoder)
    assert {p.dtype for p in trained} == {torch.float32}
    frozen = [p for p in model.decoder.parameters() if all(p is not other for other in trained)]
    assert {p.dtype for p in frozen} == {torch.bfloat16}
    assert model.resampler is not None
    assert {p.dtype for p in model.resampler.parameters()} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16), decoder_autocast(model):
        assert not torch.is_autocast_enabled("cpu")
    hold_base(model, sft_settings(place, "unused"))
    with torch.autocast("cpu", torch.bfloat16), decoder_autocast(model):
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.cpu
def test_losses_in_bf16_are_close_to_those_in_fp32(place: Path) -> None:
    exact = read_losses(sft.run(sft_settings(place, "fp32")))
    for base_dtype in ("bf16", "fp32", "int8"):
        chosen = sft_settings(place, f"base-{base_dtype}", precision="bf16", base_dtype=base_dtype)
        losses = read_losses(sft.run(chosen))
        assert [line["loss"] for line in losses] == pytest.approx(
            [line["loss"] for line in exact], rel=0.01
        )
