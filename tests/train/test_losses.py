"""Losses give the numbers that their equations give by hand."""

from __future__ import annotations

import math

import pytest
import torch

from stylear.train.losses import (
    dpo_loss,
    group_advantages,
    grpo_loss,
    image_code_loss,
    ipo_loss,
    kto_loss,
    preference_loss,
    robust_dpo_loss,
    sequence_log_probs,
    simpo_loss,
)

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
    log_probs = sequence_log_probs(logits, torch.tensor([0, 1, 0]), torch.tensor([0, 0, 1]), 3)
    assert log_probs.tolist() == pytest.approx(
        [math.log(0.75 * 0.5), math.log(0.25), 0.0], abs=1e-6
    )


def test_policy_equal_to_reference_gives_ln_2() -> None:
    same = torch.tensor([-10.0, -20.0, -3.0])
    other = torch.tensor([-12.0, -19.0, -5.0])
    for kind, smoothing in (("sigmoid", 0.0), ("sigmoid", 0.2), ("robust", 0.2)):
        outcome = preference_loss(
            same,
            other,
            same,
            other,
            num_codes=4,
            beta=0.7,
            kind=kind,  # type: ignore[arg-type]
            label_smoothing=smoothing,
        )
        assert outcome.loss.item() == pytest.approx(math.log(2), abs=1e-6)
        assert outcome.chosen_reward.tolist() == [0.0, 0.0, 0.0]


def test_dpo_by_hand() -> None:
    # dc = 2, dr = -1, beta = ln 3 / 3: -log sigmoid(ln 3) = -log(3/4)
    chosen, rejected, reference = (torch.tensor([x]) for x in (-8.0, -11.0, -10.0))
    outcome = preference_loss(
        chosen, rejected, reference, reference, num_codes=4, beta=math.log(3) / 3
    )
    assert outcome.loss.item() == pytest.approx(-math.log(0.75), abs=1e-6)
    assert outcome.chosen_reward.item() == pytest.approx(2 * math.log(3) / 3)
    assert outcome.rejected_reward.item() == pytest.approx(-math.log(3) / 3)


def test_conservative_dpo_weighs_both_labels() -> None:
    # sigmoid(ln 3) = 3/4: -0.9 log(3/4) - 0.1 log(1/4)
    loss = dpo_loss(torch.tensor([3.0]), math.log(3) / 3, label_smoothing=0.1)
    assert loss.item() == pytest.approx(-0.9 * math.log(0.75) - 0.1 * math.log(0.25), abs=1e-6)


def test_conservative_dpo_is_least_where_the_model_is_as_sure_as_the_labels() -> None:
    margin = torch.tensor([math.log(9)], requires_grad=True)  # sigmoid = 0.9
    dpo_loss(margin, 1.0, label_smoothing=0.1).sum().backward()  # type: ignore[no-untyped-call]
    assert margin.grad is not None
    assert margin.grad.item() == pytest.approx(0.0, abs=1e-7)


def test_robust_dpo_by_hand() -> None:
    # (-0.9 log(3/4) + 0.1 log(1/4)) / 0.8
    loss = robust_dpo_loss(torch.tensor([3.0]), math.log(3) / 3, label_smoothing=0.1)
    expected = (-0.9 * math.log(0.75) + 0.1 * math.log(0.25)) / 0.8
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_robust_dpo_is_on_average_the_loss_of_right_labels() -> None:
    margin, beta, wrong = torch.tensor([1.7]), 0.6, 0.3
    right, flipped = (robust_dpo_loss(m, beta, wrong) for m in (margin, -margin))
    mean = (1 - wrong) * right + wrong * flipped
    assert mean.item() == pytest.approx(dpo_loss(margin, beta).item(), abs=1e-6)


def test_length_normalised_dpo_divides_by_the_number_of_codes() -> None:
    # (dc - dr) / 4 = (2 - -2) / 4 = 1
    chosen, rejected, reference = (torch.tensor([x]) for x in (-4.0, -8.0, -6.0))
    loss = preference_loss(
        chosen, rejected, reference, reference, num_codes=4, beta=0.4, length_normalised=True
    ).loss
    assert loss.item() == pytest.approx(-math.log(1 / (1 + math.exp(-0.4))), abs=1e-6)


def test_ipo_is_zero_at_its_target_margin() -> None:
    assert ipo_loss(torch.tensor([5.0]), 0.1).item() == pytest.approx(0.0, abs=1e-9)
    at_start = preference_loss(ZERO, ZERO, ZERO, ZERO, num_codes=4, beta=0.1, kind="ipo")
    assert at_start.loss.item() == pytest.approx(25.0)


