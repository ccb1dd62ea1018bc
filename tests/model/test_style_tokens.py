"""Style tokens: noise that no batch changes, subject removal by the formula, places."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from stylear.model.style_tokens import add_noise, insert_style_tokens, remove_subject


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def test_noise_has_the_asked_deviation_and_zero_leaves_tokens_alone() -> None:
    tokens = torch.full((1, 100, 100), 5.0)
    noisy = add_noise(tokens, 0.3, seeded(0))
    assert (noisy - tokens).std().item() == pytest.approx(0.3, rel=0.03)
    assert noisy.mean().item() == pytest.approx(5.0, abs=0.02)
    assert add_noise(tokens, 0.0, seeded(0)) is tokens


def test_noise_of_a_row_does_not_depend_on_its_batch() -> None:
    tokens = torch.randn(3, 4, 8)
    batch = add_noise(tokens, 0.2, [seeded(s) for s in (7, 8, 9)])
    assert torch.equal(add_noise(tokens[1:2], 0.2, [seeded(8)])[0], batch[1])
    with pytest.raises(ValueError, match="expected 3, got 1"):
        add_noise(tokens, 0.2, [seeded(1)])


def test_subject_removal_by_hand() -> None:
    style, subject = torch.tensor([[[2.0, 4.0]]]), torch.tensor([[[1.0, 5.0]]])

    def square(features: Tensor) -> Tensor:
        return features**2

    # 0.2 * (4, 16) + 0.8 * (1.2^2, 0^2)
    tokens = remove_subject(style, subject, square)
    assert torch.allclose(tokens, torch.tensor([[[0.8 + 0.8 * 1.44, 3.2]]]))
    assert torch.equal(remove_subject(style, subject, square, strength=0.0), style**2)


def test_tokens_overwrite_their_places_only_and_gradients_reach_both() -> None:
    embeds = torch.zeros(3, 5, 2, requires_grad=True)
    tokens = torch.arange(8.0).view(2, 2, 2).requires_grad_()
    rows, columns = torch.tensor([0, 0, 2, 2]), torch.tensor([1, 2, 3, 4])
    out = insert_style_tokens(embeds, tokens, rows, columns)
    assert out[0, 1:3].tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert out[2, 3:5].tolist() == [[4.0, 5.0], [6.0, 7.0]]
    assert out[1].abs().sum().item() == 0
    torch.autograd.backward(out.sum())
    assert tokens.grad is not None
    assert embeds.grad is not None
    assert tokens.grad.sum().item() == 8
    assert embeds.grad.sum().item() == 30 - 8
    with pytest.raises(ValueError, match="4 positions for 2 tokens"):
        insert_style_tokens(embeds, tokens[:1], rows, columns)
