"""A tiny corpus with a tiny model, and settings of short SFT runs on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from builders.tiny_corpus import write_tiny_corpus
from builders.tiny_model import write_tiny_base, write_tiny_model
from stylear.train.metrics import TIMINGS, read_metrics
from stylear.train.settings import SftSettings


def write_training_inputs(root: Path) -> Path:
    """`corpus`, `model` with three style tokens, and `base` without any, in `root`."""
    write_tiny_corpus(root / "corpus")
    write_tiny_model(root / "model")
    write_tiny_base(root / "base")
    return root


def sft_settings(root: Path, out: str, **more: object) -> SftSettings:
    """Settings of a run of six steps of four pairs."""
    values: dict[str, object] = {
        "corpus": [root / "corpus"],
        "model": str(root / "model"),
        "out": root / out,
        "encoded": root / "encoded",
        "style_tokens": 3,
        "steps": 6,
        "batch_size": 4,
        "lr": 1e-3,
        "validate_every": 2,
        "sample_every": 100,
        "save_every": 3,
    }
    return SftSettings.model_validate(values | more)


def read_weights(model: Path) -> dict[str, Tensor]:
    """The tensors of all files of a model directory, by file and name."""
    return {
        f"{file.name}/{name}": tensor
        for file in sorted(model.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def read_losses(final: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what differs from run to run."""
    lines = read_metrics(final.parent / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines]
