"""The moving average follows its formula, and the parameters come back after its use."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stylear.errors import WeightsError
from stylear.train.average import MovingAverage


def test_average_is_that_of_the_formula() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    average = MovingAverage({"w": parameter}, decay=0.15)
    parameter.data.fill_(2.0)
    average.update(0)  # decay is min(0.15, 1 / 10): 0.1 * 1 + 0.9 * 2
    assert average.averages["w"].item() == pytest.approx(1.9)
    parameter.data.fill_(4.0)
    average.update(1)  # decay is min(0.15, 2 / 11): 0.15 * 1.9 + 0.85 * 4
    assert average.averages["w"].item() == pytest.approx(3.685)


def test_parameters_hold_the_average_only_inside_the_block() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 3.0]))
    average = MovingAverage({"w": parameter}, decay=0.5)
    parameter.data = torch.tensor([5.0, 7.0])
    with average.applied():
        assert parameter.tolist() == [1.0, 3.0]
    assert parameter.tolist() == [5.0, 7.0]
    assert average.averages["w"].tolist() == [1.0, 3.0]


def test_averages_of_other_parameters_are_refused() -> None:
    average = MovingAverage({"w": nn.Parameter(torch.zeros(2))}, decay=0.5)
    average.load_tensors({"w": torch.ones(2)}, "ema.safetensors")
    assert average.averages["w"].tolist() == [1.0, 1.0]
    with pytest.raises(WeightsError, match=r"ema\.safetensors: w: expected .*\(2,\), found \(3,\)"):
        average.load_tensors({"w": torch.ones(3)}, "ema.safetensors")
    with pytest.raises(WeightsError, match="found none"):
        average.load_tensors({}, "ema.safetensors")
