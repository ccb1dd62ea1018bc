"""The GPUs of this machine, one GPU per worker."""

from __future__ import annotations

import os
from typing import Any

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    It asks the driver without initialising CUDA, so workers can still be restricted to one GPU each.
    """
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


def take_gpu(queue: Any) -> None:
    """Restrict this process to the next GPU of a queue. CUDA must not be initialised yet."""
    if queue is not None:
        os.environ[VISIBLE] = queue.get()
