"""Shared by the `stylear train` commands: flags, each of which sets the setting of its name, and results."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylear.console import emit_json, say

if TYPE_CHECKING:
    from stylear.train.settings import AnySettings

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Settings: a YAML file, or the name of embedded ones (train-demo-sft); flags override them.",
    ),
]
Corpora = Annotated[
    list[str] | None,
    typer.Option("--corpus", help="Corpus to train on, a folder or a URL; can be repeated."),
]
Model = Annotated[
    str | None, typer.Option("--model", help="Name of a model, a model directory or a run.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Directory of the run; resumable.")]
Steps = Annotated[int | None, typer.Option("--steps", help="Optimiser steps.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Batch size.")]
Rate = Annotated[float | None, typer.Option("--lr", help="Learning rate.")]
Optimizer = Annotated[str | None, typer.Option("--optimizer", help="adamw or muon.")]
Full = Annotated[bool | None, typer.Option("--full/--lora", help="Train all weights, or LoRA.")]
Rank = Annotated[int | None, typer.Option("--lora-rank", help="LoRA rank.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Random seed.")]
Precision = Annotated[str | None, typer.Option("--precision", help="fp32 or bf16.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1 ...")]
Encoded = Annotated[
    Path | None,
    typer.Option("--encoded", help="Cache of image codes and style features, shared between runs."),
]
SaveEvery = Annotated[int | None, typer.Option("--save-every", help="Steps between checkpoints.")]

Judge = Annotated[
    str | None,
    typer.Option(
        "--judge", help="CLIP model for the text score and clip-image; by default the corpus's."
    ),
]
StyleScore = Annotated[
    str | None,
    typer.Option("--style-score", help="clip-image, csd or texture; by default the corpus's."),
]
Csd = Annotated[
    Path | None,
    typer.Option("--csd", metavar="FILE", help="CSD checkpoint, for --style-score csd."),
]
Accumulate = Annotated[
    int | None,
    typer.Option("--accumulate", help="Parts of a batch that each GPU computes in sequence."),
]
BaseDtype = Annotated[
    str | None, typer.Option("--base-dtype", help="Dtype of the frozen base: fp32, bf16 or int8.")
]
CheckpointBlocks = Annotated[
    str | None,
    typer.Option(
        "--checkpoint-blocks",
        help="Activation checkpointing: none, all, or N for every N-th block.",
    ),
]
Compile = Annotated[
    bool | None, typer.Option("--compile/--no-compile", help="Compile each block (torch.compile).")
]
EmaDecay = Annotated[
    float | None,
    typer.Option("--ema-decay", help="Decay of the moving average of the trained weights."),
]
ShardBase = Annotated[
    bool | None,
    typer.Option("--shard-base/--replicate-base", help="Shard the frozen base over GPUs (FSDP2)."),
]
Wandb = Annotated[
    str | None, typer.Option("--wandb", metavar="PROJECT", help="Log to Weights & Biases too.")
]


def read_settings(kind: type[AnySettings], arguments: Mapping[str, Any]) -> AnySettings | None:
    """The settings of a command from its arguments; None after `--dry-run` has printed them as JSON."""
    from stylear.train.settings import load_settings

    flags = {k: v for k, v in arguments.items() if k not in {"config", "dry_run", "as_json"}}
    settings = load_settings(kind, arguments["config"], {k: v for k, v in flags.items() if v != []})
    if arguments["dry_run"]:
        print(json.dumps(settings.model_dump(mode="json"), indent=2))
        return None
    return settings


def print_result(final: Path, as_json: bool) -> None:
    """Print the path of the trained model; as JSON also its training record with warnings."""
    if int(os.environ.get("RANK", "0")):
        return  # the first process prints
    if as_json:
        from stylear.model.style_model import STYLE
        from stylear.weights.files import read_json

        training = read_json(final / STYLE)["base"]["training"]
        emit_json({"model": str(final), "training": training})
    else:
        say(f"model: {final}")
