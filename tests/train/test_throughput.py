"""Throughput is counted by its stated formula."""

from __future__ import annotations

import pytest
import torch

from stylear.model import lora
from stylear.model.decoder_config import DecoderConfig
from stylear.model.transformer import Decoder
from stylear.train.throughput import (
    Speedometer,
    count_flops_per_token,
    find_peak_flops,
)


def tiny_decoder() -> Decoder:
    config = DecoderConfig(
        vocab_size=24,
        hidden_size=16,
        intermediate_size=20,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return Decoder(config, [6, 7, 5])


def test_flops_are_four_for_a_frozen_weight_and_six_for_a_trained_one() -> None:
    decoder = tiny_decoder()
    products = 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 20 + 16 * 24  # q and o, k and v, MLP, head
    assert count_flops_per_token(decoder) == 6 * products
    lora.apply_lora(decoder, 2)
    adapted = 2 * (2 * (16 + 16) + 2 * (16 + 8) + (20 + 16) + (16 + 24))
    assert count_flops_per_token(decoder) == 4 * products + 6 * adapted


def test_utilisation_is_the_share_of_the_peak_of_all_devices() -> None:
    decoder = tiny_decoder()
    speedometer = Speedometer(decoder, "cpu", peak_tflops=1e-3, world_size=2)
    values = speedometer.measure(tokens=1000, step_s=0.5, data_s=0.125)
    assert (values["tokens_per_s"], values["data_s"], values["step_s"]) == (2000, 0.125, 0.5)
    assert values["mfu"] == pytest.approx(2000 * count_flops_per_token(decoder) / 2e9)
    assert values["peak_memory_gib"] > 0


def test_a_cpu_has_no_peak_unless_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_peak_flops("cpu", None) is None
    assert "mfu" not in Speedometer(tiny_decoder(), "cpu", None).measure(1, 1.0, 0.0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    assert find_peak_flops("cuda:0", None) == pytest.approx(989.4e12)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 PCIe")
    assert find_peak_flops("cuda:0", None) == pytest.approx(756e12)
    assert find_peak_flops("cuda:0", 500.0) == pytest.approx(500e12)
