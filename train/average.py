"""An exponential moving average (EMA) of the trained parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stylear.errors import WeightsError


class MovingAverage:
    """The average of named parameters over the steps, in fp32.

    After each step, average = d * average + (1 - d) * parameter. d is `decay`, and at first
    (1 + step) / (10 + step) where that is less, so that the start weighs little.
    """

    def __init__(self, named: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.parameters = dict(named)
        self.averages = {name: p.detach().float().clone() for name, p in named.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after a step (counted from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, average in self.averages.items():
            average.lerp_(self.parameters[name].float(), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The parameters hold the average inside the block, and their own values again after it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            own = parameter.detach().clone()
            parameter.copy_(self.averages[name])
            self.averages[name].copy_(own)

    def tensors(self) -> dict[str, Tensor]:
        """The averages by the names of their parameters."""
        return dict(self.averages)

    def load_tensors(self, tensors: Mapping[str, Tensor], what: str) -> None:
        """Restore the averages. Raises WeightsError if they belong to other parameters."""
        for name, average in self.averages.items():
            stored = tensors.get(name)
            if stored is None or stored.shape != average.shape:
                raise WeightsError(
                    f"{what}: {name}: expected an average of shape {tuple(average.shape)}, found"
                    f" {'none' if stored is None else tuple(stored.shape)}",
                    hint="the checkpoint belongs to a run with other settings; give another --out",
                )
            average.copy_(stored)
