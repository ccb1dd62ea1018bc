"""The trainer: supervised fine-tuning and preference optimisation on image tokens.

from stylear import train
train.sft(train.SftSettings(corpus=["my-corpus"], model="mini-stylear", out="runs/sft"))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylear.train.dpo_trainer import run as dpo
    from stylear.train.grpo_trainer import run as grpo
    from stylear.train.settings import DpoSettings as DpoSettings
    from stylear.train.settings import GrpoSettings as GrpoSettings
    from stylear.train.settings import SftSettings as SftSettings
    from stylear.train.sft_trainer import run as sft

__all__ = ["DpoSettings", "GrpoSettings", "SftSettings", "dpo", "grpo", "sft"]

PUBLIC = {
    "sft": ("stylear.train.sft_trainer", "run"),
    "dpo": ("stylear.train.dpo_trainer", "run"),
    "grpo": ("stylear.train.grpo_trainer", "run"),
    "SftSettings": ("stylear.train.settings", "SftSettings"),
    "DpoSettings": ("stylear.train.settings", "DpoSettings"),
    "GrpoSettings": ("stylear.train.settings", "GrpoSettings"),
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = PUBLIC[name]
    return getattr(import_module(module), attribute)
