"""`stylear train`: the commands of preferences and rewards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stylear.console import DryRunOption, JsonOption, emit_json, say
from stylear.train.options import (
    Accumulate,
    BatchSize,
    Config,
    Corpora,
    Csd,
    Device,
    Encoded,
    Full,
    Judge,
    Model,
    Out,
    Precision,
    Rank,
    Rate,
    SaveEvery,
    Seed,
    Steps,
    StyleScore,
    print_result,
    read_settings,
)


def dpo(
    config: Config = None,
    corpus: Corpora = None,
    model: Model = None,
    out: Out = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    accumulate: Accumulate = None,
    lr: Rate = None,
    beta: Annotated[
        float | None, typer.Option("--beta", help="Strength of the KL penalty.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", help="sigmoid, robust, ipo, simpo or kto.")
    ] = None,
    label_smoothing: Annotated[
        float | None,
        typer.Option("--label-smoothing", help="Assumed share of wrong labels, below 0.5."),
    ] = None,
    chosen_nll: Annotated[
        float | None,
        typer.Option("--chosen-nll", help="Weight of the NLL per code of chosen images."),
    ] = None,
    length_normalised: Annotated[
        bool | None,
        typer.Option("--length-normalised/--summed", help="Log-probs per code, or summed."),
    ] = None,
    pairs: Annotated[
        list[Path] | None,
        typer.Option("--pairs", help="Output folder of `stylear train pairs`; can be repeated."),
    ] = None,
    full: Full = None,
    lora_rank: Rank = None,
    precision: Precision = None,
    device: Device = None,
    encoded: Encoded = None,
    save_every: SaveEvery = None,
    seed: Seed = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Optimise on preference pairs (DPO) against the frozen starting model.

    Example: stylear train dpo --corpus demo-output/corpus --model runs/sft --out runs/dpo --steps 40
    """
    arguments = locals()
    from stylear.train.settings import DpoSettings

    settings = read_settings(DpoSettings, arguments)
    if settings is None:
        return
    from stylear.train import dpo_trainer as trainer

    print_result(trainer.run(settings), as_json)


def grpo(
    config: Config = None,
    corpus: Corpora = None,
    model: Model = None,
    out: Out = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    prompts: Annotated[
        int | None, typer.Option("--prompts", help="Prompts per step, each in one style.")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", help="Pictures per prompt, compared with each other."),
    ] = None,
    updates: Annotated[
        int | None, typer.Option("--updates", help="Optimiser steps on the pictures of each step.")
    ] = None,
    kl_weight: Annotated[
        float | None,
        typer.Option("--kl-weight", help="Weight of the KL divergence from the starting model."),
    ] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", help="Classifier-free guidance scale.")
    ] = None,
    judge: Judge = None,
    style_score: StyleScore = None,
    csd: Csd = None,
    full: Full = None,
    lora_rank: Rank = None,
    precision: Precision = None,
    device: Device = None,
    encoded: Encoded = None,
    save_every: SaveEvery = None,
    seed: Seed = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Optimise on the scores of the model's own pictures (GRPO), close to the frozen starting model.

    Example: stylear train grpo --corpus demo-output/corpus --model runs/sft --out runs/grpo --steps 20
    """
    arguments = locals()
    from stylear.train.settings import GrpoSettings

    settings = read_settings(GrpoSettings, arguments)
    if settings is None:
        return
    from stylear.train import grpo_trainer as trainer

    print_result(trainer.run(settings), as_json)


def pairs(
    config: Config = None,
    corpus: Corpora = None,
    model: Model = None,
    out: Out = None,
    prompts: Annotated[int | None, typer.Option("--prompts", help="Number of prompts.")] = None,
    samples: Annotated[int | None, typer.Option("--samples", help="Samples per prompt.")] = None,
    margin: Annotated[float | None, typer.Option("--margin", help="Minimum score margin.")] = None,
    judge: Judge = None,
    style_score: StyleScore = None,
    csd: Csd = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", help="Classifier-free guidance scale.")
    ] = None,
    style_guidance: Annotated[
        float | None,
        typer.Option("--style-guidance", help="Guidance scale of the style alone."),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", help="Sample from the K most likely image codes.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="Sampling temperature.")
    ] = None,
    device: Device = None,
    encoded: Encoded = None,
    seed: Seed = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make on-policy preference pairs: the best of a model's own pictures against the worst.

    Example: stylear train pairs --corpus demo-output/corpus --model runs/sft --out runs/pairs --prompts 100
    """
    arguments = locals()
    from stylear.train.settings import PairsSettings

    settings = read_settings(PairsSettings, arguments)
    if settings is None:
        return
    from stylear.train import pairs as pair_maker

    folder = pair_maker.run(settings)
    if as_json:
        emit_json({"pairs": str(folder)})
    else:
        say(f"pairs: {folder}")


def audit(
    pairs: Annotated[Path, typer.Argument(help="Output folder of `stylear train pairs`.")],
    corpus: Annotated[
        list[str] | None,
        typer.Option("--corpus", help="Corpus that the pairs must be from; can be repeated."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify on-policy preference pairs against their manifest.

    Example: stylear train audit runs/pairs --corpus demo-output/corpus
    """
    from stylear.train import pairs_audit

    result = pairs_audit.audit(pairs, tuple(corpus or ()))
    if as_json:
        emit_json(result)
    else:
        say(f"{pairs}: {result['pairs']} pairs in {result['files']} files match the manifest")
