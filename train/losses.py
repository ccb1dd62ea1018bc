"""Losses as pure functions. B sequences, N code positions, V codes."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor

PreferenceKind = Literal["sigmoid", "ipo", "simpo"]


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
    """The loss (scalar) and the implicit rewards (B,) of chosen and rejected images."""

    loss: Tensor
    chosen_reward: Tensor
    rejected_reward: Tensor


def preference_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float = 0.1,
    kind: PreferenceKind = "sigmoid",
    length: int = 1,
    chosen_nll: float = 0.0,
    simpo_margin: float = 0.5,
) -> Preference:
    """Preference loss of log-probabilities (B,), averaged over the batch.

    `sigmoid` is DPO (arXiv 2305.18290, equation 7): -log s(beta (dc - dr)), d = policy - reference.
    `ipo` (arXiv 2310.12036, equation 17): (dc - dr - 1 / (2 beta))^2. `simpo` (arXiv 2405.14734,
    equation 6) needs no reference: -log s(beta (c - r) / length - margin). `length` > 1 divides all
    log-probabilities by the number of codes (length-normalised); `chosen_nll` adds that many times
    the mean negative log-probability per code of the chosen image, to stop both log-probs falling.
    """
    chosen = (policy_chosen - reference_chosen) / length
    rejected = (policy_rejected - reference_rejected) / length
    if kind == "sigmoid":
        loss = -F.logsigmoid(beta * (chosen - rejected))
    elif kind == "ipo":
        loss = (chosen - rejected - 1 / (2 * beta)).square()
    elif kind == "simpo":
        loss = -F.logsigmoid(beta * (policy_chosen - policy_rejected) / length - simpo_margin)
    else:
        raise ValueError(f"kind: expected sigmoid, ipo or simpo, got {kind!r}")
    if chosen_nll:
        loss = loss - chosen_nll * policy_chosen / length
    return Preference(loss.mean(), (beta * chosen).detach(), (beta * rejected).detach())
