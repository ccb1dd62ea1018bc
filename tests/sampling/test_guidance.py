"""Guidance with a scale of its own for the style."""

from __future__ import annotations

import pytest
import torch

from stylear.sampling.guidance import Guidance


@pytest.mark.parametrize(
    ("scale", "style_scale", "sides"),
    [(1, None, 1), (4, None, 2), (1, 1, 1), (4, 4, 2), (4, 1, 2), (4, 2, 3), (1, 2, 3), (4, 0, 3)],
)
def test_a_picture_takes_a_row_for_each_side_that_counts(
    scale: float, style_scale: float | None, sides: int
) -> None:
    assert Guidance(scale, style_scale).sides == sides


def test_equal_scales_are_one_scale() -> None:
    logits = torch.randn(4, 9)
    assert torch.equal(Guidance(3.0, 3.0).combine(logits), Guidance(3.0).combine(logits))


def test_a_style_scale_of_1_sets_the_text_against_the_style_alone() -> None:
    full, styled, null = torch.randn(3, 2, 9)
    two = Guidance(3.0, 1.0).combine(torch.cat([full, styled]))
    torch.testing.assert_close(two, styled + 3 * (full - styled))
    three = Guidance(3.0, 1.5).combine(torch.cat([full, styled, null]))
    torch.testing.assert_close(three, null + 1.5 * (styled - null) + 3 * (full - styled))
