"""Losses as pure functions. B sequences, N code positions, V codes."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

PreferenceKind = Literal["sigmoid", "robust", "ipo", "simpo", "kto"]
KINDS = get_args(PreferenceKind)


def image_code_loss(logits: Tensor, codes: Tensor, z_loss: float = 0.0) -> Tensor:
    """Mean cross entropy in nats over code positions, plus z_loss * mean(logsumexp^2) (Lumina-mGPT: 1e-5).

    logits: (N, V) over image codes only; codes: (N,) long.
    """
    logits = logits.float()
    loss = F.cross_entropy(logits, codes)
    if z_loss:
        loss = loss + z_loss * logits.logsumexp(-1).square().mean()
    return loss


def sequence_log_probs(logits: Tensor, codes: Tensor, rows: Tensor, batch: int) -> Tensor:
    """Log-probability (B,) of each sequence's codes: the sum over its positions.

    logits: (N, V); codes: (N,); rows: (N,) says which sequence a position belongs to.
    """
    chosen = -F.cross_entropy(logits.float(), codes, reduction="none")
    return chosen.new_zeros(batch).index_add(0, rows, chosen)


class Preference(NamedTuple):
    """The loss (scalar), its preference term (scalar), and the implicit rewards (B,) of both images."""

    loss: Tensor
    preference_term: Tensor  # the loss without the NLL of the chosen images, detached
    chosen_reward: Tensor
    rejected_reward: Tensor


def preference_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    num_codes: int,
    beta: float = 0.1,
    kind: PreferenceKind = "sigmoid",
    label_smoothing: float = 0.0,
    simpo_margin: float = 0.5,
    length_normalised: bool = False,
    chosen_nll: float = 0.0,
) -> Preference:
    """Mean preference loss of summed log-probabilities (B,) of images of `num_codes` codes each.

    `length_normalised` divides log-probabilities by `num_codes`; SimPO always does. `chosen_nll` adds that
    many times the mean negative log-probability per code of the chosen images, which keeps both
    log-probabilities from falling (arXiv 2404.19733). The loss of each kind is a function below.
    """
    length = num_codes if length_normalised or kind == "simpo" else 1
    chosen = (policy_chosen - reference_chosen) / length
    rejected = (policy_rejected - reference_rejected) / length
    if kind == "sigmoid":
        terms = dpo_loss(chosen - rejected, beta, label_smoothing)
    elif kind == "robust":
        terms = robust_dpo_loss(chosen - rejected, beta, label_smoothing)
    elif kind == "ipo":
        terms = ipo_loss(chosen - rejected, beta)
    elif kind == "simpo":
        terms = simpo_loss((policy_chosen - policy_rejected) / length, beta, simpo_margin)
    elif kind == "kto":
        terms = kto_loss(chosen, rejected, beta)
    else:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    term = terms.mean()
    loss = term
    if chosen_nll:
        loss = term - chosen_nll * policy_chosen.mean() / num_codes
    return Preference(loss, term.detach(), (beta * chosen).detach(), (beta * rejected).detach())


def dpo_loss(margin: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """DPO (arXiv 2305.18290, equation 7) of log-ratio margins (B,): -log sigmoid(beta margin).

    The margin is log(policy / reference) of the chosen image minus that of the rejected one. With label
    smoothing e, the probability that a label is wrong, it is the conservative DPO of Mitchell (2023):
    -(1 - e) log sigmoid(beta margin) - e log sigmoid(-beta margin), least at sigmoid(beta margin) = 1 - e.
    """
    right, wrong = -F.logsigmoid(beta * margin), -F.logsigmoid(-beta * margin)
    return right.lerp(wrong, label_smoothing) if label_smoothing else right


def robust_dpo_loss(margin: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """Robust DPO (arXiv 2403.00409) of log-ratio margins (B,).

    It is an unbiased estimate of the DPO loss without wrong labels, where each label is wrong with
    probability e < 1/2: (-(1 - e) log sigmoid(beta margin) + e log sigmoid(-beta margin)) / (1 - 2 e).
    """
    right, wrong = -F.logsigmoid(beta * margin), -F.logsigmoid(-beta * margin)
    return ((1 - label_smoothing) * right - label_smoothing * wrong) / (1 - 2 * label_smoothing)


def ipo_loss(margin: Tensor, beta: float) -> Tensor:
    """IPO (arXiv 2310.12036, equation 17) of log-ratio margins (B,): (margin - 1 / (2 beta))^2."""
    return (margin - 1 / (2 * beta)).square()


def simpo_loss(margin: Tensor, beta: float, target: float) -> Tensor:
    """SimPO (arXiv 2405.14734, equation 6): -log sigmoid(beta margin - target), without a reference.

    The margin (B,) is the difference of the policy's log-probabilities per code.
    """
    return -F.logsigmoid(beta * margin - target)


def kto_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """KTO (arXiv 2402.01306) of log-ratios (B,) of desirable and undesirable images, averaged.

    1 - sigmoid(beta (chosen - z)) and 1 - sigmoid(beta (z - rejected)), both weighted 1. The reference
    point z estimates KL(policy || reference), without gradient: the mean log-ratio of the batch's images,
    at least 0. The paper takes mismatched images for it, which would need another forward pass.
    """
    z = torch.cat([chosen, rejected]).mean().clamp(min=0).detach()
    desirable, undesirable = beta * (chosen - z), beta * (z - rejected)
    return (torch.sigmoid(-desirable) + torch.sigmoid(-undesirable)) / 2


def group_advantages(rewards: Tensor) -> Tensor:
    """GRPO (arXiv 2402.03300): rewards (J, S) minus the mean of their row, divided by its standard deviation.

    A row of equal rewards has advantages of 0.
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    std = rewards.std(dim=1, keepdim=True, correction=0)
    return torch.where(std > 1e-6, centred / std.clamp(min=1e-6), 0.0)


class PolicyGradient(NamedTuple):
    """The loss of GRPO (scalar), and its terms (scalars, detached)."""

    loss: Tensor
    kl: Tensor  # estimate of KL(policy || reference), in nats per code
    clipped: Tensor  # share of codes whose ratio is clipped


def grpo_loss(
    policy: Tensor,
    sampler: Tensor,
    reference: Tensor,
    advantages: Tensor,
    *,
    clip: float = 0.2,
    kl_weight: float = 0.04,
) -> PolicyGradient:
    """GRPO (arXiv 2402.03300) of log-probabilities per code (B, L) and advantages (B,), averaged over codes.

    With ratio r = policy / sampler, PPO's -min(r A, clip(r, 1 - clip, 1 + clip) A), plus `kl_weight` times
    the unbiased, non-negative estimate of the KL divergence q - log q - 1, q = reference / policy.
    """
    ratio = (policy - sampler).exp()
    gain = advantages[:, None]
    bounded = ratio.clamp(1 - clip, 1 + clip) * gain
    difference = reference - policy
    kl = (difference.exp() - difference - 1).mean()
    loss = kl_weight * kl - torch.minimum(ratio * gain, bounded).mean()
    clipped = (bounded < ratio * gain).float().mean()
    return PolicyGradient(loss, kl.detach(), clipped)