def test_simpo_takes_log_probs_per_code_and_no_reference() -> None:
    # 2 (-4 - -8) / 4 - 0.5 = 1.5
    chosen, rejected = torch.tensor([-4.0]), torch.tensor([-8.0])
    losses = [
        preference_loss(
            chosen,
            rejected,
            reference,
            ZERO[:1],
            num_codes=4,
            beta=2.0,
            kind="simpo",
            simpo_margin=0.5,
        ).loss.item()
        for reference in (ZERO[:1], torch.tensor([-100.0]))
    ]
    assert losses[0] == losses[1] == pytest.approx(math.log(1 + math.exp(-1.5)), abs=1e-6)
    assert simpo_loss(torch.tensor([1.0]), 2.0, 0.5).item() == pytest.approx(losses[0])


def test_kto_by_hand() -> None:
    # log-ratios 3 and -1: z = (3 - 1) / 2 = 1; beta = ln 3 / 2:
    # 1 - sigmoid(ln 3) = 1/4 for both sides, as 3 - z = z - -1 = 2
    loss = kto_loss(torch.tensor([3.0]), torch.tensor([-1.0]), math.log(3) / 2)
    assert loss.item() == pytest.approx(0.25, abs=1e-6)
    assert kto_loss(ZERO, ZERO, 0.1).tolist() == [0.5, 0.5, 0.5]


def test_the_reference_point_of_kto_is_not_negative_and_has_no_gradient() -> None:
    chosen = torch.tensor([-1.0], requires_grad=True)
    loss = kto_loss(chosen, torch.tensor([-3.0]), math.log(3))  # z = 0, not -2
    assert loss.item() == pytest.approx((3 / 4 + 1 / 28) / 2, abs=1e-6)
    loss.backward()  # type: ignore[no-untyped-call]
    assert chosen.grad is not None
    # half of d(1 - sigmoid(beta x))/dx = -beta s (1 - s), s = 1/4
    assert chosen.grad.item() == pytest.approx(-math.log(3) * 3 / 16 / 2, abs=1e-6)


def test_chosen_nll_adds_the_cost_per_code_whatever_the_length() -> None:
    chosen = torch.tensor([-8.0, -4.0])
    for normalised in (False, True):
        outcome = preference_loss(
            chosen,
            chosen,
            chosen,
            chosen,
            num_codes=4,
            length_normalised=normalised,
            chosen_nll=0.5,
        )
        more = outcome.loss - outcome.preference_term
        assert more.item() == pytest.approx(0.5 * 6 / 4)
        assert outcome.preference_term.item() == pytest.approx(math.log(2))


def test_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="sigmoid, robust, ipo, simpo, kto"):
        preference_loss(ZERO, ZERO, ZERO, ZERO, num_codes=1, kind="orpo")  # type: ignore[arg-type]


def test_group_advantages_by_hand() -> None:
    # mean 3, standard deviation sqrt((4 + 0 + 4) / 3)
    advantages = group_advantages(torch.tensor([[1.0, 3.0, 5.0], [0.2, 0.2, 0.2]]))
    one = 2 / math.sqrt(8 / 3)
    assert advantages[0].tolist() == pytest.approx([-one, 0.0, one])
    assert advantages[1].tolist() == [0.0, 0.0, 0.0]


def test_grpo_by_hand() -> None:
    # ratio 2, clipped to 1.2 where the advantage is positive and not where it is negative;
    # q = reference / policy = 1/2: q - ln q - 1 = ln 2 - 1/2
    policy, sampler = torch.full((2, 1), math.log(0.5)), torch.full((2, 1), math.log(0.25))
    outcome = grpo_loss(
        policy, sampler, sampler, torch.tensor([1.0, -1.0]), clip=0.2, kl_weight=0.1
    )
    kl = math.log(2) - 0.5
    assert outcome.kl.item() == pytest.approx(kl)
    assert outcome.loss.item() == pytest.approx(-(1.2 - 2.0) / 2 + 0.1 * kl)
    assert outcome.clipped.item() == 0.5


def test_the_first_update_of_grpo_follows_the_policy_gradient() -> None:
    policy = torch.tensor([[-1.0, -2.0], [-3.0, -1.5]], requires_grad=True)
    same = policy.detach()
    outcome = grpo_loss(policy, same, same, torch.tensor([2.0, -1.0]))
    outcome.loss.backward()  # type: ignore[no-untyped-call]
    assert outcome.loss.item() == pytest.approx(-0.5)  # the mean of -advantage, and a KL of 0
    assert policy.grad is not None
    assert policy.grad.tolist() == [[-0.5, -0.5], [0.25, 0.25]]  # -advantage / (B L)
