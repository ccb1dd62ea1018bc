"""Batches that do not fit a GPU's memory are halved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stylear.console import say
from stylear.errors import StylearError


class Halving:
    """Runs batches in pieces that the device can hold.

    What did not fit once is not tried again: `held` is then the size of the pieces, else None. Raises
    StylearError when a single image does not fit.
    """

    def __init__(self) -> None:
        self.held: int | None = None

    def __call__(self, run: Callable[[Sequence[Any]], Any], batch: Sequence[Any]) -> list[Any]:
        """What `run` gave on each piece of a batch, in order."""
        import torch

        found: list[Any] = []
        start = 0
        while start < len(batch):
            piece = batch[start : start + (self.held or len(batch))]
            try:
                found.append(run(piece))
                start += len(piece)
                continue
            except torch.OutOfMemoryError as error:
                if len(piece) == 1:
                    raise StylearError(
                        "out of GPU memory with one image in the batch",
                        hint="end what else uses the GPU, or score with `device: cpu`",
                    ) from error
            self.held = (len(piece) + 1) // 2  # out of the handler, which holds on to the tensors
            torch.cuda.empty_cache()
            say(f"out of GPU memory with {len(piece)} images; going on with {self.held} at once")
        return found
