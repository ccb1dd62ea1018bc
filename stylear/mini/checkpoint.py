"""Checkpoints of the mini family's trainings: written to a temporary folder, then renamed; read directly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

NAME = "checkpoint.pt"


def save(
    path: Path,
    tensors: Mapping[str, Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
    *,
    step: int,
    seconds: float,
) -> None:
    """Write the checkpoint; a run that is killed meanwhile keeps the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "tensors": {name: tensor.detach() for name, tensor in tensors.items()},
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "step": step,
        "seconds": seconds,
    }
    temporary = path.with_suffix(".part")
    torch.save(state, temporary)
    temporary.replace(path)


@torch.no_grad()
def resume(
    path: Path, tensors: Mapping[str, Tensor], optimizers: Sequence[torch.optim.Optimizer]
) -> tuple[int, float]:
    """Fill the tensors and optimizers from a checkpoint if there is one; (step, seconds so far)."""
    if not path.is_file():
        return 0, 0.0
    state = torch.load(path, weights_only=True)
    for name, tensor in tensors.items():
        tensor.copy_(state["tensors"][name])
    for optimizer, stored in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(stored)
    return int(state["step"]), float(state["seconds"])
