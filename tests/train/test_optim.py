"""Optimisers keep their state under the names of parameters, and all kernels take the same step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from stylear.errors import WeightsError
from stylear.train.optim import Optimisers
from stylear.train.settings import SftSettings


def make(**more: object) -> tuple[Optimisers, dict[str, nn.Parameter]]:
    values = {"corpus": [Path("c")], "model": "m", "out": Path("o"), "lr": 0.1, "clip_norm": 1.0}
    named = {
        "decoder.layers.0.weight": nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]])),
        "resampler.bias": nn.Parameter(torch.tensor([1.0])),
    }
    return Optimisers(named.items(), SftSettings.model_validate(values | more)), named


def fill_gradients(named: dict[str, nn.Parameter]) -> None:
    for parameter in named.values():
        parameter.grad = torch.full_like(parameter, 0.25)


@pytest.mark.parametrize("kernels", ["fused", "foreach", "loop"])
def test_first_step_of_adamw_is_the_learning_rate_in_every_direction(kernels: str) -> None:
    optimisers, named = make(optimizer_kernels=kernels, weight_decay=0.5)
    fill_gradients(named)
    assert optimisers.clip_gradients() == pytest.approx((5 * 0.25**2) ** 0.5)
    assert optimisers.step(0) == 0.1
    # matrices decay by lr * weight_decay, vectors do not; Adam's first step is lr * sign
    expected = torch.tensor([[1.0, 2.0], [3.0, 4.0]]) * 0.95 - 0.1
    torch.testing.assert_close(named["decoder.layers.0.weight"].data, expected)
    torch.testing.assert_close(named["resampler.bias"].data, torch.tensor([0.9]))


def test_gradients_are_clipped_and_a_missing_one_is_zero() -> None:
    optimisers, named = make()
    named["decoder.layers.0.weight"].grad = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    assert optimisers.clip_gradients() == 5.0
    clipped = named["decoder.layers.0.weight"].grad
    torch.testing.assert_close(clipped, torch.tensor([[0.6, 0.0], [0.0, 0.8]]))
    assert torch.equal(named["resampler.bias"].grad, torch.zeros(1))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_restored_state_takes_the_same_next_step(optimizer: str) -> None:
    first, named = make(optimizer=optimizer)
    fill_gradients(named)
    first.clip_gradients()
    first.step(0)
    second, copies = make(optimizer=optimizer)
    for name, parameter in named.items():
        copies[name].data.copy_(parameter.data)
    second.load_tensors(first.tensors())
    for optimisers, parameters in ((first, named), (second, copies)):
        fill_gradients(parameters)
        optimisers.clip_gradients()
        optimisers.step(1)
    assert all(torch.equal(named[name], copies[name]) for name in named)
    assert "resampler.bias/exp_avg" in first.tensors()


def test_state_of_other_parameters_is_refused() -> None:
    optimisers, _ = make()
    with pytest.raises(
        WeightsError, match=r"resampler\.bias/exp_avg: expected .* \(3,\), found \(1,\)"
    ):
        optimisers.load_tensors({"resampler.bias/exp_avg": torch.zeros(3)})
    with pytest.raises(WeightsError, match="found no such parameter"):
        optimisers.load_tensors({"resampler.scale/exp_avg": torch.zeros(3)})
