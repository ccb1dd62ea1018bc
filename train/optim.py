"""Optimisers: AdamW as in Lumina-mGPT, or Muon for the decoder's matrices and AdamW for the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stylear.errors import WeightsError
from stylear.train.settings import Settings

BETAS = (0.9, 0.95)  # Lumina-mGPT
# the arguments of torch.optim.AdamW; fused kernels exist for CPU and CUDA
KERNELS: dict[str, dict[str, bool]] = {
    "fused": {"fused": True},
    "foreach": {"foreach": True},
    "loop": {"foreach": False},
}


class Optimisers:
    """One or two torch optimisers with a common learning-rate schedule."""

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        settings: Settings,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        self.settings = settings
        self.named = dict(named)
        self.parameters = list(self.named.values())
        rates = rates or {}
        muon: list[dict[str, Any]] = []
        adam: list[dict[str, Any]] = []
        for name, parameter in self.named.items():
            rate = next((r for prefix, r in rates.items() if name.startswith(prefix)), settings.lr)
            decay = settings.weight_decay if parameter.ndim >= 2 else 0.0
            group = {"params": [parameter], "lr": rate, "weight_decay": decay, "base_lr": rate}
            inner = settings.optimizer == "muon" and parameter.ndim == 2 and ".layers." in name
            (muon if inner else adam).append(group)
        self.parts: list[torch.optim.Optimizer] = []
        if adam:
            kernels = KERNELS[settings.optimizer_kernels]
            self.parts.append(torch.optim.AdamW(merge_groups(adam), betas=BETAS, **kernels))
        if muon:
            self.parts.append(torch.optim.Muon(merge_groups(muon), adjust_lr_fn="match_rms_adamw"))

    def clip_gradients(self) -> float:
        """Scale the gradients down to `clip_norm`; returns their norm before that.

        A parameter that the step did not use has a gradient of zero, on every rank and with any accumulation.
        """
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return float(nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm))

    def step(self, step: int) -> float:
        """Update the parameters (step counted from 0) and clear the gradients; returns the learning rate."""
        scale = schedule_rate(self.settings, step)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = group["base_lr"] * scale
            part.step()
            part.zero_grad(set_to_none=True)
        return self.settings.lr * scale

    def tensors(self) -> dict[str, Tensor]:
        """The state as tensors named `parameter/state`."""
        return {
            f"{name}/{key}": torch.as_tensor(value)
            for name, parameter in self.named.items()
            for part in self.parts
            for key, value in part.state.get(parameter, {}).items()
        }

    def load_tensors(self, tensors: Mapping[str, Tensor], what: str = "optimiser state") -> None:
        """Restore the state from `tensors`. Raises WeightsError if it belongs to other parameters."""
        states: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            name, _, state = key.rpartition("/")
            parameter = self.named.get(name)
            if parameter is None or (value.ndim and value.shape != parameter.shape):
                found = "no such parameter" if parameter is None else tuple(parameter.shape)
                raise WeightsError(
                    f"{what}: {key}: expected a parameter of shape {tuple(value.shape)}, found {found}",
                    hint="the checkpoint belongs to a run with other settings; give another --out",
                )
            states.setdefault(name, {})[state] = value.clone()
        names = {parameter: name for name, parameter in self.named.items()}
        for part in self.parts:
            ordered = [names[p] for group in part.param_groups for p in group["params"]]
            kept = {number: states[name] for number, name in enumerate(ordered) if name in states}
            part.load_state_dict({**part.state_dict(), "state": kept})


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
