"""Noise on style tokens depends on seed, step and position alone."""

from __future__ import annotations

import pytest
import torch

from stylear.train.forward import draw_noise


def test_the_noise_of_a_row_does_not_depend_on_the_others() -> None:
    together = draw_noise((3, 8), (0.1, 0.3), 5, 7, [0, 1, 2, 3])
    alone = draw_noise((3, 8), (0.1, 0.3), 5, 7, [2])
    assert torch.equal(together[2], alone[0])
    assert not torch.equal(together[2], together[3])
    assert not torch.equal(alone, draw_noise((3, 8), (0.1, 0.3), 5, 8, [2]))
    assert not torch.equal(alone, draw_noise((3, 8), (0.1, 0.3), 6, 7, [2]))


def test_deviations_are_constant_or_spread_over_the_range() -> None:
    constant = draw_noise((16, 256), (0.2, 0.2), 0, 0, range(50)).flatten(1).std(1)
    assert constant.min().item() == pytest.approx(0.2, abs=0.01)
    assert constant.max().item() == pytest.approx(0.2, abs=0.01)
    spread = draw_noise((16, 256), (0.1, 0.3), 0, 0, range(50)).flatten(1).std(1)
    assert 0.1 - 0.01 < spread.min().item() < 0.12
    assert 0.28 < spread.max().item() < 0.3 + 0.01
    assert spread.mean().item() == pytest.approx(0.2, abs=0.02)
