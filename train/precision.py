"""Number formats of a training run."""

from __future__ import annotations

import torch


def autocast(precision: str, device: str) -> torch.autocast:
    """Automatic casting to bf16 if the precision asks for it."""
    return torch.autocast(device.split(":")[0], torch.bfloat16, enabled=precision == "bf16")
