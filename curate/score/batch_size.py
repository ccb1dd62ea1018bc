"""Halve batches that do not fit into a GPU's memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stylear.console import say
from stylear.errors import StylearError


class BatchHalver:
    """Runs a batch in pieces small enough for the device.

    A size that failed is not tried again; `batch_size` is the size of the pieces, None until one failed.
    Raises StylearError if a single image does not fit.
    """

    def __init__(self) -> None:
        self.batch_size: int | None = None

    def __call__(self, run: Callable[[Sequence[Any]], Any], batch: Sequence[Any]) -> list[Any]:
        """The results of `run` on the pieces of a batch, in order."""
        import torch

        results: list[Any] = []
        start = 0
        while start < len(batch):
            piece = batch[start : start + (self.batch_size or len(batch))]
            try:
                results.append(run(piece))
                start += len(piece)
                continue
            except torch.OutOfMemoryError as error:
                if len(piece) == 1:
                    raise StylearError(
                        "out of GPU memory with one image in the batch",
                        hint="stop other processes on the GPU, or score with `device: cpu`",
                    ) from error
            # outside the handler, which keeps tensors alive
            self.batch_size = (len(piece) + 1) // 2
            torch.cuda.empty_cache()
            say(f"out of GPU memory with {len(piece)} images; continuing with {self.batch_size}")
        return results
