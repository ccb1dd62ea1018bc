"""`stylear train`: flags to settings, one call, the result printed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from stylear.console import DryRunOption, JsonOption, emit_json, say
from stylear.train.options import (
    Accumulate,
    BaseDtype,
    BatchSize,
    CheckpointBlocks,
    Compile,
    Config,
    Corpora,
    Csd,
    Device,
    EmaDecay,
    Encoded,
    Full,
    Judge,
    Model,
    Optimizer,
    Out,
    Precision,
    Rank,
    Rate,
    SaveEvery,
    Seed,
    ShardBase,
    Steps,
    StyleScore,
    Wandb,
)

app = typer.Typer(
    help="Train a model on a corpus: sft, then dpo or grpo.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def sft(
    config: Config = None,
    corpus: Corpora = None,
    model: Model = None,
    out: Out = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    optimizer: Optimizer = None,
    full: Full = None,
    lora_rank: Rank = None,
    style_tokens: Annotated[
        int | None,
        typer.Option(
            "--style-tokens",
            help="Number of style tokens; 0: text only; default: the model's own, or 16.",
        ),
    ] = None,
    sigma: Annotated[
        str | None,
        typer.Option("--sigma", help="Noise std on style tokens, or a range such as 0.1:0.3."),
    ] = None,
    style_from: Annotated[
        str | None,
        typer.Option(
            "--style-from", help="Style features of the target itself (self) or of a sibling."
        ),
    ] = None,
    condition_dropout: Annotated[
        float | None, typer.Option("--condition-dropout", help="Condition dropout probability.")
    ] = None,
    accumulate: Accumulate = None,
    ema_decay: EmaDecay = None,
    checkpoint_blocks: CheckpointBlocks = None,
    base_dtype: BaseDtype = None,
    shard_base: ShardBase = None,
    compile: Compile = None,
    wandb: Wandb = None,
    precision: Precision = None,
    device: Device = None,
    encoded: Encoded = None,
    save_every: SaveEvery = None,
    seed: Seed = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune on (prompt, image) pairs with style tokens; resumes an interrupted run.

    On several GPUs: torchrun --nproc-per-node 8 -m stylear train sft ... All settings: --dry-run.

    Example: stylear train sft --corpus demo-output/corpus --model mini-stylear --out runs/sft --steps 100
    """
    flags = {k: v for k, v in locals().items() if k not in {"config", "dry_run", "as_json"}}
    from stylear.train.settings import SftSettings, load_settings

    settings = load_settings(SftSettings, config, drop_unset(flags))
    if dry_run:
        print_settings(settings)
        return
    from stylear.train import sft_trainer as trainer

    print_result(trainer.run(settings), as_json)


@app.command()
def dpo(
    config: Config = None,
    corpus: Corpora = None,
    model: Model = None,
    out: Out = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    beta: Annotated[float | None, typer.Option("--beta", help="KL penalty strength.")] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", help="sigmoid, robust, ipo, simpo or kto.")
    ] = None,
    label_smoothing: Annotated[
        float | None, typer.Option("--label-smoothing", help="Share of wrong labels, below 0.5.")
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
    flags = {k: v for k, v in locals().items() if k not in {"config", "dry_run", "as_json"}}
    from stylear.train.settings import DpoSettings, load_settings

    settings = load_settings(DpoSettings, config, drop_unset(flags))
    if dry_run:
        print_settings(settings)
        return
    from stylear.train import dpo_trainer as trainer

    print_result(trainer.run(settings), as_json)


@app.command()
def grpo(
    config: Config = None,
    corpus: Corpora = None,
    model: Model = None,
    out: Out = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    prompts: Annotated[
        int | None, typer.Option("--prompts", help="Prompts of a step, each in one style.")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", help="Pictures of a prompt, compared with each other."),
    ] = None,
    updates: Annotated[
        int | None, typer.Option("--updates", help="Optimiser steps on the pictures of a step.")
    ] = None,
    kl_weight: Annotated[
        float | None, typer.Option("--kl-weight", help="Weight of the KL to the start.")
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
    flags = {k: v for k, v in locals().items() if k not in {"config", "dry_run", "as_json"}}
    from stylear.train.settings import GrpoSettings, load_settings

    settings = load_settings(GrpoSettings, config, drop_unset(flags))
    if dry_run:
        print_settings(settings)
        return
    from stylear.train import grpo_trainer as trainer

    print_result(trainer.run(settings), as_json)


@app.command()
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
    top_k: Annotated[int | None, typer.Option("--top-k", help="Top-k.")] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="Sampling temperature.")
    ] = None,
    device: Device = None,
    encoded: Encoded = None,
    seed: Seed = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make on-policy preference pairs: the best of a model's own samples against the worst.

    Example: stylear train pairs --corpus demo-output/corpus --model runs/sft --out runs/pairs --prompts 100
    """
    flags = {k: v for k, v in locals().items() if k not in {"config", "dry_run", "as_json"}}
    from stylear.train.settings import PairsSettings, load_settings

    settings = load_settings(PairsSettings, config, drop_unset(flags))
    if dry_run:
        print_settings(settings)
        return
    from stylear.train import pairs as pair_maker

    folder = pair_maker.run(settings)
    if as_json:
        emit_json({"pairs": str(folder)})
    else:
        say(f"pairs: {folder}")


@app.command()
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


@app.command()
def encode(
    corpus: Annotated[list[str], typer.Argument(help="Corpora, folders or URLs.")],
    model: Annotated[str, typer.Option("--model", help="Model whose VQ model and encoder to use.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Cache, to pass to --encoded; default: CORPUS-encoded."),
    ] = None,
    copies: Annotated[
        int,
        typer.Option("--copies", min=1, help="Augmented copies per image, shifted and flipped."),
    ] = 1,
    bucket: Annotated[
        list[str] | None,
        typer.Option("--bucket", help="Image size HEIGHTxWIDTH for its aspect ratio; repeatable."),
    ] = None,
    features: Annotated[
        str, typer.Option("--features", help="cache: write style features; compute: codes only.")
    ] = "cache",
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Compute image codes and style features of corpora once, to share between runs.

    Several processes, also of `torchrun`, share the shards; what a killed one has finished stays.

    Example: stylear train encode demo-output/corpus --model mini-stylear --out runs/encoded
    """
    from stylear.train.encode_command import encode_corpora

    result = encode_corpora(
        corpus, model, out, copies=copies, buckets=bucket or [], features=features, device=device
    )
    if as_json:
        emit_json(result)
    else:
        say(
            f"{result['images']:,} images in {result['out']}: {result['bytes']:,} bytes,"
            f" {result['bytes_per_image']:,} an image"
        )


def drop_unset(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that the user set."""
    return {
        key: value
        for key, value in flags.items()
        if value is not None and not (isinstance(value, list) and not value)
    }


def print_settings(settings: Any) -> None:
    """Print the resolved settings as JSON on stdout."""
    print(json.dumps(settings.model_dump(mode="json"), indent=2))


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
