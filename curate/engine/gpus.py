"""The GPUs of this machine: how many there are, and giving each worker one of its own."""

from __future__ import annotations

import os
from typing import Any

VISIBLE = "CUDA_VISIBLE_DEVICES"  # what CUDA lets a process see


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    Asks the driver without starting CUDA, so that workers can still be given one each.
    """
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


def take_gpu(queue: Any) -> None:
    """Make the next GPU of a queue the only one that this process sees. CUDA must not have started."""
    if queue is not None:
        os.environ[VISIBLE] = queue.get()
