"""Losses give the numbers that their equations give by hand."""

from __future__ import annotations

import math

import pytest
import torch

from stylear.train.losses import image_code_loss, preference_loss, sequence_log_probs

ZERO = torch.zeros(3)


def test_uniform_logits_cost_the_log_of_the_number_of_codes() -> None:
    loss = image_code_loss(torch.zeros(5, 8), torch.tensor([0, 1, 2, 3, 7]))
    assert loss.item() == pytest.approx(math.log(8), abs=1e-6)


def test_cross_entropy_by_hand() -> None:
    # softmax(ln 3, 0) = (3/4, 1/4)
    loss = image_code_loss(torch.tensor([[math.log(3), 0.0]]), torch.tensor([0]))
    assert loss.item() == pytest.approx(-math.log(0.75), abs=1e-6)


def test_z_loss_adds_the_squared_log_partition() -> None:
    logits, codes = torch.zeros(2, 8), torch.tensor([0, 1])
    plain = image_code_loss(logits, codes).item()
    with_z = image_code_loss(logits, codes, z_loss=0.5).item()
    assert with_z - plain == pytest.approx(0.5 * math.log(8) ** 2, abs=1e-6)


def test_sequence_log_probs_sum_only_their_own_rows() -> None:
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0], [0.0, math.log(3)]])
    found = sequence_log_probs(logits, torch.tensor([0, 1, 0]), torch.tensor([0, 0, 1]), 3)
    assert found.tolist() == pytest.approx([math.log(0.75 * 0.5), math.log(0.25), 0.0], abs=1e-6)


def test_policy_equal_to_reference_gives_ln_2() -> None:
    same = torch.tensor([-10.0, -20.0, -3.0])
    other = torch.tensor([-12.0, -19.0, -5.0])
    outcome = preference_loss(same, other, same, other, beta=0.7)
    assert outcome.loss.item() == pytest.approx(math.log(2), abs=1e-6)
    assert outcome.chosen_reward.tolist() == [0.0, 0.0, 0.0]


def test_dpo_by_hand() -> None:
    # dc = 2, dr = -1, beta = ln 3 / 3: -log sigmoid(ln 3) = -log(3/4)
    chosen, rejected = torch.tensor([-8.0]), torch.tensor([-11.0])
    outcome = preference_loss(
        chosen, rejected, torch.tensor([-10.0]), torch.tensor([-10.0]), beta=math.log(3) / 3
    )
    assert outcome.loss.item() == pytest.approx(-math.log(0.75), abs=1e-6)
    assert outcome.chosen_reward.item() == pytest.approx(2 * math.log(3) / 3)
    assert outcome.rejected_reward.item() == pytest.approx(-math.log(3) / 3)


def test_length_normalised_dpo_divides_by_the_number_of_codes() -> None:
    arguments = (
        torch.tensor([-4.0]),
        torch.tensor([-8.0]),
        torch.tensor([-6.0]),
        torch.tensor([-6.0]),
    )
    short = preference_loss(*arguments, beta=0.4, length=4).loss
    assert short.item() == pytest.approx(-math.log(1 / (1 + math.exp(-0.4))), abs=1e-6)


def test_ipo_is_zero_at_its_target_margin() -> None:
    at_target = preference_loss(
        torch.tensor([2.5]),
        torch.tensor([-2.5]),
        torch.zeros(1),
        torch.zeros(1),
        beta=0.1,
        kind="ipo",
    )
    assert at_target.loss.item() == pytest.approx(0.0, abs=1e-9)
    at_start = preference_loss(ZERO, ZERO, ZERO, ZERO, beta=0.1, kind="ipo")
    assert at_start.loss.item() == pytest.approx(25.0)


def test_simpo_ignores_the_reference() -> None:
    chosen, rejected = torch.tensor([-4.0]), torch.tensor([-8.0])
    losses = [
        preference_loss(
            chosen,
            rejected,
            reference,
            ZERO[:1],
            beta=2.0,
            kind="simpo",
            length=4,
            simpo_margin=0.5,
        ).loss.item()
        for reference in (ZERO[:1], torch.tensor([-100.0]))
    ]
    assert losses[0] == losses[1] == pytest.approx(math.log(1 + math.exp(-1.5)), abs=1e-6)


def test_chosen_nll_adds_the_cost_per_code() -> None:
    chosen = torch.tensor([-8.0])
    plain = preference_loss(chosen, chosen, chosen, chosen, length=4).loss
    more = preference_loss(chosen, chosen, chosen, chosen, length=4, chosen_nll=0.5).loss
    assert (more - plain).item() == pytest.approx(0.5 * 8 / 4)


def test_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="sigmoid, ipo or simpo"):
        preference_loss(ZERO, ZERO, ZERO, ZERO, kind="orpo")  # type: ignore[arg-type]
