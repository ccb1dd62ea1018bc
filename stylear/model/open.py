"""Open a model by name: a mini model, a model directory, or a finished training run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stylear.device import pick_device
from stylear.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from stylear.model.style_model import StyleModel


FINAL = "final"  # where a training run leaves its finished model


def find(name: str) -> Path:
    """The model directory that a name means: a mini model, a model directory, or a run's `final/`.

    Raises WeightsError when there is none.
    """
    from stylear.weights.names import resolve

    path = resolve(name)
    if (path / FINAL).is_dir():
        return path / FINAL
    if path.is_dir() and (path / "checkpoints").is_dir():
        raise WeightsError(
            f"{name}: expected a finished run with {FINAL}/, found an unfinished one",
            hint="finish it with the same `stylear train` command, or name one of its checkpoints",
        )
    return path


def open_model(name: str, *, device: str = "auto", dtype: str = "auto") -> StyleModel:
    """A model by name, called by the last part of that name.

    `dtype` auto is bfloat16 on a GPU and float32 on a CPU. Raises UsageError for a device that is
    not there, WeightsError for a model that cannot be read.
    """
    import torch

    from stylear.model.chameleon import load_model

    device = pick_device(device)
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    if dtype not in dtypes:
        raise UsageError(f"--dtype: expected one of auto, {', '.join(dtypes)}, found {dtype!r}")
    model = load_model(find(name), device=device, dtype=dtypes[dtype])
    return replace(model, name=Path(name).resolve().name)
