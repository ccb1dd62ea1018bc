"""Open a model by name: a mini model, a model directory, or a finished training run."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from stylear.device import pick_device
from stylear.errors import UsageError, WeightsError

if TYPE_CHECKING:
    import torch

    from stylear.model.style_model import StyleModel


# the model_type of a config.json, and the module whose `load_model` reads such a model directory
FAMILIES = {"chameleon": "stylear.model.chameleon"}
FINAL = "final"  # the finished model of a training run


def find_model(name: str) -> Path:
    """The model directory of a name: a mini or fetched model, a directory, or `final/` of a training run.

    Raises WeightsError if there is none, or if the run is unfinished.
    """
    from stylear.weights.names import resolve_model

    path = resolve_model(name)
    if (path / FINAL).is_dir():
        return path / FINAL
    if path.is_dir() and (path / "checkpoints").is_dir():
        raise WeightsError(
            f"{name}: expected a finished run with {FINAL}/, found an unfinished one",
            hint="finish it with the same `stylear train` command, or name one of its checkpoints",
        )
    return path


def load_model(
    name: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    *,
    with_clip: bool = True,
) -> StyleModel:
    """Load a model directory by the family that its config.json names, in evaluation mode.

    `name` is that of a mini or fetched model, or a directory; `dtype` is float32 by default; `with_clip`
    loads the style encoder too. Raises WeightsError for an unknown family, and as the family's own
    `load_model` does.
    """
    import torch

    from stylear.weights.files import read_json
    from stylear.weights.names import resolve_model

    directory = resolve_model(name)
    config = directory / "config.json"
    family = read_json(config).get("model_type") if config.is_file() else "chameleon"
    if family not in FAMILIES:
        raise WeightsError(
            f"{config}: model_type expected one of {', '.join(map(repr, FAMILIES))}, found {family!r}"
        )
    module = import_module(FAMILIES[family])
    model: StyleModel = module.load_model(
        name, device, torch.float32 if dtype is None else dtype, with_clip=with_clip
    )
    return model


def open_model(name: str, *, device: str = "auto", dtype: str = "auto") -> StyleModel:
    """Load a model by name: a shipped mini model, a fetched model, a model directory, or a training run.

    `device` is "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:1"; `dtype` is "auto" (bfloat16 on a
    GPU, float32 on a CPU), "float32", "bfloat16" or "float16", and applies to decoder and resampler; the VQ
    model stays in float32. The model is in evaluation mode and named after the last part of `name`. It is
    meant for sampling: LoRA is merged and projections are fused. Training loads models with `load_model`.

    Raises UsageError if the device is not available or the dtype is unknown, WeightsError naming the file and
    key if the model is missing, incomplete or of another architecture. Nothing is downloaded.

    Architecture: Chameleon (arXiv 2405.09818) as in Lumina-mGPT (arXiv 2408.02657), with StyleAR's style
    tokens.
    """
    import torch

    from stylear.model.fuse import fuse_decoder

    device = pick_device(device)
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    if dtype not in dtypes:
        raise UsageError(f"dtype: expected one of auto, {', '.join(dtypes)}, found {dtype!r}")
    model = load_model(find_model(name), device=device, dtype=dtypes[dtype])
    fuse_decoder(model.decoder)
    return replace(model, name=Path(name).resolve().name)
