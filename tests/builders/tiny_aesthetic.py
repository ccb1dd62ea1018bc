"""A random aesthetic head in the published format."""

from __future__ import annotations

from pathlib import Path

import torch


def write_head(path: Path, width: int = 24, seed: int = 0) -> Path:
    """A random head as published: the state of a linear layer in a torch file."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.save(torch.nn.Linear(width, 1).state_dict(), path)
    return path
