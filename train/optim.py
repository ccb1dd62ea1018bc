"""Optimisers: AdamW as in Lumina-mGPT, or Muon for the decoder's matrices and AdamW for the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stylear.train.settings import Settings

BETAS = (0.9, 0.95)  # Lumina-mGPT


class Optimisers:
    """One or two torch optimisers with a common learning-rate schedule."""

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        settings: Settings,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        self.settings = settings
        rates = rates or {}
        muon: list[dict[str, Any]] = []
        adam: list[dict[str, Any]] = []
        for name, parameter in named:
            rate = next((r for prefix, r in rates.items() if name.startswith(prefix)), settings.lr)
            decay = settings.weight_decay if parameter.ndim >= 2 else 0.0
            group = {"params": [parameter], "lr": rate, "weight_decay": decay, "base_lr": rate}
            inner = settings.optimizer == "muon" and parameter.ndim == 2 and ".layers." in name
            (muon if inner else adam).append(group)
        self.parts: list[torch.optim.Optimizer] = []
        if adam:
            self.parts.append(torch.optim.AdamW(merge_groups(adam), betas=BETAS))
        if muon:
            self.parts.append(torch.optim.Muon(merge_groups(muon), adjust_lr_fn="match_rms_adamw"))
        self.parameters = [p for part in self.parts for g in part.param_groups for p in g["params"]]

    def step(self, step: int) -> tuple[float, float]:
        """Clip, step (counted from 0) and clear the gradients; returns (gradient norm, learning rate)."""
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm))
        scale = schedule_rate(self.settings, step)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = group["base_lr"] * scale
            part.step()
            part.zero_grad(set_to_none=True)
        return norm, self.settings.lr * scale

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors."""
        return {
            f"{number}.{index}.{name}": torch.as_tensor(value)
            for number, part in enumerate(self.parts)
            for index, state in part.state_dict()["state"].items()
            for name, value in state.items()
        }

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state from `tensors`."""
        for number, part in enumerate(self.parts):
            states: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                owner, index, name = key.split(".", 2)
                if int(owner) == number:
                    states.setdefault(int(index), {})[name] = value
            part.load_state_dict({**part.state_dict(), "state": states})


def merge_groups(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge parameter groups of equal settings, in order of first appearance."""
    joined: dict[tuple[float, float], dict[str, Any]] = {}
    for group in groups:
        key = (group["lr"], group["weight_decay"])
        if key in joined:
            joined[key]["params"] += group["params"]
        else:
            joined[key] = group
    return list(joined.values())


def schedule_rate(settings: Settings, step: int) -> float:
    """The learning rate of a step relative to `lr`: linear warm-up, then constant or cosine to 1/50."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    if settings.schedule == "constant":
        return 1.0
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
